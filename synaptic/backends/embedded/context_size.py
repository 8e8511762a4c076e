"""How long a context the embedded engine is started with: the model's own, as far as memory allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psutil

from synaptic.errors import SynapticError
from synaptic.models import EMBEDDED_CONTEXT, read_shape

if TYPE_CHECKING:
    from pathlib import Path

FALLBACK: Final = 4096
"""Tokens of context where the model's file does not tell its own, and where memory is short."""

MEMORY_SHARE: Final = 0.25
"""Of what is available, for the keys and values of all calls together."""

MOST_OF_MEMORY: Final = 0.75
"""The same where somebody says how long the context is to be: more would take from what is in use."""

CACHE_SHARE: Final = 17 / 32
"""Of 16 bits a value: the engine keeps keys and values at 8 bits, with a scale for every 32 of them."""

_STEP: Final = 256


@dataclass(frozen=True, slots=True)
class OwnContext:
    """What a model says of its context.

    Attributes:
        trained: The longest context, in tokens, that it was trained for; ``None`` where it does not say.
        bytes_per_token: Of keys and values in memory.
    """

    trained: int | None
    bytes_per_token: float = 0.0


OURS: Final = OwnContext(EMBEDDED_CONTEXT)
"""That of the model that comes with us; small enough for every memory."""


def own_context(file: Path) -> OwnContext:
    """Return what the user's own model says; it takes a moment to read."""
    try:
        shape = read_shape(file.stem, (file,))
    except SynapticError:
        return OwnContext(None)  # the engine may load it all the same, and says so if it does not
    bytes_per_token = sum(layer.kv_bytes_per_token for layer in shape.layers) * CACHE_SHARE
    return OwnContext(shape.trained_context, bytes_per_token)


def choose_context(wanted: int | None, own: OwnContext, slots: int, available: int) -> int:
    """Return the tokens of context of one call.

    Args:
        wanted: The setting; a model's own context is never exceeded, because beyond it a model talks nonsense, and
            neither is memory.
        own: What the model says.
        slots: Calls at once.
        available: Bytes of memory that are free.
    """
    if wanted is not None:
        most = wanted if own.trained is None else min(wanted, own.trained)
        possible = _affordable(own, slots, available * MOST_OF_MEMORY)
        return most if possible is None else min(most, max(_STEP, possible))
    if own.trained is None:
        return FALLBACK
    affordable = _affordable(own, slots, available * MEMORY_SHARE)
    return own.trained if affordable is None else min(own.trained, max(FALLBACK, affordable))


def _affordable(own: OwnContext, slots: int, memory: float) -> int | None:
    """Return the tokens of one call that fit ``memory`` bytes; ``None`` where that is not known."""
    return int(memory / (slots * own.bytes_per_token)) // _STEP * _STEP if own.bytes_per_token else None


def available_memory() -> int:
    """Return how many bytes of memory are free."""
    return int(psutil.virtual_memory().available)
