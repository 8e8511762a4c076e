"""A long text in parts of so many tokens each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from synaptic.pipeline import split_text

if TYPE_CHECKING:
    from synaptic.runtime.policies.prompt_size import TokenCounter

_UNEVEN: Final = 1.1
"""Some stretches of a text have more tokens a character than others."""


async def divide(text: str, room: int, counter: TokenCounter, *, parts: int = 1) -> list[str]:
    """Return the text in parts of at most ``room`` tokens, cut where a paragraph, a sentence, a line or a word ends.

    Args:
        text: What is cut; white space around the parts is left out.
        room: Most tokens of a part; of one character it may be more.
        counter: Counts them.
        parts: Least parts, where the text is long enough.

    """
    if parts == 1 and len(text.encode(errors="surrogatepass")) <= room:
        return [text]
    tokens = await counter.count(text)
    wanted = max(parts, 1 if tokens <= room else math.ceil(tokens / room * _UNEVEN))
    if wanted == 1 or len(text) < 2:
        return [text]
    found: list[str] = []
    for piece in split_text(text, math.ceil(len(text) / wanted)):
        found += await divide(piece, room, counter)
    return found
