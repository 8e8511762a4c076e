"""Where in a growing Markdown text one is: in a fenced block, in a code span, on which line."""

from __future__ import annotations

import re
from typing import Final

_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_RUNS: Final = re.compile(r"`+")
LONGEST_LINE: Final = 4096
"""Characters; of a longer line only the end is kept. What matters stands near."""


class CodePlace:
    """The place at the end of a text that is read piece by piece, each piece once.

    Attributes:
        line: The last line, as far as it goes.
        last_above: The last character before that line that is no white space; "" where there is none.
    """

    __slots__ = ("_fence", "_unread", "last_above", "line")

    def __init__(self) -> None:
        self.line = ""
        self.last_above = ""
        self._fence = ""
        self._unread: list[str] = []

    def append(self, text: str) -> None:
        """Add a piece; it is read when it matters."""
        self._unread.append(text)

    def read(self) -> None:
        """Read what was added."""
        *lines, last = (self.line + "".join(self._unread)).split("\n")
        self._unread.clear()
        for line in lines:
            self._end_line(line)
        self.line = last[-LONGEST_LINE:]

    @property
    def in_block(self) -> bool:
        """Whether the place is in a block of code: a fenced one, or a line that is set in by four blanks or a tab."""
        if self._closes_the_fence(self.line):
            return False
        return bool(self._fence) or self.line.startswith(("    ", "\t")) or _FENCE.match(self.line) is not None

    @property
    def open_span(self) -> str:
        """The backticks that began a code span on this line and have not ended it yet; "" where there are none."""
        opened = ""
        if self._closes_the_fence(self.line):
            return opened
        for run in _RUNS.findall(self.line):
            if not opened:
                opened = run
            elif run == opened:
                opened = ""
        return opened

    def _closes_the_fence(self, line: str) -> bool:
        fence = _FENCE.match(line) if self._fence else None
        return fence is not None and fence[1].startswith(self._fence) and not fence[2].strip()

    def _end_line(self, line: str) -> None:
        if self._closes_the_fence(line):
            self._fence = ""
        elif not self._fence and (fence := _FENCE.match(line)) is not None:
            self._fence = fence[1]
        said = line.rstrip()
        self.last_above = said[-1] if said else self.last_above
