"""JSON with positions: every key knows its line and column, and what is broken is said in plain words.

The standard library's parser says neither where a key stands nor that it stands twice, so this one reads by hand.
It accepts exactly RFC 8259, no more: a file that we accept, every other JSON tool accepts too.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from synaptic.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from synaptic.text.problems import KeyPath

MAX_DEPTH = 64
MAX_NUMBER_LENGTH = 400
SHOWN_LENGTH = 60

_BLANK = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"')
_STRING_PREFIX = re.compile(r'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![\w.+-])", re.ASCII)
_WORD = re.compile(r"[^\W\d][\w.$-]*")
_LITERALS = {"true": True, "false": False, "null": None}
_MEANT = {
    "none": "null",
    "nil": "null",
    "undefined": "null",
    "yes": "true",
    "on": "true",
    "no": "false",
    "off": "false",
}
_NOT_NUMBERS = {"nan", "infinity", "inf"}


def excerpt(text: str) -> str:
    """Return ``text`` cut to a length that fits a message, without anything a terminal would choke on."""
    cut = text if len(text) <= SHOWN_LENGTH else text[: SHOWN_LENGTH - 3] + "..."
    return legible(cut)


def legible(text: str) -> str:
    """Return ``text`` on one line, with a mark for each character that a terminal would obey or hide."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def is_unicode(text: str) -> bool:
    """Say whether ``text`` can be written as UTF-8: half a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Position:
    """Where something stands; both one-based, the column in characters."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class JsonDocument:
    """Parsed JSON.

    Attributes:
        source: The file's name as messages show it.
        positions: Key path -> where the key (in an object) or the element (in a list) begins.
        problems: What is wrong although it could be read: keys that stand twice.
        text: What was parsed; "" for a document that never was a text.
    """

    source: str
    value: Any
    positions: Mapping[KeyPath, Position] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    text: str = field(default="", repr=False)

    def position(self, path: KeyPath) -> Position | None:
        """Return where ``path`` stands, or the nearest thing around it that has a place."""
        for length in range(len(path), 0, -1):
            found = self.positions.get(path[:length])
            if found is not None:
                return found
        return None


def parse_json(text: str, source: str) -> JsonDocument:
    """Parse ``text``, which came from ``source``.

    Raises:
        ConfigError: If it is not JSON; the one problem says where and what to write instead.
    """
    return _Reader(text, source).read()


