"""Leaving out the beginning of the longest values of a prompt, until it fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synaptic.runtime.policies.prompt_size import prompt_text
from synaptic.runtime.policies.prompt_values import TakenApart, Value, cut_after

if TYPE_CHECKING:
    from synaptic.messages import ChatRequest
    from synaptic.runtime.policies.prompt_size import TokenCounter

MARK = "[... {} tokens left out ...]\n"
_WIDEST_MARK = MARK.format(10_000_000)
MAX_COUNTS = 8
CLOSE_ENOUGH = 0.02
"""Of the room: the search ends when no more than this is left unused."""


async def truncate_oldest(request: ChatRequest, room: int, counter: TokenCounter) -> ChatRequest | None:
    """Return the request with its longest values cut to one length, the greatest that fits ``room`` tokens.

    What is oldest stands first, so a value loses its beginning; a mark says how much. Values shorter than that length
    stay whole, and so does everything that is not a value.

    Returns:
        The request, or ``None`` if what may not be cut does not fit.
    """
    apart = TakenApart.of(request)
    best = 0
    low, tokens_low = 0, await _tokens(apart, 0, counter)
    if tokens_low > room:
        return None
    high = max((len(value.text) for value in apart.values), default=0)
    tokens_high = await counter.count(prompt_text(request.messages))
    for _ in range(MAX_COUNTS):
        share = (room * (1 - CLOSE_ENOUGH / 2) - tokens_low) / max(1, tokens_high - tokens_low)
        length = low + int((high - low) * min(0.95, max(0.05, share)))
        if length in {low, high}:
            break
        tokens = await _tokens(apart, length, counter)
        if tokens > room:
            high, tokens_high = length, tokens
            continue
        low, tokens_low, best = length, tokens, length
        if room - tokens <= room * CLOSE_ENOUGH:
            break
    marks = {id(value): await _mark(value, best, counter) for value in apart.values if _kept(value, best) is not None}
    return apart.put_together(lambda value: _shown(value, best, marks.get(id(value), "")))


async def _tokens(apart: TakenApart, length: int, counter: TokenCounter) -> int:
    cut = apart.put_together(lambda value: _shown(value, length, _WIDEST_MARK))
    return await counter.count(prompt_text(cut.messages))


def _kept(value: Value, length: int) -> int | None:
    """Return where what is kept of the value begins, or ``None`` if it stays whole: a mark takes room, too."""
    if len(value.text) <= length + len(_WIDEST_MARK):
        return None
    return cut_after(value.text, len(value.text) - length)


def _shown(value: Value, length: int, mark: str) -> str:
    start = _kept(value, length)
    return value.text if start is None else mark + value.text[start:]


async def _mark(value: Value, length: int, counter: TokenCounter) -> str:
    return MARK.format(await counter.count(value.text[: _kept(value, length)]))
