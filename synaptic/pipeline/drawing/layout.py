"""Where the boxes and arrows of a diagram stand: a layered layout, in pixels, y downwards.

The method is Sugiyama's (Sugiyama, Tagawa, Toda, "Methods for visual understanding of hierarchical system structures",
1981): layers are given; an arrow over several layers gets a narrow lane in each of them, so that it crosses no box;
the order in a layer follows the mean position of the neighbours; then every box moves as near to its neighbours as
the order allows. What is inside a box is laid out first, and the box is made as large as that.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synaptic.pipeline.drawing.diagram import Chart, Edge, Node

CELL: Final = 7.3
"""Width of one character of the font, 12 pixels high; of a monospaced one, so that it holds for any text."""
LINE: Final = 16.0
PADDING: Final = 10.0
GAP_X: Final = 28.0
GAP_Y: Final = 44.0
LANE: Final = 14.0
"""Width that an arrow gets in a layer that it passes."""
STACK: Final = 5.0
"""How far the second sheet of a box that runs several times sticks out."""
_SWEEPS: Final = 8

Point: TypeAlias = tuple[float, float]
Slot: TypeAlias = "str | tuple[Edge, int]"
"""What has a place in a layer: a node by its path, or an arrow that passes the layer of that number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A node with its place; ``inside`` is in the same coordinates."""

    node: Node
    x: float
    y: float
    width: float
    height: float
    inside: Layout | None = None

    @property
    def head(self) -> float:
        """The height of the text at the top."""
        return text_height(self.node)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrowRoute:
    """An arrow: pairs of points, straight down inside each pair and curved between them."""

    edge: Edge
    points: tuple[Point, ...]

    @property
    def label_at(self) -> Point:
        """The middle of the gap above the target."""
        (x1, y1), (x2, y2) = self.points[-3], self.points[-2]
        return (x1 + x2) / 2, (y1 + y2) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Boxes and arrows of one scope."""

    boxes: tuple[Box, ...]
    routes: tuple[ArrowRoute, ...]
    width: float
    height: float


def lay_out(scope: Chart, x: float = 0.0, y: float = 0.0) -> Layout:
    """Return the layout of a scope whose upper left corner is at (x, y)."""
    inner = {node.path: lay_out(node.inside) for node in scope.nodes if node.inside is not None}
    sizes = {node.path: _size(node, inner.get(node.path)) for node in scope.nodes}
    rows = _ordered(_slots(scope), scope)
    centres = _centres(rows, scope, {path: width for path, (width, _) in sizes.items()})
    left = min((centres[slot] - _width(slot, sizes) / 2 for row in rows for slot in row), default=0.0)
    right = max((centres[slot] + _width(slot, sizes) / 2 for row in rows for slot in row), default=0.0)
    tops, heights, top = [], [], y
    for row in rows:
        height = max((sizes[slot][1] for slot in row if isinstance(slot, str)), default=0.0)
        tops.append(top)
        heights.append(height)
        top += height + GAP_Y
    boxes = {}
    for node in scope.nodes:
        width, height = sizes[node.path]
        at = x + centres[node.path] - left - width / 2
        place = at, tops[scope.layers[node.path]]
        boxes[node.path] = _box(node, place, (width, height), inner.get(node.path))
    bands = list(zip(tops, heights, strict=True))
    routes = [
        _route(edge, boxes, bands, scope.layers, {slot: x + at - left for slot, at in centres.items()})
        for edge in scope.edges
    ]
    return Layout(boxes=tuple(boxes.values()), routes=tuple(routes), width=right - left, height=top - GAP_Y - y)


def cells(text: str) -> int:
    """Return the width of a text in cells; East Asian characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def text_height(node: Node) -> float:
    """Return the height of a node's name and lines, with the space around them."""
    return LINE * (1 + len(node.lines)) + PADDING


def _size(node: Node, inner: Layout | None) -> tuple[float, float]:
    width = max(cells(line) for line in (node.name, *node.lines)) * CELL + 2 * PADDING
    # The ends of a hexagon, the bars of a tool and the second sheet take room beside the text.
    width += 2 * PADDING if node.picture.outline != "box" else 0
    height = text_height(node)
    if inner is not None:
        return max(width, inner.width + 2 * GAP_X), height + inner.height + 2 * PADDING
    return width + (STACK if node.many else 0), height + (STACK if node.many else 0)


def _box(node: Node, place: Point, size: tuple[float, float], inner: Layout | None) -> Box:
    (x, y), (width, height) = place, size
    inside = None
    if inner is not None:
        inside = _moved(inner, x + (width - inner.width) / 2, y + text_height(node) + PADDING)
    return Box(node=node, x=x, y=y, width=width, height=height, inside=inside)


