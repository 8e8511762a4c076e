"""Where thinking ends: the first mark that closes it and is not merely thought about."""

from __future__ import annotations

import re
from functools import cache
from typing import Final, NamedTuple

_QUOTES: Final = "`\"'"


class ThinkingEnd(NamedTuple):
    """Where in a piece of thinking it ends.

    Attributes:
        thinking: Characters that are thinking.
        behind: Where the text behind the closing mark begins; ``None`` where the thinking goes on.

    """

    thinking: int
    behind: int | None


class Closers:
    """The marks that close one thinking; ``closers(...)`` makes one."""

    def __init__(self, marks: tuple[str, ...]) -> None:
        by_length = sorted(marks, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, by_length)), re.IGNORECASE)
        self._beginnings = {mark[:end].lower() for mark in marks for end in range(1, len(mark))}
        self._first = re.compile("[" + re.escape("".join({mark[0] for mark in marks})) + "]", re.IGNORECASE)
        self._longest = len(by_length[0])

    def find(self, text: str, before: str, *, at_end: bool) -> ThinkingEnd:
        """Return where the thinking ends in ``text``.

        Args:
            text: The thinking from some place on.
            before: The character before it; "" at the beginning.
            at_end: Whether no more text will come; else what may become a mark is left for later.

        """
        place = 0
        while (found := self._pattern.search(text, place)) is not None:
            previous = text[found.start() - 1] if found.start() else before
            quote = bool(previous) and previous in _QUOTES
            if quote and found.end() == len(text) and not at_end:
                return ThinkingEnd(found.start(), None)
            if not quote or text[found.end() : found.end() + 1] != previous:
                return ThinkingEnd(found.start(), found.end())
            place = found.end()
        if at_end or self._first.search(text, place) is None:
            return ThinkingEnd(len(text), None)
        for start in range(max(place, len(text) - self._longest), len(text)):
            if text[start:].lower() in self._beginnings:
                return ThinkingEnd(start, None)
        return ThinkingEnd(len(text), None)


@cache
def closers(marks: tuple[str, ...]) -> Closers:
    """Return what finds the first of ``marks``."""
    return Closers(marks)
