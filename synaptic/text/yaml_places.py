"""Where a character of a YAML scalar stands in the file: through folding, indentation, quotes and escapes.

YAML changes only the white space of a scalar, its quotes and its escapes. So the n-th character that is not white
space is the same in the value and in the file, and counting those is enough to find any place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_LINE = re.compile(r"\r\n|\r|\n")
_ESCAPED_SPACE = frozenset("ntr \tN_LPvf\n\r")
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}


@dataclass(frozen=True, slots=True)
class Span:
    """A scalar in the text of a file: from ``start`` to ``end``, and how it is written.

    Attributes:
        style: ``|``, ``>``, ``'``, ``"``, or "" for a plain one.
        line: One-based; of ``start``.
        column: One-based; of ``start``.
    """

    start: int
    end: int
    style: str
    line: int
    column: int


def place_of(text: str, span: Span, value: str, offset: int) -> tuple[int, int]:
    """Return line and column of the character ``value[offset]``, or of the next one that is not white space."""
    wanted = sum(not character.isspace() for character in value[:offset])
    found = None
    for count, index in enumerate(_visible(text, span)):
        found = index
        if count == wanted:
            break
    return position(text, span, span.start if found is None else found)


def position(text: str, span: Span, index: int) -> tuple[int, int]:
    """Return line and column of ``text[index]``, counted on from the beginning of the scalar."""
    breaks = list(_BREAK.finditer(text, span.start, index))
    if not breaks:
        return span.line, span.column + index - span.start
    return span.line + len(breaks), index - breaks[-1].end() + 1


def offset_of(value: str, line: int, token: str | None) -> int:
    """Return where ``token`` stands in ``value``: on that line (one-based), else behind it, else anywhere.

    Without a token, or where it is nowhere, this is the first character of the line that is not white space.
    """
    starts = [0, *(match.end() for match in _LINE.finditer(value))]
    begin = starts[min(max(line, 1), len(starts)) - 1]
    end = next((start for start in starts if start > begin), len(value))
    if token:
        body = r"\s+".join(re.escape(word) for word in token.split()) or re.escape(token)
        for first, last in ((begin, end), (begin, len(value)), (0, len(value))):
            for pattern in (rf"(?<![\w.]){body}(?!\w)", rf"(?<!\w){body}(?!\w)", body):
                match = re.compile(pattern).search(value, first, last)
                if match is not None:
                    return match.start()
    visible = re.compile(r"\S").search(value, begin)
    return visible.start() if visible else begin


def _visible(text: str, span: Span) -> Iterator[int]:
    """Yield where the characters of the value stand that are not white space."""
    index, end = span.start, span.end
    if span.style in {"|", ">"}:
        header = _BREAK.search(text, span.start, span.end)
        index = header.end() if header else end
    elif span.style:
        index, end = index + 1, end - 1
    while index < end:
        character = text[index]
        if span.style == '"' and character == "\\":
            length, is_space = _escape(text, index)
            if not is_space:
                yield index
            index += length
            continue
        if not character.isspace():
            yield index
        index += 2 if span.style == "'" and text.startswith("''", index) else 1


def _escape(text: str, index: int) -> tuple[int, bool]:
    """Return the length of the escape that begins here, and whether it stands for white space."""
    kind = text[index + 1 : index + 2]
    digits = _HEX_DIGITS.get(kind)
    if digits is None:
        return 2, kind in _ESCAPED_SPACE
    return 2 + digits, chr(int(text[index + 2 : index + 2 + digits], 16)).isspace()
