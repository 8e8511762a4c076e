"""A compiled pipeline as a diagram: boxes, what is inside them, and arrows. How it is written down is left to others.

The formats stand in ``text``, ``markup`` and ``svg``, and know nothing of pipelines.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from synaptic.pipeline.graph_theory import implied, layers, leads_to
from synaptic.pipeline.kinds import KINDS, Picture
from synaptic.pipeline.plan import default_inputs
from synaptic.pipeline.plan_rows import run_count
from synaptic.text import one_line

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from synaptic.pipeline.graph import CompiledPipeline, CompiledStep, Graph

PICTURES: Final = {name: kind.picture for name, kind in KINDS.items()} | {
    "result": Picture(fill="#f0f0f0", outline="round", mermaid=("([", "])"), dot="oval")
}
"""How a node of each shape is drawn: a step, by its kind, or the result."""

RESULT: Final = "(result)"
"""The path of the node that stands for the pipeline's result; no step can be called that."""

INK: Final = "#1f2933"
LINE_COLOUR: Final = "#7b8794"
"""Of borders and arrows; reads on white and on black."""
CRITICAL: Final = "#c2570c"
"""The same of the longest chain."""

AGAIN: Final = "next round"
"""What is written at a loop's way back."""

_MOST_CONDITION: Final = 400
_LINE: Final = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A box.

    Attributes:
        path: Unique in the diagram: ``refine.judge``.
        lines: What stands below the name.
        many: Whether it runs several times at once (a map, samples).
        optional: Whether it may not run at all.
        shape: The kind of the step, or ``result``.
        again: Whether it does the same once more, for its next round: a loop.
        inside: What a loop or a sub-pipeline consists of.
    """

    path: str
    name: str
    shape: str
    lines: tuple[str, ...] = ()
    critical: bool = False
    many: bool = False
    optional: bool = False
    again: bool = False
    inside: Chart | None = None

    @property
    def picture(self) -> Picture:
        """How the box is drawn."""
        return PICTURES[self.shape]

    @property
    def label(self) -> tuple[str, ...]:
        """The name and the lines as they stand in a box that no longer line makes wider."""
        return (self.name, *(part for line in self.lines for part in (_wrapped(line) or [""])))

    @property
    def way_back(self) -> tuple[str, str] | None:
        """The paths of the box after which a round of the loop ends and of the one with which the next begins."""
        if not self.again:
            return None
        if self.inside is None or not self.inside.nodes:
            return self.path, self.path
        return self.inside.nodes[-1].path, self.inside.nodes[0].path


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """An arrow between two boxes of the same scope; ``fallback`` leads to the step that takes over after a failure."""

    source: str
    target: str
    label: str = ""
    critical: bool = False
    fallback: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """Boxes with arrows among them.

    Attributes:
        nodes: In the order of their layers; in one layer, in the order of the file.
        layers: Path -> layer; every arrow leads to a later one.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    layers: Mapping[str, int]

    def rows(self) -> list[list[Node]]:
        """Return the nodes layer by layer."""
        found: dict[int, list[Node]] = {}
        for node in self.nodes:
            found.setdefault(self.layers[node.path], []).append(node)
        return [found[layer] for layer in sorted(found)]


@dataclass(frozen=True, slots=True)
class Diagram:
    """The whole drawing."""

    name: str
    description: str
    scope: Chart


def diagram(compiled: CompiledPipeline) -> Diagram:
    """Return the diagram of a pipeline: its steps, and a last node for its result."""
    steps = _scope(compiled.graph, "", default_inputs(compiled), critical=True)
    needed = [node.path for node in steps.nodes if node.path in compiled.needed]
    last = compiled.graph.critical_path()[-1:]
    edges = [Edge(source=path, target=RESULT, critical=path in last) for path in needed]
    result = Node(path=RESULT, name="result", shape="result", critical=any(edge.critical for edge in edges))
    bottom = max(steps.layers.values(), default=-1) + 1
    spec = compiled.pipeline.spec
    scope = Chart((*steps.nodes, result), (*steps.edges, *edges), {**steps.layers, RESULT: bottom})
    return Diagram(spec.name, " ".join(spec.description.split()), scope)


