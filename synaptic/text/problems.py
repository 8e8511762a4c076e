"""One located mistake in something a person wrote, and the nearest thing they may have meant."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

KeyPath: TypeAlias = tuple[str | int, ...]
"""The keys and list positions that lead to a value, from the outside in."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that ``word`` most looks like, or ``None`` where nothing is close."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a suggestion: the nearest known word, else the list of what is known."""
    candidates = sorted(known)
    match = nearest(word, candidates)
    if match is not None:
        return f"did you mean {match!r}?"
    return f"known: {', '.join(candidates)}" if candidates else "there are no others"
