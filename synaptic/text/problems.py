"""Mistakes in something a person wrote: what pydantic's errors demand in plain words, and the nearest thing meant."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic_core import ErrorDetails

KeyPath: TypeAlias = tuple[str | int, ...]
"""The keys and list positions that lead to a value, from the outside in."""


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

    Two neighbouring letters in the wrong order (``jion``) are the nearest miss of all, also in a short word.
    """
    candidates = list(known)
    plain = word.casefold()
    for candidate in candidates:
        if _same_but_for_order(plain, candidate.casefold()):
            return candidate
    matches = difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)
    return matches[0] if matches else None


def _same_but_for_order(word: str, other: str) -> bool:
    """Return whether two words differ in nothing, or only in the order of two neighbouring letters."""
    if len(word) != len(other):
        return False
    wrong = [index for index, (one, two) in enumerate(zip(word, other, strict=True)) if one != two]
    if not wrong:
        return True
    first, second = wrong[0], wrong[-1]
    return len(wrong) == 2 and second == first + 1 and word[first] == other[second] and word[second] == other[first]


def did_you_mean(word: str, known: Iterable[str], *, listing: str | None = None) -> str:
    """Return a suggestion: the nearest known word, else the list of what is known.

    Args:
        word: What was written.
        known: What could have been meant.
        listing: Said in place of the list, where it is too long to be read.

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
        return f"must be {words} {context[key]:g}"
    if kind == "literal_error":
        return f"must be {context['expected'].replace(chr(39), '')}"
    if kind in _COUNTS:
        key, words = _COUNTS[kind]
        count = context[key]
        return f"must have {words} {count} {'entry' if count == 1 else 'entries'}"
    return None
