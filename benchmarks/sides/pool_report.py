"""What a row of benchmarks/pool.py found, as a table for people and as JSON."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

OURS = "ours"


class Row:
    """One row: figures by side.

    Attributes:
        compare: The figure of which each side's multiple of ours is given.
        met: Whether ours reached the goal; ``None`` where there is none, or ours was not measured.

    """

    def __init__(self, name: str, what: str, *, goal: str, compare: str) -> None:
        self.name = name
        self.what = what
        self.goal = goal
        self.compare = compare
        self.met: bool | None = None
        self.sides: dict[str, dict[str, Any]] = {}
        self.notes: list[str] = []

    def add(self, side: str, figures: dict[str, Any], results: Iterable[dict[str, Any]] = ()) -> None:
        """Add what one side gave; calls of ``results`` that were not answered are counted and said."""
        errors: Counter[str] = Counter()
        lost = 0
        for result in results:
            errors.update(result["errors"])
            lost += sum(not ok for *_, ok in result["calls"])
        self.sides[side] = {**figures, "errors": lost}
        self.notes += [f"{side}: {count} x {error}" for error, count in errors.most_common(2)]

    def judge(self, side: str, figure: str, *, at_least: float = -math.inf, at_most: float = math.inf) -> None:
        """Say whether a side's figure is within the goal, with no call lost."""
        if side in self.sides:
            found = self.sides[side]
            self.met = at_least <= found[figure] <= at_most and not found["errors"]

    def document(self) -> dict[str, Any]:
        """Return it as plain values."""
        ours = self.sides.get(OURS, {}).get(self.compare)
        ratios = {
            side: round(figures[self.compare] / ours, 3)
            for side, figures in self.sides.items()
            if ours and isinstance(figures.get(self.compare), int | float) and side != OURS
        }
        return {
            "what": self.what,
            "goal": self.goal,
            "met": self.met,
            "sides": self.sides,
            f"{self.compare}, as a multiple of ours": ratios,
            "notes": self.notes,
        }

    def table(self) -> str:
        """Return it as text of fixed width."""
        columns = list(dict.fromkeys(key for figures in self.sides.values() for key in figures))
        verdict = {True: "met", False: "MISSED", None: "not judged"}[self.met]
        width = max(map(len, self.sides), default=0)
        widths = [max(len(column), 8) for column in columns]
        lines = [f"\n{self.name}: {self.what}", f"  goal: {self.goal} -> {verdict}"]
        lines.append(
            "  " + " " * width + "".join(f"  {name:>{size}}" for name, size in zip(columns, widths, strict=True))
        )
        for side, figures in self.sides.items():
            cells = [shown(figures.get(column)) for column in columns]
            row = "".join(f"  {cell:>{size}}" for cell, size in zip(cells, widths, strict=True))
            lines.append(f"  {side:<{width}}{row}")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def shown(value: Any) -> str:
    """Return a cell of the table."""
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value that ``share`` percent of the values do not exceed (nearest rank); 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share / 100 * len(ordered)) - 1)] if ordered else 0.0


def median_of(values: Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(values)
