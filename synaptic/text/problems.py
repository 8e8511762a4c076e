"""One located mistake in something a person wrote, and the nearest thing they may have meant."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake: where it is, what is wrong, what to write instead.

    Attributes:
        message: What is wrong, one line, without a full stop.
        source: The file's path, or a name such as ``--set`` or ``SYNAPTIC_MODEL``.
        line: One-based; ``None`` where there is no line.
        column: One-based; ``None`` where there is no column.
        suggestion: What to write instead, as a clause (``did you mean 'model'?``).

    """

    message: str
    source: str | None = None
    line: int | None = None
    column: int | None = None
    suggestion: str | None = None

    @property
    def location(self) -> str:
        """``file:line:column`` as far as it is known."""
        return ":".join(str(part) for part in (self.source, self.line, self.column) if part is not None)

    def __str__(self) -> str:
        where = f"{self.location}: " if self.location else ""
        what = f"; {self.suggestion}" if self.suggestion else ""
        return f"{where}{self.message}{what}"


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
