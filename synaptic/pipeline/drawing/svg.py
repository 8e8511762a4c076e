"""A diagram as SVG: one file, no scripts, no fonts of its own; boxes have their own ground, so any page will do."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape, quoteattr

from synaptic.pipeline.drawing.diagram import AGAIN, CRITICAL, INK, LINE_COLOUR
from synaptic.pipeline.drawing.labels import LABEL_HEIGHT, label_width
from synaptic.pipeline.drawing.layout import LINE, PADDING, STACK, ArrowRoute, Box, Layout, Point, lay_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synaptic.pipeline.drawing.diagram import Diagram, Node

_MARGIN: Final = 16.0
_HEXAGON: Final = 10.0
_CORNER: Final = 5.0
_FONT: Final = 'font-family="ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace" font-size="12"'


def svg(diagram: Diagram) -> str:
    """Return the drawing as the text of an SVG file. Names and descriptions can hold anything."""
    layout = lay_out(diagram.scope, _MARGIN, _MARGIN)
    width, height = layout.width + 2 * _MARGIN, layout.height + 2 * _MARGIN
    size = f'viewBox="0 0 {_n(width)} {_n(height)}" width="{_n(width)}" height="{_n(height)}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size} {_FONT}>',
        f"<title>{_text(diagram.name)}</title>",
        f"<desc>{_text(diagram.description)}</desc>",
        "<defs>",
        *(_head(name, colour) for name, colour in (("arrow", LINE_COLOUR), ("critical-arrow", CRITICAL))),
        "</defs>",
        *_layout(layout),
        "</svg>",
    ]
    return "\n".join([*lines, ""])


def _layout(layout: Layout) -> Iterator[str]:
    for box in layout.boxes:
        yield from _box(box)
    for route in layout.routes:
        yield _arrow(route)
    for route in layout.routes:
        if route.edge.label:
            yield _label(route)


def _box(box: Box) -> Iterator[str]:
    node = box.node
    yield f"<g class={_attribute(f'step {node.shape}')} data-step={_attribute(node.path)}>"
    yield f"<title>{_text(': '.join((node.path, *node.lines[:1])))}</title>"
    if node.many and node.inside is None:
        yield _rectangle(box, "sheet", STACK)
    yield from _outline(box)
    x = box.x + (box.width - _sheet(box)) / 2
    for index, line in enumerate(node.label):
        weight = ' font-weight="bold"' if index == 0 else ' fill-opacity="0.75"'
        y = box.y + PADDING / 2 + LINE * (index + 0.75)
        yield f'<text x="{_n(x)}" y="{_n(y)}" text-anchor="middle" fill="{INK}"{weight}>{_text(line)}</text>'
    if box.inside is not None:
        yield from _layout(box.inside)
    if box.way_back is not None:
        yield _way_back(box, *box.way_back)
    yield "</g>"


def _sheet(box: Box) -> float:
    """Return by how much the front sheet of a box is smaller than the box."""
    return STACK if box.node.many and box.inside is None else 0.0


def _outline(box: Box) -> Iterator[str]:
    node = box.node
    width, height = box.width - _sheet(box), box.height - _sheet(box)
    if node.picture.outline == "hexagon":
        left, right, top, bottom, middle = box.x, box.x + width, box.y, box.y + height, box.y + height / 2
        corners = (
            (left, middle),
            (left + _HEXAGON, top),
            (right - _HEXAGON, top),
            (right, middle),
            (right - _HEXAGON, bottom),
            (left + _HEXAGON, bottom),
        )
        points = " ".join(f"{_n(x)},{_n(y)}" for x, y in corners)
        yield f'<polygon class="frame" points="{points}" {_look(node)}/>'
        return
    yield _rectangle(box, "frame", 0.0)
    if node.picture.outline == "barred":
        for x in (box.x + _HEXAGON / 2, box.x + width - _HEXAGON / 2):
            yield f'<path d="M{_n(x)} {_n(box.y)}V{_n(box.y + height)}" stroke="{LINE_COLOUR}"/>'


def _rectangle(box: Box, name: str, shift: float) -> str:
    node, width, height = box.node, box.width - _sheet(box), box.height - _sheet(box)
    radius = height / 2 if node.picture.outline == "round" else node.picture.radius
    place = (
        f'x="{_n(box.x + shift)}" y="{_n(box.y + shift)}" width="{_n(width)}" height="{_n(height)}" rx="{_n(radius)}"'
    )
    return f'<rect class="{name}" {place} {_look(node)}/>'


def _look(node: Node) -> str:
    stroke, thick = (CRITICAL, 2) if node.critical else (LINE_COLOUR, 1)
    dashes = ' stroke-dasharray="5 3"' if node.optional else ""
    return f'fill="{node.picture.fill}" stroke="{stroke}" stroke-width="{thick}"{dashes}'


def _arrow(route: ArrowRoute) -> str:
    edge = route.edge
    colour, head, thick = (CRITICAL, "critical-arrow", 2) if edge.critical else (LINE_COLOUR, "arrow", 1.3)
    dashes = ' stroke-dasharray="5 4"' if edge.fallback else ""
    ends = f"data-from={_attribute(edge.source)} data-to={_attribute(edge.target)}"
    return (
        f'<path class="arrow" {ends} d="{_path(route.points)}" fill="none" stroke="{colour}" '
        f'stroke-width="{thick}"{dashes} marker-end="url(#{head})"/>'
    )


def _way_back(box: Box, begin: Point, end: Point, lane: float) -> str:
    (x1, y1), (x2, y2) = begin, end
    path = (
        f"M{_n(x1)} {_n(y1)}H{_n(lane - _CORNER)}q{_CORNER} 0 {_CORNER} -{_CORNER}"
        f"V{_n(y2 + _CORNER)}q0 -{_CORNER} -{_CORNER} -{_CORNER}H{_n(x2)}"
    )
    return (
        f'<path class="again" data-loop={_attribute(box.node.path)} d="{path}" fill="none" stroke="{LINE_COLOUR}" '
        f'stroke-width="1.3" stroke-dasharray="2 3" marker-end="url(#arrow)"><title>{AGAIN}</title></path>'
    )


def _path(points: tuple[Point, ...]) -> str:
    parts = [f"M{_n(points[0][0])} {_n(points[0][1])}"]
    for index, ((x1, y1), (x2, y2)) in enumerate(pairwise(points)):
        if (x1, y1) == (x2, y2):
            continue  # an arrow that ends in a step of no length has no direction
        middle = (y1 + y2) / 2
        curve = f"C{_n(x1)} {_n(middle)} {_n(x2)} {_n(middle)} {_n(x2)} {_n(y2)}"
        # Even steps go down beside boxes, odd ones cross the gap between two layers.
        parts.append(curve if index % 2 else f"L{_n(x2)} {_n(y2)}")
    return "".join(parts)


def _label(route: ArrowRoute) -> str:
    x, y = route.label_at
    width = label_width(route.edge)
    ground = (
        f'<rect class="label" x="{_n(x - width / 2)}" y="{_n(y - LABEL_HEIGHT / 2)}" width="{_n(width)}" '
        f'height="{_n(LABEL_HEIGHT)}" rx="3" fill="#ffffff" stroke="{LINE_COLOUR}" stroke-width="0.5"/>'
    )
    text = f'<text x="{_n(x)}" y="{_n(y + 3.5)}" text-anchor="middle" font-size="10" fill="{INK}">'
    return f"{ground}{text}{_text(route.edge.label)}</text>"


def _head(name: str, colour: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerUnits="userSpaceOnUse" markerWidth="9" '
        f'markerHeight="9" orient="auto"><path d="M0 0.5L8 4L0 7.5Z" fill="{colour}"/></marker>'
    )


def _n(value: float) -> str:
    """Return a number with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")


def _clean(text: str) -> str:
    """Return the text without what XML does not allow: control characters, lone surrogates."""
    return "".join(character for character in text if character.isprintable())


def _text(text: str) -> str:
    return escape(_clean(text))


def _attribute(text: str) -> str:
    return quoteattr(_clean(text))
