"""From what a person calls a model to its files: a path, a model of Ollama's, or the model that comes with us."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from synaptic import paths
from synaptic.errors import ModelFileError, ModelNotFound, UsageError
from synaptic.messages import ModelInfo
from synaptic.models.download import MODEL_NAME, ModelStore
from synaptic.models.gguf_file import part_paths, read_shape
from synaptic.models.names import SUFFIX, did_you_mean_model, name_key
from synaptic.models.ollama_store import (
    Stored,
    Stores,
    how_to_read,
    look_in,
    parse_name,
    store_places,
    weight_bytes,
    weights_of,
)
from synaptic.text import broken_link, did_you_mean, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.models.layers import ModelShape

MOST_NAMES: Final = 12
"""How many names a message lists."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model is.

    Attributes:
        files: Its GGUF file, or those of a split model.
        notes: What of it is left out, and why.
    """

    name: str
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


async def open_model(name_or_path: str, *, environ: Mapping[str, str] | None = None) -> ModelShape:
    """Return the shape of a model that is on this machine.

    Args:
        name_or_path: A GGUF file's path (also of any part of a split model), a name of Ollama's (``llama3:8b``,
            ``user/model:tag``, ``host/namespace/model:tag``), or ``smollm2:135m``.
        environ: The environment; ``None`` for that of the process.

    Raises:
        ModelNotFound: If there is no such model; names where it was looked for, and the nearest name.
        ModelFileError: If its file is none that text can be generated with.
        UsageError: If nothing, or a name that means several models, was given.
    """
    return await asyncio.to_thread(_open, name_or_path, os.environ if environ is None else environ)


async def list_models(environ: Mapping[str, str] | None = None) -> list[ModelInfo]:
    """Return the models that :func:`open_model` finds by name, in the order of their names.

    Sizes are those of the weights, as Ollama's manifests say them; files are not opened.
    """
    return await asyncio.to_thread(_list, os.environ if environ is None else environ)


def all_names(environ: Mapping[str, str]) -> list[str]:
    """Return the names of all models that are here, also of those that are damaged. Blocking."""
    names = {model.name for model in _list(environ)}
    return sorted(names | {MODEL_NAME} if _embedded().files else names)


def find_model(name_or_path: str, environ: Mapping[str, str]) -> Source:
    """Return where a model is. Blocking; see :func:`open_model`."""
    name = name_or_path.strip()
    if not name or "\0" in name:
        raise UsageError(f"{name!r} names no model", hint="write a path of a .gguf file, or a name such as llama3:8b")
    if is_path(name):
        return Source(name, _present(_path(name, environ)))
    embedded = _embedded()
    if name_key(name) == name_key(embedded.name) and embedded.files:
        return embedded
    stores = look_in(store_places(environ))
    wanted = parse_name(name)
    matches = [stored for stored in stores.found if wanted is not None and wanted.matches(stored.name)]
    if not matches:
        raise _not_found(name, stores, embedded)
    blob = weights_of(_only(name, matches, stores), name=name)
    return Source(name, (blob.path,), blob.notes)


def is_path(name: str) -> bool:
    """Return whether a name means a file: by how it is written, or because there is such a file."""
    try:
        return paths.names_model_file(name) or Path(name).is_file()
    except OSError:  # a directory of that name may not be looked into
        return False


def _open(name: str, environ: Mapping[str, str]) -> ModelShape:
    source = find_model(name, environ)
    return read_shape(source.name, source.files)


def _list(environ: Mapping[str, str]) -> list[ModelInfo]:
    stores = look_in(store_places(environ))
    models = {
        stored.name.text(stores.home): size for stored in stores.found if (size := weight_bytes(stored)) is not None
    }
    store = ModelStore()
    if store.has_model():
        models[MODEL_NAME] = store.artifact.file_bytes
    return [ModelInfo(name=name, size_bytes=models[name]) for name in sorted(models)]


def _embedded() -> Source:
    """Return the embedded model, damaged or not; without files if it was not fetched yet."""
    store = ModelStore()
    return Source(MODEL_NAME, (store.path,) if store.is_there() else ())


def _path(name: str, environ: Mapping[str, str]) -> Path:
    """Return an absolute path. Links are kept: the parts of a split model may be links to files of other names."""
    home = environ.get("HOME") or environ.get("USERPROFILE")
    if home and (name == "~" or name.startswith(("~/", "~\\"))):
        return Path(home) / name[2:]
    try:
        return Path(name).expanduser().absolute()
    except RuntimeError as error:  # ~somebody
        raise ModelNotFound(f"{name}: {error}", hint="write the whole path") from error


def _present(path: Path) -> tuple[Path, ...]:
    """Return the files of the model at ``path``, which has to be there."""
    parts = part_paths(path)
    try:
        if path.is_dir():
            raise ModelFileError(f"{path} is a directory, not a GGUF file", hint=_hint_in(path, ""))
        path.stat()
    except PermissionError as error:
        raise ModelFileError(
            f"{path} may not be looked at by you", hint=f"run: sudo chmod a+x {path.parent}, or copy the file"
        ) from error
    except OSError as error:
        if len(parts) > 1:
            return parts  # reading them names all that are missing
        raise ModelNotFound(f"there is no file {path}", hint=_hint_in(path.parent, path.name)) from error
    return parts


def _hint_in(directory: Path, name: str) -> str:
    """Return which GGUF files a directory holds, or the one that was meant."""
    if link := broken_link(directory / name):
        return link
    try:
        names = sorted(file.name for file in directory.iterdir() if file.name.lower().endswith(SUFFIX))
    except FileNotFoundError:
        return f"there is no {directory} either"
    except OSError:
        return f"the directory {directory} cannot be read"
    if not names:
        return f"there is no {SUFFIX} file in {directory}"
    meant = nearest(name, names)
    return f"did you mean {directory / meant}?" if meant else f"in {directory} there are: {_some(names)}"


def _only(name: str, matches: list[Stored], stores: Stores) -> Stored:
    """Return the one model that a name means: where several hosts have it, that of Ollama's own library."""
    at_home = [stored for stored in matches if stored.name.host == stores.home]
    candidates = at_home or matches
    if len(candidates) > 1:
        names = ", ".join(stored.name.text(None) for stored in candidates)
        raise UsageError(f"the name {name!r} means several models", hint=f"write one of: {names}")
    return candidates[0]


def _not_found(name: str, stores: Stores, embedded: Source) -> ModelNotFound:
    known = sorted({*stores.names(), *([embedded.name] if embedded.files else [])})
    wanted = parse_name(name)
    full = name if wanted is None else wanted.text(stores.home)
    if not known:
        suggestion = "no model of Ollama's is there"
    elif near := did_you_mean_model(full, known):
        suggestion = near
    elif len(known) <= MOST_NAMES:
        suggestion = did_you_mean(full, known)
    else:
        suggestion = f"known: {_some(known)}"
    lines = [suggestion, f"looked in {', '.join(str(place) for place in stores.looked_in)}"]
    if name_key(name) == name_key(embedded.name):
        lines.append("the model that comes with this program is fetched when it is first asked without any Ollama")
    else:
        lines.append(f"run: ollama pull {name}  or name a {SUFFIX} file")
    lines.extend(f"{place} may not be read by you: {how_to_read(place)}" for place in stores.unreadable)
    return ModelNotFound(f"there is no model {name!r} on this machine", hint="\n  ".join(lines))


def _some(names: list[str]) -> str:
    return ", ".join(names[:MOST_NAMES]) + (", ..." if len(names) > MOST_NAMES else "")