def _moved(layout: Layout, x: float, y: float) -> Layout:
    """Return a layout whose upper left corner is at (0, 0) with that corner at (x, y)."""
    boxes = tuple(
        replace(box, x=box.x + x, y=box.y + y, inside=_moved(box.inside, x, y) if box.inside is not None else None)
        for box in layout.boxes
    )
    routes = tuple(replace(route, points=tuple((a + x, b + y) for a, b in route.points)) for route in layout.routes)
    return replace(layout, boxes=boxes, routes=routes)


def _slots(scope: Chart) -> list[list[Slot]]:
    """Return what stands in each layer, in the order of the file, arrows that pass it last."""
    rows: list[list[Slot]] = [[] for _ in range(max(scope.layers.values(), default=-1) + 1)]
    for node in scope.nodes:
        rows[scope.layers[node.path]].append(node.path)
    for edge in scope.edges:
        for layer in range(scope.layers[edge.source] + 1, scope.layers[edge.target]):
            rows[layer].append((edge, layer))
    return rows


def _links(scope: Chart) -> dict[Slot, list[Slot]]:
    """Return for each slot the slots in the layers next to it that an arrow joins it with."""
    links: dict[Slot, list[Slot]] = {}
    for edge in scope.edges:
        passed: list[Slot] = [
            (edge, layer) for layer in range(scope.layers[edge.source] + 1, scope.layers[edge.target])
        ]
        for above, below in pairwise([edge.source, *passed, edge.target]):
            links.setdefault(above, []).append(below)
            links.setdefault(below, []).append(above)
    return links


def _ordered(rows: list[list[Slot]], scope: Chart) -> list[list[Slot]]:
    """Sort each layer by the mean position of its neighbours in the layer before, downwards and upwards in turn."""
    links = _links(scope)
    layer_of = {slot: number for number, row in enumerate(rows) for slot in row}
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        numbers = range(1, len(rows)) if down else range(len(rows) - 2, -1, -1)
        for number in numbers:
            fixed = number - 1 if down else number + 1
            position = {slot: float(index) for index, slot in enumerate(rows[fixed])}
            means = {}
            for index, slot in enumerate(rows[number]):
                near = [position[other] for other in links.get(slot, ()) if layer_of[other] == fixed]
                means[slot] = sum(near) / len(near) if near else float(index)
            rows[number].sort(key=means.__getitem__)
    return rows


def _width(slot: Slot, sizes: Mapping[str, tuple[float, float]]) -> float:
    return sizes[slot][0] if isinstance(slot, str) else LANE


def _centres(rows: Sequence[Sequence[Slot]], scope: Chart, widths: Mapping[str, float]) -> dict[Slot, float]:
    """Return the x of the middle of each slot: near its neighbours, in the order of its layer, without overlap."""
    links = _links(scope)

    def half(slot: Slot) -> float:
        return (widths[slot] if isinstance(slot, str) else LANE) / 2

    centres: dict[Slot, float] = {}
    for row in rows:
        offset = 0.0
        for slot in row:
            centres[slot] = offset + half(slot)
            offset += 2 * half(slot) + GAP_X
        for slot in row:
            centres[slot] -= (offset - GAP_X) / 2
    for sweep in range(_SWEEPS):
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            wanted = []
            for slot in row:
                near = [centres[other] for other in links.get(slot, ())]
                wanted.append(sum(near) / len(near) if near else centres[slot])
            spaces = [half(first) + half(second) + GAP_X for first, second in pairwise(row)]
            centres.update(zip(row, spread(wanted, spaces), strict=True))
    return centres


def spread(wanted: Sequence[float], spaces: Sequence[float]) -> list[float]:
    """Return the positions nearest to ``wanted`` (least squares), each at least ``spaces[i]`` after the one before.

    Pool adjacent violators: subtract the spaces, make the rest ascend by averaging, add the spaces again.
    """
    offsets = [0.0]
    for space in spaces:
        offsets.append(offsets[-1] + space)
    pools: list[tuple[float, int]] = []  # sum and number of the values that share a mean
    for value, offset in zip(wanted, offsets, strict=False):
        total, count = value - offset, 1
        while pools and pools[-1][0] / pools[-1][1] > total / count:
            before, members = pools.pop()
            total, count = total + before, count + members
        pools.append((total, count))
    means = [total / count for total, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=False)]


def _route(
    edge: Edge,
    boxes: Mapping[str, Box],
    bands: Sequence[tuple[float, float]],
    layers: Mapping[str, int],
    centres: Mapping[Slot, float],
) -> ArrowRoute:
    source, target = boxes[edge.source], boxes[edge.target]
    first, last = layers[edge.source], layers[edge.target]
    x = source.x + source.width / 2
    points = [(x, source.y + source.height), (x, bands[first][0] + bands[first][1])]
    for layer in range(first + 1, last):
        lane, (top, height) = centres[(edge, layer)], bands[layer]
        points += [(lane, top), (lane, top + height)]
    x = target.x + target.width / 2
    points += [(x, bands[last][0]), (x, target.y)]
    return ArrowRoute(edge=edge, points=tuple(points))
