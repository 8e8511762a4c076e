"""Models that Ollama keeps on this machine: which there are, and in which file the weights of each are.

Ollama's store is two directories: ``manifests/HOST/NAMESPACE/MODEL/TAG``, JSON that lists layers by kind and digest,
and ``blobs/sha256-HEX``, the layers. Nothing is asked of Ollama itself, so it need not run. The host of Ollama's own
library is whichever directory of hosts holds the namespace ``library``.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from synaptic.errors import ModelFileError
from synaptic.models.names import LATEST, LIBRARY, split_name
from synaptic.text import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

KIND: Final = "application/vnd.ollama.image."
MODEL_KIND: Final = KIND + "model"
TENSOR_KIND: Final = KIND + "tensor"
ADAPTER_KIND: Final = KIND + "adapter"
PROJECTOR_KIND: Final = KIND + "projector"
DIGEST: Final = re.compile(r"sha256[:-]([0-9a-f]{64})")
MOST_MANIFEST_BYTES: Final = 8 << 20

SYSTEM_PLACES: Final = (
    "/usr/share/ollama/.ollama/models",
    "/var/lib/ollama/.ollama/models",
    "/var/lib/ollama/models",
    "/var/snap/ollama/common/models",
)
"""Where Ollama keeps models when it runs as a service: its installer, distributions' packages, the snap."""
PROJECTOR_IGNORED: Final = "its image part (projector) is left out: text only"


@dataclass(frozen=True, slots=True, kw_only=True)
class OllamaName:
    """A model's name as Ollama writes it.

    Attributes:
        host: "" where the name does not say it.
        namespace: ``library`` where the name does not say it.
    """

    host: str
    namespace: str
    model: str
    tag: str

    def matches(self, other: OllamaName) -> bool:
        """Return whether a stored model has this name; Ollama does not tell capitals from small letters."""
        return (not self.host or self.host.lower() == other.host.lower()) and self._rest() == other._rest()

    def _rest(self) -> tuple[str, str, str]:
        return self.namespace.lower(), self.model.lower(), self.tag.lower()

    def text(self, home: str | None) -> str:
        """Return the name in its shortest form.

        ``home`` is the host that need not be written.
        """
        name = f"{self.model}:{self.tag}"
        if self.host and self.host != home:
            return f"{self.host}/{self.namespace}/{name}"
        return name if self.namespace == LIBRARY else f"{self.namespace}/{name}"


@dataclass(frozen=True, slots=True)
class Stored:
    """A manifest that was found."""

    name: OllamaName
    manifest: Path
    store: Path


@dataclass(frozen=True, slots=True)
class Blob:
    """The file of a model's weights.

    Attributes:
        size: In bytes, as the manifest says it.
        notes: What of the model is left out, and why.
    """

    path: Path
    size: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stores:
    """What there is in all places.

    Attributes:
        found: Each model once: in the first place that has it.
        looked_in: The places, in order.
        unreadable: Those of them, or directories in them, that may not be read.
        home: The host of Ollama's own library; ``None`` where nothing of it is there.
    """

    found: tuple[Stored, ...]
    looked_in: tuple[Path, ...]
    unreadable: tuple[Path, ...]
    home: str | None

    def names(self) -> list[str]:
        """The names of the models, each in its shortest form."""
        return sorted(stored.name.text(self.home) for stored in self.found)


def parse_name(text: str) -> OllamaName | None:
    """Return what a name means: ``llama3``, ``llama3:8b``, ``user/model:tag``, ``host/namespace/model:tag``.

    ``None`` if it cannot be a name of Ollama's.
    """
    host, namespace, model, tag = split_name(text)
    name = OllamaName(host=host, namespace=namespace or LIBRARY, model=model, tag=tag or LATEST)
    written = text.strip().rpartition("://")[2].split("/")
    parts = (*written[:-1], name.model, name.tag, name.host or name.model)
    return name if all(_is_part(part) for part in parts) else None


def _is_part(part: str) -> bool:
    return re.fullmatch(r"\w[\w.:-]*", part, re.ASCII) is not None


def store_places(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return where models of Ollama may be, the place that ``OLLAMA_MODELS`` names first."""
    home = Path(environ.get("HOME") or environ.get("USERPROFILE") or Path.home())
    named = environ.get("OLLAMA_MODELS", "").strip()
    places = [_expanded(named, home)] if named else []
    places += [home / ".ollama" / "models", home / "snap" / "ollama" / "common" / "models"]
    places += [Path(place) for place in SYSTEM_PLACES]
    return tuple(dict.fromkeys(places))


def _expanded(named: str, home: Path) -> Path:
    return home / named[2:] if named.startswith("~/") else Path(named).absolute()


def look_in(places: Sequence[Path]) -> Stores:
    """Return the models in all places. Blocking; places that are not there hold none."""
    unreadable: list[Path] = []
    found: dict[OllamaName, Stored] = {}
    for store in places:
        for manifest in _files(store / "manifests", unreadable, depth=4):
            host, namespace, model, tag = manifest.parts[-4:]
            name = OllamaName(host=host, namespace=namespace, model=model, tag=tag)
            found.setdefault(name, Stored(name, manifest, store))
    libraries = [name.host for name in found if name.namespace == LIBRARY]
    home = max(sorted(set(libraries)), key=libraries.count, default=None)
    return Stores(tuple(found.values()), tuple(places), tuple(unreadable), home)


def _files(directory: Path, unreadable: list[Path], *, depth: int) -> Iterator[Path]:
    """Yield the files exactly ``depth`` levels down; hidden ones are the system's (``.DS_Store``)."""
    try:
        with os.scandir(directory) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and (entry.is_dir() if depth > 1 else entry.is_file())
            )
    except PermissionError:
        unreadable.append(directory)
        return
    except OSError:  # it is not there, or is no directory
        return
    for name in names:
        if depth > 1:
            yield from _files(directory / name, unreadable, depth=depth - 1)
        else:
            yield directory / name


