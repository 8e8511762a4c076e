"""Where thinking ends: the first mark that closes it and is not merely thought about."""

from __future__ import annotations

import re
from functools import cache
from typing import Final, NamedTuple

_QUOTED: Final = re.compile(r"(?:`+|[\"'])\Z")
_OPENERS: Final = "([{<=:,;/+|*_~“‘«„—→"
_ENDS: Final = ".!?)]}"
_FENCE: Final = "```"
LONGEST_LINE: Final = 4096
"""Characters of the line before a mark that are looked at: whether a quotation mark opens or closes there."""


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
            before: What stands before it on the same line.
            at_end: Whether no more text will come; else what may become a mark is left for later.
        """
        place = 0
        while (found := self._pattern.search(text, place)) is not None:
            quote = _opened_quote(last_line(before, text[: found.start()]))
            if quote and found.end() == len(text) and not at_end:
                return ThinkingEnd(found.start(), None)
            if not quote or text[found.end() : found.end() + 1] != quote:
                return ThinkingEnd(found.start(), found.end())
            place = found.end()
        if at_end or self._first.search(text, place) is None:
            return ThinkingEnd(len(text), None)
        for start in range(max(place, len(text) - self._longest), len(text)):
            if text[start:].lower() in self._beginnings:
                return ThinkingEnd(start, None)
        return ThinkingEnd(len(text), None)


def last_line(before: str, text: str) -> str:
    """Return the last line of ``before`` and ``text`` together, or the end of a long one."""
    above, newline, line = text.rpartition("\n")
    return (line if newline else before + above + line)[-LONGEST_LINE:]


def _opened_quote(line: str) -> str:
    """Return the quotation mark that opens at the end of ``line``; "" where there is none, or one closes there.

    Behind a letter it is the one or the other, by how many the line has: languages differ in where they put blanks.
    """
    found = _QUOTED.search(line)
    if found is None:
        return ""
    run, said = found[0], line[: found.start()]
    if run.startswith(_FENCE) and not said.strip():
        return ""
    previous = said[-1:]
    if not previous or previous.isspace() or previous in _OPENERS:
        return run[0]
    return "" if previous in _ENDS or run.startswith(_FENCE) or line.count(run) % 2 == 0 else run[0]


@cache
def closers(marks: tuple[str, ...]) -> Closers:
    """Return what finds the first of ``marks``."""
    return Closers(marks)
