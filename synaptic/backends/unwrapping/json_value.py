"""Where the one JSON value of a reply begins and ends, among what a model says around it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from synaptic.messages import JsonSchema

_BRACKETS: Final = {"object": "{", "array": "["}
_LEADS: Final = r"(?:\A[\s\ufeff]*|```\w*\s*|\n[ \t]*|:[ \t]*\s|:?\*\*\s*|<[A-Za-z_]{1,32}>\s*)"
_STARTS: Final = {
    "{": re.compile(_LEADS + r"(?=\{\s*[\"}])"),
    "[": re.compile(_LEADS + r"(?=\[\s*[\"{\[\]\d\-tfn])"),
}
NEAR_AN_END: Final = re.compile(r'["\\{}\[\]]')
"""What a piece of a value has that matters to where it ends."""


def opening_bracket(schema: JsonSchema | None) -> str:
    """Return the character that a value of ``schema`` begins with; "" where it may be any."""
    kind = None if schema is None else schema.get("type")
    return _BRACKETS.get(kind, "") if isinstance(kind, str) else ""


def value_start(text: str, bracket: str) -> int | None:
    """Return where the value begins: first, in a code block or an element, on a line of its own or behind a colon."""
    match = _STARTS[bracket].search(text)
    return None if match is None else match.end()


class ValueEnd:
    """Finds the end of a value in the text that begins with it, piece by piece."""

    __slots__ = ("_depth", "_escaped", "_quoted")

    def __init__(self) -> None:
        self._depth = 0
        self._quoted = False
        self._escaped = False

    @property
    def is_escaped(self) -> bool:
        """Whether the next character stands behind a backslash."""
        return self._escaped

    def find(self, text: str) -> int | None:
        """Return where in the next piece the value has ended; ``None`` if it goes on behind it."""
        place = 0
        if self._escaped and text:
            self._escaped, place = False, 1
        while (match := NEAR_AN_END.search(text, place)) is not None:
            place = match.end()
            character = match.group()
            if self._quoted:
                if character == "\\":
                    place += 1
                    self._escaped = place > len(text)
                elif character == '"':
                    self._quoted = False
            elif character == '"':
                self._quoted = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    return place
        return None


def is_wrapping(text: str) -> bool:
    """Tell whether the text behind a value adds mere words: of two values, none is the answer."""
    return not any(pattern.search(text) for pattern in _STARTS.values())
