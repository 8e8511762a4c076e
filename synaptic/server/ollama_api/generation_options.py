"""``options`` of a request: which of them shape the reply, and which make Ollama load the model again."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from synaptic.server.ollama_api.refusals import SERVER_ERROR, Refusal, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

SHORTEST_CONTEXT = 4
OPEN_END = 10  # contexts that a reply without num_predict may fill


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """``api.Options`` with Ollama's defaults.

    Those that the request did not give are ``None`` where that makes a difference to loading.
    """

    num_predict: int = -1
    num_keep: int = 4
    seed: int = -1
    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    repeat_penalty: float = 1.1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    num_ctx: int | None = None
    num_batch: int = 512
    num_gpu: int = -1
    main_gpu: int = 0
    num_thread: int = 0
    use_mmap: bool | None = None


_INTEGERS = {field.name for field in fields(GenerationOptions) if field.type in {"int", "int | None"}}
_FLOATS = {field.name for field in fields(GenerationOptions) if field.type == "float"}


def read_options(given: Mapping[str, Any]) -> GenerationOptions:
    """Return the options of a request; an unknown one is ignored, as Ollama does.

    Raises:
        Refusal: If one has the wrong type.

    """
    values = {name: _read(name, value) for name, value in given.items() if value is not None}
    return replace(GenerationOptions(), **{name: value for name, value in values.items() if name in _KNOWN})


_KNOWN = {field.name for field in fields(GenerationOptions)}


def _read(name: str, value: Any) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if name in _INTEGERS:
        if not number:
            raise _wrong(name, "integer")
        return int(value)
    if name in _FLOATS:
        if not number:
            raise _wrong(name, "float32")
        return float(value)
    if name == "use_mmap" and not isinstance(value, bool):
        raise _wrong(name, "boolean")
    if name == "stop":
        if not isinstance(value, list):
            raise _wrong(name, "array")
        if not all(isinstance(item, str) for item in value):
            raise _wrong(name, "an array of strings", of=True)
        return tuple(value)
    return value


def _wrong(name: str, kind: str, *, of: bool = False) -> Refusal:
    verb = "be of an array" if of else f"be of type {kind}"
    return Refusal(SERVER_ERROR, f"option {quoted(name)} must {verb}")


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a model is, or is to be, loaded. ``context`` is in tokens for each call; ``auto`` if no request named one."""

    context: int
    auto: bool
    num_batch: int
    num_gpu: int
    main_gpu: int
    num_thread: int
    use_mmap: bool | None
    shift: bool


def load_options(
    options: GenerationOptions, *, default_context: int, trained_context: int | None, shift: bool
) -> LoadOptions:
    """Return how ``options`` want the model to be loaded; a context above the trained one is cut to it."""
    wanted = max(options.num_ctx if options.num_ctx is not None else default_context, SHORTEST_CONTEXT)
    return LoadOptions(
        context=min(wanted, trained_context) if trained_context else wanted,
        auto=options.num_ctx is None,
        num_batch=options.num_batch,
        num_gpu=options.num_gpu,
        main_gpu=options.main_gpu,
        num_thread=options.num_thread,
        use_mmap=options.use_mmap,
        shift=shift,
    )


def needs_reload(loaded: LoadOptions, wanted: LoadOptions) -> bool:
    """Tell whether a model that was loaded in one way must be loaded again for another (``needsReload``)."""
    if loaded.auto and wanted.auto:
        wanted = replace(wanted, context=loaded.context)
    if wanted.num_gpu < 0:
        wanted = replace(wanted, num_gpu=loaded.num_gpu)
    return replace(wanted, auto=loaded.auto) != loaded


def token_budget(num_predict: int, context: int) -> int:
    """Return how many tokens may be generated: an open end is bounded by ten contexts."""
    limit = OPEN_END * context
    return limit if num_predict < 0 else min(num_predict, limit)
