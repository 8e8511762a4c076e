"""A diagram for people at a terminal: the layers from top to bottom, what a step waits for behind its name."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from synaptic.pipeline.drawing.diagram import AGAIN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from synaptic.pipeline.drawing.diagram import Chart, Diagram, Node

_CRITICAL: Final = "●"
_OTHER: Final = "○"
_BACK: Final = "↺"
_NARROWEST: Final = 24
_JOINS: Final = {"any": "any of ", "first": "the first of "}
_LEGEND: Final = f"{_CRITICAL} on the longest chain, {_OTHER} beside it; ← waits for; ▼ then; steps side by side: ├"


def text(diagram: Diagram, width: int = 80) -> str:
    """Return the drawing; lines are at most ``width`` cells wide, where names are not longer than that."""
    width = max(width, _NARROWEST)
    head = [diagram.name, *textwrap.wrap(diagram.description, width), ""]
    return "\n".join([*head, *_scope(diagram.scope, width), "", *textwrap.wrap(_LEGEND, width), ""])


def _scope(scope: Chart, width: int) -> Iterator[str]:
    for index, row in enumerate(scope.rows()):
        if index:
            yield "▼"
        for place, node in enumerate(row):
            first, rest = _rails(place, len(row))
            lines = list(_node(node, scope, width - len(first)))
            yield (first + lines[0]).rstrip()
            yield from ((rest + line).rstrip() for line in lines[1:])


def _rails(place: int, count: int) -> tuple[str, str]:
    """Return what stands before the first line of a node and before its others."""
    if count == 1:
        return "", "│ "
    if place == count - 1:
        return "└ ", "  "
    return ("┬ " if place == 0 else "├ "), "│ "


def _node(node: Node, scope: Chart, width: int) -> Iterator[str]:
    mark = _CRITICAL if node.critical else _OTHER
    back = [f"{_BACK} {AGAIN}"] if node.again else []
    facts = [*node.lines, *(back if node.inside is None else ()), *_waits(node, scope)]
    head = f"{mark} {node.name}"
    room = max(width - 4, _NARROWEST)
    # All on one line where that fits; else the first fact, and the others below.
    whole = "  ".join((head, *facts))
    if len(whole) <= width:
        yield whole
    else:
        first = f"{head}  {facts[0]}" if facts else head
        fits = len(first) <= width
        yield first if fits else head
        for fact in facts[1:] if fits else facts:
            yield from ("  " + line for line in textwrap.wrap(fact, room, subsequent_indent="  "))
    if node.inside is not None:
        yield from ("  ┃ " + line for line in (*_scope(node.inside, width - 4), *back))


def _waits(node: Node, scope: Chart) -> Sequence[str]:
    """Return what a step waits for, each with what is written at its arrow."""
    names = {other.path: other.name for other in scope.nodes}
    needs, fallbacks, join = [], [], ""
    for edge in scope.edges:
        if edge.target != node.path:
            continue
        if edge.fallback:
            fallbacks.append(names[edge.source])
            continue
        parts = [part for part in edge.label.split(", ") if part]
        join = next((_JOINS[part] for part in parts if part in _JOINS), join)
        label = ", ".join(part for part in parts if part not in _JOINS)
        needs.append(f"{names[edge.source]} ({label})" if label else names[edge.source])
    waits = [f"← {join}{', '.join(needs)}"] if needs else []
    return [*waits, f"takes over if {' or '.join(fallbacks)} fails"] if fallbacks else waits
