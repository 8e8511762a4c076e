"""The context length that the calls of a model need: one for all of them, so that they do not reload it in turns.

Ollama reloads a model whenever a request names another ``num_ctx`` than it is loaded with, and uses a default that
depends on the machine where a request names none. So a length is always sent, and it only ever grows. A node that has
the model loaded with more is asked for that (``ModelState.context_for``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synaptic.backends.pool.node import ModelState

DEFAULT_CONTEXT = 8192
"""Tokens, where neither the settings nor the model say: room for a pipeline's texts at 1 GiB of KV cache for an
8B model."""


class ContextBook:
    """Remembers the context length of each model.

    Args:
        default: For requests that name none; ``None`` takes what the model is loaded with, else its own
            ``PARAMETER num_ctx``, else :data:`DEFAULT_CONTEXT`.
    """

    def __init__(self, default: int | None = None) -> None:
        self._default = default
        self._lengths: dict[str, int] = {}

    def length(self, model: str, wanted: int | None, states: Iterable[ModelState]) -> int:
        """Return the length that a call of ``model`` needs, in tokens.

        ``wanted`` is what the request names.
        """
        known = self._lengths.get(model)
        asked = self._default if wanted is None else wanted
        if known is not None and (asked is None or asked <= known):
            return known
        trained = [state.context_length for state in states if state.context_length]
        if asked is None:
            loaded = [state.loaded_context for state in states if state.resident and state.loaded_context]
            own = [state.own_context for state in states if state.own_context]
            asked = max(loaded or own, default=DEFAULT_CONTEXT)
        length = min(asked, max(trained)) if trained else asked
        self._lengths[model] = max(length, known or 0)
        return self._lengths[model]
