"""How much one rendering may do and make. A template comes with a file; no file may hang a run or fill the memory.

Work is counted in units of roughly a tenth of a microsecond to a few microseconds: an item of a list, a node of the
template in a loop's round, 256 characters of text. Sizes are checked before text is made, not after.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

MAX_TEXT = 4 * 1024 * 1024
"""Characters of any one text that a template makes."""
MAX_WORK = 1_000_000
"""Units of work in one rendering."""
MAX_BITS = 1024
"""Of a whole number that is calculated with."""
MAX_SHOWN_DEPTH = 50
"""Levels of nesting in a value that is shown as text."""
MAX_DEPTH = 1000
"""Levels of nesting in a value that is worked with; Python hashes and compares one level inside the other."""
_TOO_LONG = f"the template would make a text of more than {MAX_TEXT:,} characters"
_CHARACTERS_A_UNIT = 256
_NUMBER_CHARACTERS = 24
_EMITTED_TEXT = 4 * MAX_TEXT
_LEAVES = (int, float, type(None))
_PLAIN = {str, bool, *_LEAVES}


class TooMuch(Exception):
    """A rendering would take too long or make too much text."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a value is: its items at all levels, the characters that showing it takes, its levels."""

    items: int
    characters: int
    depth: int


def measure(value: Any, *, as_text: bool = False) -> Size:
    """Return the size of a value; ``as_text`` if a text is about to be made of it.

    Raises:
        TooMuch: If it has more items or characters than one rendering may touch, or one text may have.
        TypeError: If a function is in it, whose text would be its place in memory.
    """
    items = characters = deepest = 0
    stack = [(value, 0)]
    while stack:
        current, depth = stack.pop()
        items += 1
        if isinstance(current, str):
            characters += len(current) + (_indentation(current, depth) if depth else 0)
        elif isinstance(current, _LEAVES):
            characters += _digits(current) + 2 * depth
        elif isinstance(current, range):
            items += len(current)
            characters += len(current) * _NUMBER_CHARACTERS
        elif isinstance(current, Collection) and not isinstance(current, bytes):
            deepest = max(deepest, depth + 1)
            if deepest > MAX_DEPTH:
                raise TooMuch(f"the value is nested more than {MAX_DEPTH} levels deep")
            parts = current
            if isinstance(current, Mapping):
                characters += sum(len(_shown_key(key)) + 2 for key in current)
                parts = current.values()
            _refuse_more_than_work(items + len(stack) + len(parts))
            kinds = set(map(type, parts))
            if kinds <= _PLAIN:  # flat lists are long and frequent
                items += len(parts)
                characters += _flat(parts, kinds, depth + 1)
            else:
                stack.extend((part, depth + 1) for part in parts)
        else:
            refuse_function(current)
            characters += _NUMBER_CHARACTERS
        _refuse_more_than_work(items + len(stack) + characters // _CHARACTERS_A_UNIT)
        if as_text and characters > MAX_TEXT:
            raise TooMuch(_TOO_LONG)
    return Size(items, characters, deepest)


def _flat(parts: Collection[Any], kinds: set[type], depth: int) -> int:
    """Return the characters that showing texts and numbers takes, each on a line of its own."""
    if kinds == {str}:
        return sum(map(len, parts)) + sum(_indentation(part, depth) for part in parts)
    if str in kinds:
        return sum(_flat([part], {type(part)}, depth) for part in parts)
    return sum(map(_digits, parts)) + len(parts) * 2 * depth


def _digits(number: Any) -> int:
    """Return the characters that a number, or nothing, takes at most."""
    return _NUMBER_CHARACTERS + (number.bit_length() >> 1 if isinstance(number, int) else 0)


def _shown_key(key: Any) -> str:
    refuse_function(key)
    return str(key)


def refuse_function(value: Any) -> None:
    """Raise for what is no data: a function, or what Jinja2 has for itself. Its text would be its place in memory.

    Raises:
        TypeError: If it is one.
    """
    kind = type(value)
    if callable(value) or kind.__module__.startswith("jinja2."):
        if any(base.__name__ == "Undefined" for base in kind.__mro__):
            return  # it says itself what is missing; Jinja2 is not imported for what needs none
        raise TypeError("a function is not text; did you forget the brackets after its name?")


def _indentation(text: str, depth: int) -> int:
    """Return how many characters a text grows by inside lists: two for each line at each level."""
    return 2 * depth * (text.count("\n") + 1)


def _refuse_more_than_work(units: int) -> None:
    if units > MAX_WORK:
        raise TooMuch("the template works on more data than one rendering may; give it a part of the data")


class Meter:
    """What one rendering has used."""

    __slots__ = ("emitted", "left")

    def __init__(self) -> None:
        self.left = MAX_WORK
        self.emitted = 0

    def spend(self, units: int) -> None:
        """Count work.

        Raises:
            TooMuch: If the rendering has used up what it may.
        """
        self.left -= units
        if self.left < 0:
            raise TooMuch("the template would take too long; loop over less")

    def spend_on_text(self, characters: int) -> None:
        """Count the work of going over a text once."""
        self.spend(1 + characters // _CHARACTERS_A_UNIT)

    def weigh(self, value: Any, *, as_text: bool = False) -> Size:
        """Count the work of going over a value once, and return its size."""
        size = measure(value, as_text=as_text)
        self.spend(size.items + size.characters // _CHARACTERS_A_UNIT)
        return size

    def weigh_shown(self, value: Any) -> Size:
        """Count a value that is about to become text, and return its size.

        Raises:
            TooMuch: If the text would be too long, or the value is nested too deeply.
        """
        size = self.weigh(value, as_text=True)
        if size.depth > MAX_SHOWN_DEPTH:
            raise TooMuch(f"the value is nested more than {MAX_SHOWN_DEPTH} levels deep")
        return size

    def allow_text(self, characters: int) -> None:
        """Refuse a text that is about to be made.

        Raises:
            TooMuch: If it would be longer than any text may be.
        """
        if characters > MAX_TEXT:
            raise TooMuch(_TOO_LONG)

    def emit(self, characters: int) -> None:
        """Count text that goes to the output, or to a block that collects it.

        Raises:
            TooMuch: If all of it together is too long.
        """
        self.emitted += characters
        if self.emitted > _EMITTED_TEXT:
            raise TooMuch(_TOO_LONG)
