"""``options`` of a request: which of them shape the reply, and which make Ollama load the model again."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from synaptic.server.ollama_api.option_bounds import read_option

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


_KNOWN = {field.name for field in fields(GenerationOptions)}


def read_options(given: Mapping[str, Any]) -> GenerationOptions:
    """Return the options of a request; an unknown one is ignored, as Ollama does.

    Raises:
        Refusal: If one is not what it may be.
    """
    known = {name: value for name, value in given.items() if value is not None and name in _KNOWN}
    return replace(GenerationOptions(), **{name: read_option(name, value) for name, value in known.items()})


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
    options: GenerationOptions, *, default_context: int, trained_context: int | None, processors: int, shift: bool
) -> LoadOptions:
    """Return how ``options`` want the model to be loaded.

    A context above the trained one is cut to it, and threads to the processors there are: more of either only harm.
    """
    wanted = max(options.num_ctx if options.num_ctx is not None else default_context, SHORTEST_CONTEXT)
    return LoadOptions(
        context=min(wanted, trained_context) if trained_context else wanted,
        auto=options.num_ctx is None,
        num_batch=options.num_batch,
        num_gpu=options.num_gpu,
        main_gpu=options.main_gpu,
        num_thread=min(options.num_thread, processors),
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


def repeat_window(repeat_last_n: int, context: int) -> int:
    """Return how many of the last tokens may not be repeated; -1 means all, which the engine does not know."""
    return context if repeat_last_n < 0 else min(repeat_last_n, context)
