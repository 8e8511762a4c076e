"""Breaks an answer between words while it streams: a terminal by itself breaks inside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.cells import cell_len

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FENCE: Final = "```"
# Lines that mean something as they stand: code, tables.
_VERBATIM: Final = ("    ", "\t", "|")
_ASCII_END: Final = 0x80


class WordWrapper:
    """Takes text in pieces of any size and gives it back with line breaks between words.

    A word is kept back until it is complete. Code and tables stay as they are.

    Args:
        width: Asked at the start of every line, in cells; ``None`` does not wrap.

    """

    def __init__(self, width: Callable[[], int | None]) -> None:
        self._width = width
        self._limit = width()
        self._column = 0
        self._space = ""
        self._word = ""
        self._line = ""
        self._fenced = False

    def feed(self, text: str) -> str:
        """Return what of the text so far can be shown."""
        return "".join(part for character in text for part in self._take(character))

    def flush(self) -> str:
        """Return what was kept back."""
        return "".join(self._place_word()) + self._take_space()

    def _take(self, character: str) -> Iterator[str]:
        if character == "\n":
            yield from self._place_word()
            yield self._take_space() + "\n"
            self._end_line()
        elif character in " \t":
            yield from self._place_word()
            self._space += character
            self._line += character
        else:
            self._word += character
            self._line += character
            if ord(character) >= _ASCII_END and cell_len(character) > 1:
                yield from self._place_word()

    def _place_word(self) -> Iterator[str]:
        """Yield the word with the space before it, on a new line where it does not fit."""
        word, self._word = self._word, ""
        if not word:
            return
        cells = cell_len(word)
        breaks = self._limit is not None and self._column + len(self._space) + cells > self._limit
        if breaks and self._column and not self._verbatim:
            self._space, self._column = "", 0
            yield "\n"
        yield self._take_space() + word
        self._column += cells

    def _take_space(self) -> str:
        space, self._space = self._space, ""
        self._column += len(space)
        return space

    @property
    def _verbatim(self) -> bool:
        return self._fenced or self._line.startswith(_VERBATIM)

    def _end_line(self) -> None:
        if self._line.lstrip().startswith(_FENCE):
            self._fenced = not self._fenced
        self._line, self._column = "", 0
        self._limit = self._width()
