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
    calls = _of_graph(compiled.graph)
    return max(1, calls if compiled.concurrency is None else min(calls, compiled.concurrency))


def _of_graph(graph: Graph) -> int:
    """Return the calls of the heaviest set of steps of which none waits for another."""
    calls = {name: 0 if step.on_demand else _of_step(step) for name, step in graph.steps.items()}
    return widest(calls, {name: step.needs for name, step in graph.steps.items()})


def _of_step(step: CompiledStep) -> int:
    if step.use is not None:
        each = width(step.use.pipeline)
    elif step.repeat is not None:
        each = _of_graph(step.repeat.body)
    else:
        each = 0 if step.tool is not None else 1
    if step.samples is not None:
        each *= step.samples.count
    if step.foreach is None:
        return each
    return each * (ITEMS if step.concurrency is None else min(ITEMS, step.concurrency))
