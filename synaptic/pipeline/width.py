"""How many calls of a pipeline may run at once: an estimate, before anything has run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synaptic.pipeline.graph_theory import widest

if TYPE_CHECKING:
    from synaptic.pipeline.graph import CompiledPipeline, CompiledStep, Graph

ITEMS: Final = 4
"""How long the list of a map is taken to be, which is known only once it is written."""


def width(compiled: CompiledPipeline) -> int:
    """Return about how many calls of a pipeline run at once where it is widest; at least 1."""
    return max(1, _bounded(_of_graph(compiled.graph), compiled.concurrency))


def _bounded(calls: int, bound: int | None) -> int:
    return calls if bound is None else min(calls, bound)


def _of_graph(graph: Graph) -> int:
    """Return the calls of the heaviest set of steps of which none waits for another."""
    calls = {name: 0 if step.on_demand else _of_step(step) for name, step in graph.steps.items()}
    return widest(calls, {name: step.needs for name, step in graph.steps.items()})


def _of_step(step: CompiledStep) -> int:
    inside = step.work.inside
    if inside is not None:
        each = _bounded(_of_graph(inside.graph), inside.concurrency)
    else:
        each = 0 if step.call is None else 1
    if step.samples is not None:
        each *= step.samples.count
    if step.foreach is None:
        return each
    return each * (ITEMS if step.concurrency is None else min(ITEMS, step.concurrency))
