"""Names of models as Ollama reads them: which of them mean the same model, and which look like one that is there.

A name is ``host/namespace/model:tag`` (``types/model/name.go``). What it leaves out is Ollama's own registry, the
namespace ``library`` and the tag ``latest``; capitals and small letters are the same.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from synaptic import paths

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from synaptic.messages import ModelInfo

REGISTRY: Final = "registry.ollama.ai"
LIBRARY: Final = "library"
LATEST: Final = "latest"
SUFFIX: Final = ".gguf"
SUGGESTED_MODEL: Final = "llama3.2"

_REMEMBERED: Final = 256
"""Characters of a name up to which its form is remembered: every call asks for it several times."""
_CLOSE: Final = 0.7
_MOST_MEANT: Final = 3


class NameParts(NamedTuple):
    """What a name says, in its own letters; "" is what it leaves out, and what goes without saying."""

    host: str
    namespace: str
    model: str
    tag: str


def split_name(text: str) -> NameParts:
    """Return the parts of a name: from the right, as Ollama does it, a scheme left out."""
    places, _, last = text.strip().rpartition("/")
    model, _, tag = last.partition(":")
    host, _, namespace = places.rpartition("/")
    host = host.rpartition("://")[2]
    if host.lower() == REGISTRY:
        host = ""
    if not host and namespace.lower() == LIBRARY:
        namespace = ""
    return NameParts(host, namespace, model, tag)


def full_name(model: str) -> str:
    """Return a name in its shortest form, but with its tag: ``library/Llama3.2`` is ``Llama3.2:latest``.

    The path of a file is left as it is.
    """
    return _full_name(model) if len(model) <= _REMEMBERED else _full_name.__wrapped__(model)


@lru_cache(maxsize=1024)
def _full_name(model: str) -> str:
    if paths.names_model_file(model):
        return model
    host, namespace, name, tag = split_name(model)
    return "/".join(part for part in (host, namespace, f"{name}:{tag or LATEST}") if part)


def name_key(model: str) -> str:
    """Return what all names of one model have in common."""
    return _name_key(model) if len(model) <= _REMEMBERED else _name_key.__wrapped__(model)


@lru_cache(maxsize=1024)
def _name_key(model: str) -> str:
    return model if paths.names_model_file(model) else full_name(model).lower()


def name_spellings(model: str) -> set[str]:
    """Return the names of a model in small letters, with and without what goes without saying.

    However a model was named, they are the same: what Ollama ignores is in none of them.
    """
    key = name_key(model)
    names = {key} if "/" in key or "\\" in key else {key, f"{LIBRARY}/{key}", f"{REGISTRY}/{LIBRARY}/{key}"}
    return names | {name.removesuffix(f":{LATEST}") for name in names}


def has_model(models: Iterable[ModelInfo], model: str | None) -> bool:
    """Return whether ``model`` is among them (``llama3`` is ``llama3:latest``); with none named, whether any is."""
    if model is None:
        return any(True for _ in models)
    return name_key(model) in {name_key(info.name) for info in models}


def near_models(model: str, known: Collection[str]) -> list[str]:
    """Return the known names that ``model`` may stand for, the likeliest first; three at most.

    Those of the same model under another tag or namespace come first, then those that are spelled nearly alike.
    """
    wanted = _rough(model)
    base = wanted.partition(":")[0]
    spellings = {name_key(name): name for name in known}.values()
    ranked = sorted((-_likeness(wanted, base, _rough(name)), name) for name in spellings)
    return [name for unlikeness, name in ranked if -unlikeness >= _CLOSE][:_MOST_MEANT]


def did_you_mean_model(model: str, known: Collection[str]) -> str:
    """Return ``did you mean 'llama3.2:3b' or 'llama3.2:1b'?``; "" where nothing that is known is near."""
    near = [repr(name) for name in near_models(model, known)]
    if not near:
        return ""
    others = ", ".join(near[:-1])
    return f"did you mean {f'{others} or ' if others else ''}{near[-1]}?"


def pull_hint(model: str | None, known: Collection[str], *, run: str = "run") -> str:
    """Return what to do about a model that is not there: what may have been meant, and how to fetch it.

    ``None`` is any model; ``run`` is how the advice begins.
    """
    pull = f"{run}: ollama pull {model or SUGGESTED_MODEL}"
    meant = did_you_mean_model(model, known) if model else ""
    return f"{meant} If not, {pull}" if meant else pull


def _likeness(wanted: str, base: str, name: str) -> float:
    """Return how alike two names are, from 0 to 1; more than 1 where they differ in nothing but the tag."""
    likeness = SequenceMatcher(None, wanted, name).ratio()
    return 1.0 + likeness if name.partition(":")[0] == base else likeness


def _rough(model: str) -> str:
    """Return what is compared where a name may be wrong: without where the model comes from, and without ``latest``."""
    _, _, name, tag = split_name(model)
    return (name if tag.lower() in {"", LATEST} else f"{name}:{tag}").lower()
