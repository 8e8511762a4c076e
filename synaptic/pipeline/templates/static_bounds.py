"""Comparisons that declared bounds decide: a threshold of 8 for a score from 0 to 1. Pure rules over numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from synaptic.pipeline.templates.static_access import Complaint

_NO_LEAST, _NO_MOST = float("-inf"), float("inf")
_SWAPPED: Final = {"gt": "lt", "gteq": "lteq"}


@dataclass(frozen=True, slots=True)
class Bounded:
    """One side of a comparison.

    Attributes:
        shown: How the template writes it, where that is a dotted chain.
        least: ``None`` where no bound is declared; the same of ``most``.
        constant: Whether it is a number that is written out.
    """

    shown: str | None
    least: float | None
    most: float | None
    constant: bool = False

    @property
    def low(self) -> float:
        """The least value that it may have."""
        return _NO_LEAST if self.least is None else self.least

    @property
    def high(self) -> float:
        """The greatest value that it may have."""
        return _NO_MOST if self.most is None else self.most

    @property
    def range(self) -> str:
        """The bounds in words."""
        if self.least is None or self.most is None:
            return f"at least {self.least:.15g}" if self.least is not None else f"at most {self.most:.15g}"
        return f"from {self.least:.15g} to {self.most:.15g}"


def decided(operator: str, left: Bounded | None, right: Bounded | None) -> Complaint | None:
    """Return why a comparison (``eq ne lt lteq gt gteq``) always has the same outcome, or ``None``.

    What cannot be meant is a mistake; a condition that is always true without a threshold outside the bounds (at
    least 0, of what is never less) is worth a warning.
    """
    if left is None or right is None or (left.constant and right.constant):
        return None
    outcome = _outcome(operator, left, right)
    if outcome is None:
        return None
    subject, threshold = (right, left) if left.constant else (left, right)
    outside = left.high < right.low or right.high < left.low
    name, other = (repr(side.shown) if side.shown else "the value" for side in (subject, threshold))
    known = f"{name} is a number {subject.range}"
    if not threshold.constant:
        known += f", and {other} {threshold.range}"
    message = f"{known}, so that this is always {str(outcome).lower()}"
    return Complaint(message, _advice(subject, threshold), warning=outcome and not outside)


def _outcome(operator: str, left: Bounded, right: Bounded) -> bool | None:
    if operator in _SWAPPED:
        return _outcome(_SWAPPED[operator], right, left)
    if operator in {"eq", "ne"}:
        return operator == "ne" if left.high < right.low or right.high < left.low else None
    if operator == "lt":
        return True if left.high < right.low else False if left.low >= right.high else None
    return True if left.high <= right.low else False if left.low > right.high else None


def _advice(subject: Bounded, threshold: Bounded) -> str:
    value = threshold.low
    if threshold.constant and (subject.least, subject.most) == (0, 1) and 1 < value <= 100:
        return f"did you mean {value / (10 if value <= 10 else 100):g}?"
    if subject.least is None or subject.most is None:
        return f"compare it with a number that is {subject.range}"
    return f"compare it with a number {subject.range}"
