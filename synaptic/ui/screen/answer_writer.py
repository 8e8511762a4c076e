"""Writes the answer of a run: as it comes to a person, whole and complete to a program."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from synaptic.text import printable
from synaptic.ui.screen.wrap import WordWrapper, width_of

if TYPE_CHECKING:
    from synaptic.runtime import RunResult


class AnswerWriter:
    """Writes the answer to ``out``: as it comes to a person, whole and complete to a program.

    Attributes:
        streams: Whether a person reads.
        text: What was written of the answer so far.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.streams = out.isatty()
        self._wrapper = WordWrapper(self._width)
        self.text = ""
        self._open_line = False

    def add(self, text: str) -> None:
        """Write the next piece; white space before the first word is left out."""
        piece = text if self.text else text.lstrip()
        if piece:
            self.text += piece
            self._write(self._wrapper.feed(printable(piece)))

    def begin_anew(self) -> None:
        """Void what was written; the next piece begins on a new line."""
        self.end_line()
        self.text = ""

    def end_line(self) -> None:
        """Leave the cursor at the start of a line."""
        self._write(self._wrapper.flush())
        if self._open_line:
            self._write("\n")
        self._wrapper = WordWrapper(self._width)

    def show(self, text: str) -> None:
        """Write an answer that is complete."""
        self.add(text.strip())
        self.end_line()

    def finish(self, result: RunResult) -> None:
        """Complete the answer. What was streamed is not written again, unless the run ended with another text."""
        answer = result.text
        same = self.text.strip() == answer.strip()
        if not same and (not self.text or result.status in {"succeeded", "stopped"}):
            self.begin_anew()
            if self.streams:
                self.add(answer.rstrip())
            elif answer:
                # In one piece, newline and all: the program at the other end may write to our terminal, too.
                self._write(answer if answer.endswith("\n") else f"{answer}\n")
        self.end_line()
        self.text = ""

    def _width(self) -> int | None:
        """Return the width of the terminal now; ``None`` where it does not say."""
        return width_of(self._out)

    def _write(self, text: str) -> None:
        if not text:
            return
        self._out.write(text)
        self._out.flush()
        self._open_line = not text.endswith("\n")
