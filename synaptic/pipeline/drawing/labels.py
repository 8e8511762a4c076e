"""Where the labels of arrows stand: each on its arrow, in the gap above the arrow's end, and none on another one."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.pipeline.drawing.diagram import Edge

CELL: Final = 7.3
"""Width of one character of the font, 12 pixels high; of a monospaced one, so that it holds for any text."""
GAP_Y: Final = 44.0
"""Between two layers, at least."""
LABEL_HEIGHT: Final = 14.0
_LABEL_CELL: Final = CELL * 10 / 12
_ROW: Final = LABEL_HEIGHT + 4
_ABOVE: Final = 12.0
_BELOW: Final = 12.0  # the head of the arrow
_APART: Final = 4.0


@dataclass(slots=True)
class LabelledGap:
    """The gap above a layer.

    Attributes:
        height: So that all labels have room.
        labels: For each arrow the x of the middle of its label, and how far that is above the layer.
    """

    height: float = GAP_Y
    labels: dict[Edge, tuple[float, float]] = field(default_factory=dict)


def cells(text: str) -> int:
    """Return the width of a text in cells; East Asian characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def label_width(edge: Edge) -> float:
    """Return the width of an arrow's label with the space around it; 0 where it has none."""
    return cells(edge.label) * _LABEL_CELL + 8 if edge.label else 0.0


def placed_labels(arrows: Sequence[tuple[Edge, float, float]]) -> LabelledGap:
    """Return the gap with its labels, in as few rows as they need.

    Args:
        arrows: Arrows with a label that end below the gap, with their x at its top and at its bottom.
    """
    count = 1
    while arrows:
        gap = _in_rows(sorted(arrows, key=lambda arrow: arrow[1:]), count)
        if gap is not None:
            return gap
        count += max(1, count // 2)
    return LabelledGap()


def _in_rows(arrows: Sequence[tuple[Edge, float, float]], count: int) -> LabelledGap | None:
    """Return the gap with so many rows of labels, ``None`` where they are too few."""
    gap = LabelledGap(max(GAP_Y, _ABOVE + count * _ROW + _BELOW))
    rows: list[list[tuple[float, float]]] = [[] for _ in range(count)]
    heights = [_BELOW + _ROW * (number + 0.5) for number in range(count)]
    shares = [_across(1 - height / gap.height) for height in heights]
    for edge, top, bottom in arrows:
        half = label_width(edge) / 2 + _APART / 2
        for row, height, share in zip(rows, heights, shares, strict=True):
            at = top + (bottom - top) * share
            if all(at + half <= left or right <= at - half for left, right in row):
                row.append((at - half, at + half))
                gap.labels[edge] = at, height
                break
        else:
            return None
    return gap


def _across(down: float) -> float:
    """Return how far a curved arrow has come to its side, where it has come that far down; both from 0 to 1."""
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        if 1.5 * middle * (1 - middle) + middle**3 < down:
            low = middle
        else:
            high = middle
    return 3 * low**2 - 2 * low**3