def weights_of(stored: Stored, *, name: str) -> Blob:
    """Return the file of a model's weights, after checking that it is whole. Blocking.

    ``name`` is what messages call it.

    Raises:
        ModelFileError: If the manifest cannot be read or holds no weights in GGUF, they are not there or not whole,
            or the model cannot be used without an adapter.
    """
    layers = list(_layers(stored.manifest, name))
    kinds = [kind for kind, _, _ in layers]
    if ADAPTER_KIND in kinds:
        raise ModelFileError(
            f"the model {name} has an adapter (LoRA), which cannot be spread over workers",
            hint="merge the adapter into the model (llama-export-lora), and name the merged GGUF file",
        )
    weights = [(size, digest) for kind, digest, size in layers if kind == MODEL_KIND]
    if not weights:
        raise ModelFileError(f"the model {name} has no GGUF file: {_why_none(kinds)}", hint="take another model")
    size, digest = max(weights)
    match = DIGEST.fullmatch(digest)
    if match is None:
        raise ModelFileError(f"{stored.manifest} is damaged: {digest!r} is no digest", hint=_pull(name))
    notes = (PROJECTOR_IGNORED,) if PROJECTOR_KIND in kinds else ()
    return Blob(_checked_blob(stored.store / "blobs", match[1], size, name), size, notes)


def weight_bytes(stored: Stored) -> int | None:
    """Return the size of a model's weights as its manifest says it; ``None`` if it has none that can be used."""
    try:
        layers = list(_layers(stored.manifest, stored.name.model))
    except ModelFileError:
        return None
    if any(kind == ADAPTER_KIND for kind, _, _ in layers):
        return None
    return max((size for kind, _, size in layers if kind == MODEL_KIND), default=None)


def _layers(manifest: Path, name: str) -> Iterator[tuple[str, str, int]]:
    """Yield kind, digest and size of each layer."""
    try:
        document = json.loads(read_regular(manifest, MOST_MANIFEST_BYTES))
        for layer in document["layers"] or ():
            kind, digest, size = layer["mediaType"], layer["digest"], layer["size"]
            yield str(kind), str(digest), int(size)
    except PermissionError as error:
        raise ModelFileError(f"{manifest} may not be read by you", hint=how_to_read(manifest.parent)) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(
            f"Ollama's manifest of {name} cannot be used ({type(error).__name__}: {error}): {manifest}",
            hint=_pull(name),
        ) from error


def _why_none(kinds: Sequence[str]) -> str:
    if TENSOR_KIND in kinds:
        return "Ollama keeps it as single tensors for another engine"
    if not kinds:
        return "it runs in a cloud, not here"
    return f"its layers are {', '.join(sorted({kind.removeprefix(KIND) for kind in kinds}))}"


def _checked_blob(directory: Path, digest: str, size: int, name: str) -> Path:
    """Return the blob's path if it is there and as large as the manifest says."""
    for path in (directory / f"sha256-{digest}", directory / f"sha256:{digest}"):
        try:
            actual = path.stat().st_size
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ModelFileError(
                f"the weights of {name} cannot be read: {error.strerror} ({path})", hint=how_to_read(directory)
            ) from error
        if actual != size:
            missing = f"{size - actual} bytes are missing" if actual < size else f"{actual - size} bytes too many"
            raise ModelFileError(
                f"the weights of {name} are damaged: {path} has {actual} bytes instead of {size} ({missing})",
                hint=_pull(name),
            )
        return path
    raise ModelFileError(
        f"the weights of {name} are not there: Ollama lists them, but there is no {directory / f'sha256-{digest}'}",
        hint=f"wait if Ollama is still fetching them, else {_pull(name)}",
    )


def how_to_read(directory: Path) -> str:
    """Return what to do about a directory of Ollama's that may not be read."""
    return (
        f"join the group that it belongs to (sudo usermod -aG ollama $USER, then log in again), or open it: "
        f"sudo chmod -R a+rX {directory}  (and a+x for the directories above it), or copy the model and name the copy"
    )


def _pull(name: str) -> str:
    return f"run: ollama pull {name}"