class _Reader:
    """A recursive-descent reader; ``at`` is the index of the next character."""

    def __init__(self, text: str, source: str) -> None:
        self.text = text
        self.source = source
        self.at = 0
        self.positions: dict[KeyPath, Position] = {}
        self.problems: list[Problem] = []
        self.line_starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def read(self) -> JsonDocument:
        self.skip_blank()
        value = self.value((), 1)
        self.skip_blank()
        if self.at < len(self.text):
            self.fail(self.at, "there is more text after the end of the value", "remove it")
        return JsonDocument(self.source, value, self.positions, tuple(self.problems), self.text)

    def place(self, index: int) -> Position:
        line = bisect_right(self.line_starts, index)
        return Position(line, index - self.line_starts[line - 1] + 1)

    def fail(self, index: int, message: str, suggestion: str) -> NoReturn:
        place = self.place(index)
        raise ConfigError.of([Problem(f"broken JSON: {message}", self.source, place.line, place.column, suggestion)])

    @property
    def next(self) -> str:
        return self.text[self.at : self.at + 1]

    def skip_blank(self) -> None:
        match = _BLANK.match(self.text, self.at)
        self.at = match.end() if match else self.at
        if self.next == "#" or self.text.startswith(("//", "/*"), self.at):
            self.fail(self.at, "a comment, which JSON does not have", "remove it")

    def value(self, path: KeyPath, depth: int) -> Any:
        if depth > MAX_DEPTH:
            self.fail(self.at, f"more than {MAX_DEPTH} levels of brackets", "use fewer")
        char = self.next
        if char == "{":
            return self.members(path, depth)
        if char == "[":
            return self.elements(path, depth)
        if char == '"':
            return self.string()
        number = _NUMBER.match(self.text, self.at)
        if number:
            return self.number(number.group())
        word = _WORD.match(self.text, self.at)
        if word and word.group() in _LITERALS:
            self.at = word.end()
            return _LITERALS[word.group()]
        return self.unexpected("a value")

    def members(self, path: KeyPath, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}

        def member() -> None:
            start = self.at
            if self.next != '"':
                self.unexpected("a key")
            key = self.string()
            if key in result:
                self.twice(path, key, start)
            else:
                self.positions[(*path, key)] = self.place(start)
            self.skip_blank()
            if self.next != ":":
                suggestion = "write ':' instead" if self.next == "=" else f'write "{excerpt(key)}": and its value'
                self.fail(self.at, "a ':' is missing after the key", suggestion)
            self.at += 1
            self.skip_blank()
            value = self.value((*path, key), depth + 1)
            result.setdefault(key, value)

        self.listed("{", "}", member)
        return result

    def elements(self, path: KeyPath, depth: int) -> list[Any]:
        result: list[Any] = []

        def element() -> None:
            here = (*path, len(result))
            self.positions[here] = self.place(self.at)
            result.append(self.value(here, depth + 1))

        self.listed("[", "]", element)
        return result

    def listed(self, opening: str, closing: str, read_one: Callable[[], None]) -> None:
        """Read what stands between two brackets, separated by commas."""
        start = self.at
        self.at += 1
        self.skip_blank()
        if self.next == closing:
            self.at += 1
            return
        while True:
            if self.at >= len(self.text):
                self.not_closed(start, opening, closing)
            read_one()
            self.skip_blank()
            if self.next == closing:
                self.at += 1
                return
            if self.next != ",":
                if self.at >= len(self.text):
                    self.not_closed(start, opening, closing)
                self.no_comma(closing)
            comma = self.at
            self.at += 1
            self.skip_blank()
            if self.next == closing:
                self.fail(comma, f"a comma before the closing '{closing}'", "remove the comma")

    def not_closed(self, start: int, opening: str, closing: str) -> NoReturn:
        opened = self.place(start)
        self.fail(
            len(self.text),
            f"the file ends before the '{opening}' of line {opened.line}, column {opened.column} is closed",
            f"write '{closing}'",
        )

    def no_comma(self, closing: str) -> NoReturn:
        if self.next in "]}":
            self.fail(self.at, f"'{self.next}' where '{closing}' belongs", f"write '{closing}'")
        self.fail(self.at, "a comma is missing before this", "write ',' after the value before it")

    def twice(self, path: KeyPath, key: str, start: int) -> None:
        place = self.place(start)
        first = self.positions[(*path, key)]
        message = f"the key {excerpt(key)!r} stands here again; it is also at line {first.line}"
        self.problems.append(Problem(message, self.source, place.line, place.column, "remove one of them"))

    def string(self) -> str:
        match = _STRING.match(self.text, self.at)
        if match is None:
            self.bad_string()
        value: str = json.loads(match.group())
        if not is_unicode(value):
            self.fail(self.at, "the text holds half of a surrogate pair", "write the character itself")
        self.at = match.end()
        return value

    def bad_string(self) -> NoReturn:
        match = _STRING_PREFIX.match(self.text, self.at)
        end = match.end() if match else self.at
        char = self.text[end : end + 1]
        if char in {"", "\n", "\r"}:
            self.fail(self.at, "the text that begins here is not closed on its line", "write '\"' at its end")
        if char == "\\":
            self.fail(end, "an unknown escape in the text", "write '\\\\' for one backslash")
        self.fail(end, "a control character in the text", "write it as an escape, such as '\\t' for a tab")

    def number(self, lexeme: str) -> int | float:
        if len(lexeme) > MAX_NUMBER_LENGTH:
            self.fail(self.at, "a number that is too long", "write fewer digits")
        if lexeme.lstrip("-").isdigit():
            self.at += len(lexeme)
            return int(lexeme)
        value = float(lexeme)
        if not math.isfinite(value):
            self.fail(self.at, "a number that is too large", "write a smaller one")
        self.at += len(lexeme)
        return value

    def unexpected(self, wanted: str) -> NoReturn:
        char = self.next
        word = _WORD.match(self.text, self.at + (char == "-"))
        if not char:
            self.fail(self.at, f"the file ends where {wanted} belongs", "write the rest")
        if char == "'":
            self.fail(self.at, "single quotes", 'write double quotes: "..."')
        if char in "\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb":
            self.fail(self.at, "typographic quotes", 'write straight double quotes: "..."')
        if word and wanted == "a value":
            self.bare_word(word.group())
        if word:
            self.fail(self.at, "a key without quotes", f'write "{excerpt(word.group())}"')
        if char in "+-.0123456789" and wanted == "a value":
            self.fail(self.at, "a number that JSON cannot read", "write digits, such as 5, 0.5 or -1")
        if char == ",":
            self.fail(self.at, f"a comma where {wanted} belongs", "remove the comma")
        self.fail(self.at, f"{excerpt(char)!r} (U+{ord(char):04X}) where {wanted} belongs", f"write {wanted}")

    def bare_word(self, word: str) -> NoReturn:
        lower = word.lower()
        if lower in _NOT_NUMBERS:
            self.fail(self.at, "a number that JSON does not have", "write a finite number, or null")
        meant = lower if lower in _LITERALS else _MEANT.get(lower)
        if meant is not None:
            self.fail(self.at, f"{excerpt(word)!r} is not a word of JSON", f"write {meant}")
        self.fail(self.at, "text without quotes", "write double quotes around it")