def _scope(graph: Graph, prefix: str, inputs: Mapping[str, Any], *, critical: bool) -> Chart:
    path = graph.critical_path() if critical else ()
    chain = set(pairwise(path))
    arrows = _without_implied(list(_edges(graph, prefix, chain)), graph, prefix)
    levels = layered([prefix + name for name in graph.steps], arrows)
    # A fallback that has run before stands above the step that it replaces: that box says so, no arrow leads up.
    drawn = tuple(edge for edge in arrows if levels[edge.source] < levels[edge.target])
    above = {edge.source for edge in arrows} - {edge.source for edge in drawn if edge.fallback}
    nodes = [
        _node(step, prefix, inputs, critical=step.id in path, above=prefix + step.id in above)
        for step in graph.steps.values()
    ]
    return Chart(tuple(sorted(nodes, key=lambda node: levels[node.path])), drawn, levels)


def _without_implied(arrows: Sequence[Edge], graph: Graph, prefix: str) -> list[Edge]:
    """Leave out the arrows that a longer way says already; one with a label says more than that, and stays."""
    firm = {prefix + step.id for step in graph.steps.values() if step.join == "all" and not step.gates}
    known = implied([(arrow.source, arrow.target) for arrow in arrows if not arrow.fallback], firm)
    return [arrow for arrow in arrows if arrow.label or arrow.fallback or (arrow.source, arrow.target) not in known]


def _edges(graph: Graph, prefix: str, chain: set[tuple[str, str]]) -> Iterator[Edge]:
    for step in graph.steps.values():
        for need in dict.fromkeys((*step.needs, *step.gates)):
            labels = [" or ".join(step.gates[need])] if need in step.gates else []
            labels += ["items as they come"] if step.feed is not None and step.feed.step == need else []
            labels += [step.join] if step.join != "all" else []
            yield Edge(
                source=prefix + need,
                target=prefix + step.id,
                label=", ".join(labels),
                critical=(need, step.id) in chain,
            )
        if step.fallback is not None:
            yield Edge(source=prefix + step.id, target=prefix + step.fallback, label="on error", fallback=True)


def _node(step: CompiledStep, prefix: str, inputs: Mapping[str, Any], *, critical: bool, above: bool) -> Node:
    path = prefix + step.id
    inside, within = None, step.work.inside
    if within is not None and within.listed:
        known = inputs if within.inputs is None else within.inputs
        inside = _scope(within.graph, f"{path}.", known, critical=critical)
    worker = step.worker
    return Node(
        path=path,
        name=step.id,
        shape=worker.kind,
        lines=(*_lines(step, worker, inputs), *([f"or, on error, {step.fallback}"] if step.fallback and above else [])),
        critical=critical,
        again=bool(step.work.rounds),
        many=step.foreach is not None or (step.samples or worker.samples) is not None,
        optional=step.when is not None or bool(step.gates) or step.on_demand,
        inside=inside,
    )


def _lines(step: CompiledStep, worker: CompiledStep, inputs: Mapping[str, Any]) -> Iterator[str]:
    times = run_count(step, inputs)
    what = f"{PICTURES[worker.kind].label}{worker.work.name}".strip()
    yield " ".join(part for part in (what, times if times != "1" else "") if part)
    yield from step.work.rounds
    condition = step.when or step.item_when
    if condition is not None:
        yield f"when {one_line(condition.source, _MOST_CONDITION)}"
    approve = step.approve or worker.approve
    if approve:
        yield f"a person confirms {'prompt and output' if approve == 'both' else f'the {approve}'}"
    if step.on_error == "skip":
        yield "left out on error"


def _wrapped(line: str) -> list[str]:
    """Return a line as lines of about the same length, as few as there have to be."""
    wrapped = textwrap.wrap(line, _LINE, break_on_hyphens=False)
    least = -(-len(line) // max(len(wrapped), 1))
    widths = range(least, _LINE) if len(wrapped) > 1 else ()
    narrower = (textwrap.wrap(line, width, break_on_hyphens=False) for width in widths)
    return next((lines for lines in narrower if len(lines) == len(wrapped)), wrapped)


def layered(paths: Iterable[str], edges: Collection[Edge]) -> dict[str, int]:
    """Return path -> layer, so that every arrow leads downwards; a fallback that would close a circle is passed over.

    Dependencies must be free of circles.
    """
    names = list(paths)
    needs = [(edge.source, edge.target) for edge in edges if not edge.fallback]
    for edge in edges:
        if edge.fallback and not leads_to(edge.target, edge.source, needs):
            needs.append((edge.source, edge.target))
    return layers(names, needs)
