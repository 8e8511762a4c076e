"""Where the boxes and arrows of a diagram stand: a layered layout, in pixels, y downwards.

The method is Sugiyama's (Sugiyama, Tagawa, Toda, "Methods for visual understanding of hierarchical system structures",
1981): layers are given; an arrow over several layers gets a narrow lane in each of them, so that it crosses no box;
the order in a layer follows the mean position of the neighbours; then every box moves as near to its neighbours as
the order allows. What is inside a box is laid out first, and the box is made as large as that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeAlias

from synaptic.pipeline.drawing.labels import CELL, LabelledGap, cells, label_width, placed_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synaptic.pipeline.drawing.diagram import Chart, Edge, Node

LINE: Final = 16.0
PADDING: Final = 10.0
GAP_X: Final = 28.0
LANE: Final = 14.0
"""Width that an arrow gets in a layer that it passes."""
BACK_INSIDE: Final = 18.0
"""How far beside the steps of a loop its way back runs; :data:`GAP_X` is what there is to its border."""
BACK_BESIDE: Final = 10.0
"""The same beside the box of a step that repeats itself."""
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

    @property
    def way_back(self) -> tuple[Point, Point, float] | None:
        """Where the way back of a loop begins and ends, and the x on which it goes up; ``None`` where it is no loop."""
        if not self.node.again:
            return None
        right = self.x + self.width
        if self.inside is None or not self.inside.boxes:
            return (right, self.y + self.height * 0.7), (right, self.y + self.height * 0.3), right + BACK_BESIDE
        boxes = self.inside.boxes
        last = max(boxes, key=lambda box: (box.y, box.x))
        first = min(boxes, key=lambda box: (box.y, -box.x))
        low, high = (0.7, 0.3) if last is first else (0.5, 0.5)
        return (
            (last.x + last.width, last.y + last.height * low),
            (first.x + first.width, first.y + first.height * high),
            self.x + (self.width + self.inside.width) / 2 + BACK_INSIDE,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrowRoute:
    """An arrow: pairs of points, straight down inside each pair and curved between them.

    ``label_at`` is the middle of its label, which is on the arrow, in the gap above its target.
    """

    edge: Edge
    points: tuple[Point, ...]
    label_at: Point


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Boxes and arrows of one scope, and their labels."""

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
    gaps = [placed_labels(arrows) for arrows in _labelled(scope, len(rows), centres)]
    spans = [(centres[slot], _width(slot, sizes)) for row in rows for slot in row]
    spans += [(at, label_width(edge)) for gap in gaps for edge, (at, _) in gap.labels.items()]
    left = min((at - width / 2 for at, width in spans), default=0.0)
    right = max((at + width / 2 for at, width in spans), default=0.0)
    bands = _bands(rows, gaps, sizes, y)
    labels = {
        edge: (x + at - left, top - above)
        for (top, _), gap in zip(bands, gaps, strict=True)
        for edge, (at, above) in gap.labels.items()
    }
    boxes = {}
    for node in scope.nodes:
        width, height = sizes[node.path]
        place = x + centres[node.path] - left - width / 2, bands[scope.layers[node.path]][0]
        boxes[node.path] = _box(node, place, (width, height), inner.get(node.path))
    moved = {slot: x + at - left for slot, at in centres.items()}
    routes = [
        ArrowRoute(
            edge=edge,
            points=_points(edge, boxes, bands, scope.layers, moved),
            label_at=labels.get(edge, (0.0, 0.0)),
        )
        for edge in scope.edges
    ]
    bottom = sum(bands[-1]) if bands else y
    return Layout(boxes=tuple(boxes.values()), routes=tuple(routes), width=right - left, height=bottom - y)


def _bands(
    rows: Sequence[Sequence[Slot]], gaps: Sequence[LabelledGap], sizes: Mapping[str, tuple[float, float]], y: float
) -> list[tuple[float, float]]:
    """Return the top and the height of each layer; the first one begins at ``y``."""
    bands: list[tuple[float, float]] = []
    for row, gap in zip(rows, gaps, strict=True):
        top = sum(bands[-1]) + gap.height if bands else y
        bands.append((top, max((sizes[slot][1] for slot in row if isinstance(slot, str)), default=0.0)))
    return bands


def text_height(node: Node) -> float:
    """Return the height of a node's name and lines, with the space around them."""
    return LINE * len(node.label) + PADDING


def _size(node: Node, inner: Layout | None) -> tuple[float, float]:
    width = max(cells(line) for line in node.label) * CELL + 2 * PADDING
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
    routes = tuple(
        replace(
            route,
            points=tuple((a + x, b + y) for a, b in route.points),
            label_at=(route.label_at[0] + x, route.label_at[1] + y),
        )
        for route in layout.routes
    )
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


def _labelled(scope: Chart, layers: int, centres: Mapping[Slot, float]) -> list[list[tuple[Edge, float, float]]]:
    """Return for each layer the arrows with a label that end in it, each with its x above and below the gap over it."""
    found: list[list[tuple[Edge, float, float]]] = [[] for _ in range(layers)]
    for edge in scope.edges:
        if edge.label:
            layer = scope.layers[edge.target]
            direct = scope.layers[edge.source] == layer - 1
            above: Slot = edge.source if direct else (edge, layer - 1)
            found[layer].append((edge, centres[above], centres[edge.target]))
    return found


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
    labels: dict[str, float] = {}
    for edge in scope.edges:
        labels[edge.target] = max(labels.get(edge.target, 0.0), label_width(edge))

    def half(slot: Slot) -> float:
        return (max(widths[slot], labels.get(slot, 0.0)) if isinstance(slot, str) else LANE) / 2

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


def _points(
    edge: Edge,
    boxes: Mapping[str, Box],
    bands: Sequence[tuple[float, float]],
    layers: Mapping[str, int],
    centres: Mapping[Slot, float],
) -> tuple[Point, ...]:
    source, target = boxes[edge.source], boxes[edge.target]
    first, last = layers[edge.source], layers[edge.target]
    x = source.x + source.width / 2
    points = [(x, source.y + source.height), (x, bands[first][0] + bands[first][1])]
    for layer in range(first + 1, last):
        lane, (top, height) = centres[(edge, layer)], bands[layer]
        points += [(lane, top), (lane, top + height)]
    x = target.x + target.width / 2
    points += [(x, bands[last][0]), (x, target.y)]
    return tuple(points)
