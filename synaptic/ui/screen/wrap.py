"""Breaks text between words, whole or while it streams: a terminal by itself breaks inside them."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, TextIO

from rich.cells import cell_len

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FENCE: Final = "```"
# Lines that mean something as they stand: code, tables.
_VERBATIM: Final = ("    ", "\t", "|")
_ASCII_END: Final = 0x80
_PARTS: Final = re.compile(r"\s+|\S+")


def width_of(out: TextIO) -> int | None:
    """Return the width of a terminal in cells; ``None`` where it does not say, and of everything else."""
    try:
        return (os.get_terminal_size(out.fileno()).columns or None) if out.isatty() else None
    except (OSError, ValueError):
        return None


def for_person(text: str, out: TextIO) -> str:
    """Return a message as it is shown at ``out``: on a terminal with its long lines broken between words."""
    width = width_of(out)
    return text if width is None else in_words(text, width)


def in_words(text: str, width: int) -> str:
    """Return a text with lines of at most ``width`` cells, unless a word is longer; an indent goes on."""
    return "\n".join(part for line in text.split("\n") for part in _broken(line, width))


def _broken(line: str, width: int) -> list[str]:
    if cell_len(line) <= width:
        return [line]
    parts = _PARTS.findall(line)
    indent = parts.pop(0) if parts[0].isspace() and cell_len(parts[0]) < width // 2 else ""
    lines, space = [indent], ""
    for part in parts:
        if part.isspace():
            space = part
        elif lines[-1] != indent and cell_len(lines[-1] + space + part) > width:
            lines.append(indent + part)
        else:
            lines[-1] += space + part
        space = part if part.isspace() else ""
    lines[-1] += space
    return lines


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
