"""Mistakes in something a person wrote: what pydantic's errors demand in plain words, and the nearest thing meant."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic_core import ErrorDetails

KeyPath: TypeAlias = tuple[str | int, ...]
"""The keys and list positions that lead to a value, from the outside in."""


_LETTERS_A_SLIP: Final = 3
_BEGINNING: Final = 4
_SHORTEST_PART: Final = 3
_MANY: Final = 100
_PARTS: Final = re.compile(r"[\W_]+")

_TYPES: Final = {
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller number",
    "int_type": "a whole number",
    "list_type": "a list",
    "string_type": "text",
}
_MAPPINGS: Final = frozenset({"dataclass_type", "dict_type", "model_attributes_type", "model_type"})
_BOUNDS: Final = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_COUNTS: Final = {"too_short": ("min_length", "at least"), "too_long": ("max_length", "at most")}


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that ``word`` most looks like, or ``None`` where nothing is close.

    Close is what differs in a letter or two, what begins alike (``desc`` and ``description``), what leaves letters out
    (``idx`` and ``index``), and what is one of several words (``tokens`` and ``max_tokens``). To share letters is not
    enough: ``first`` is not ``trust``.
    """
    plain, known = word.casefold(), list(known)
    if len(known) > _MANY:  # files of a folder: the most alike are found ten times as fast as what is near
        known = difflib.get_close_matches(word, known, n=_MANY)
    close = [candidate for candidate in known if _is_close(plain, candidate.casefold())]
    return max(close, key=lambda candidate: _likeness(plain, candidate.casefold()), default=None)


def misspelt(word: str, other: str) -> bool:
    """Return whether one word is the other but for a slip in every third letter at most."""
    return edits(word, other) <= max(len(word), len(other)) // _LETTERS_A_SLIP


def edits(word: str, other: str) -> int:
    """Return how many slips make one word of the other: a letter more, less or wrong, or two neighbours exchanged."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for index, letter in enumerate(word, 1):
        above, before, row = before, row, [index]
        for column, wanted in enumerate(other, 1):
            costs = [before[column] + 1, row[-1] + 1, before[column - 1] + (letter != wanted)]
            if above and column > 1 and letter == other[column - 2] and word[index - 2] == wanted:
                costs.append(above[column - 2] + 1)
            row.append(min(costs))
    return row[-1]


def _is_close(word: str, other: str) -> bool:
    if misspelt(word, other) or _abbreviates(word, other):
        return True
    shorter = min(len(word), len(other))
    if {word, word.rstrip("s"), f"{word}s"} & {*_PARTS.split(other)} or other in _PARTS.split(word):
        return shorter >= _SHORTEST_PART
    alike = next((at for at, (one, two) in enumerate(zip(word, other, strict=False)) if one != two), shorter)
    if alike == shorter and abs(len(word) - len(other)) == 1:
        return True  # of short names, too: ``aa`` and ``a``
    return alike >= _BEGINNING and 3 * alike >= 2 * shorter


def _abbreviates(word: str, other: str) -> bool:
    """Return whether a word is the other with letters left out, two of three at most: ``idx``, ``msg``."""
    letters = iter(other)
    long_enough = len(word) >= max(_SHORTEST_PART, len(other) / 3)
    return long_enough and word[0] == other[:1] and all(letter in letters for letter in word)


def _likeness(word: str, other: str) -> float:
    """Return how alike two words are; an exchange of neighbouring letters is the nearest miss of all."""
    exchanged = len(word) == len(other) and edits(word, other) <= 1 and sorted(word) == sorted(other)
    return 1.0 if exchanged else difflib.SequenceMatcher(None, word, other).ratio()


def did_you_mean(word: str, known: Iterable[str], *, listing: str | None = None) -> str:
    """Return a suggestion: the nearest known word, else the list of what is known.

    ``listing`` is said in place of that list, where it is too long to be read.
    """
    candidates = sorted(known)
    match = nearest(word, candidates)
    if match is not None:
        return f"did you mean {match!r}?"
    if listing is not None:
        return listing
    return f"known: {', '.join(candidates)}" if candidates else "there are no others"


def explain(error: ErrorDetails, *, mapping: str = "a mapping") -> str | None:
    """Return what a value must be: ``must be a whole number``, ``must be at least 1``, ``must have at most 3 entries``.

    Args:
        error: One of a ``ValidationError``'s errors.
        mapping: What a mapping is called where the value was written: ``an object`` in JSON.

    Returns:
        ``None`` for an error that is not about a type or a bound.
    """
    kind, context = error["type"], error.get("ctx", {})
    if kind in _MAPPINGS:
        return f"must be {mapping}"
    if kind in _TYPES:
        return f"must be {_TYPES[kind]}"
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"must be {words} {context[key]:.15g}"
    if kind == "literal_error":
        return f"must be {context['expected'].replace(chr(39), '')}"
    if kind in _COUNTS:
        key, words = _COUNTS[kind]
        count = context[key]
        return f"must have {words} {count} {'entry' if count == 1 else 'entries'}"
    return None
