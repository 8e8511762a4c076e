"""pydantic-graph: ``GraphBuilder`` with async steps, joins that append to a list, iterated over its tasks.

A step is a function of its context that returns its output, which is the next one's input. The iteration yields the
tasks that follow after each step: its counterpart of events. ``run`` is a run of a built graph that has
run before; ``whole`` adds building it from Python calls.
"""

# No `from __future__ import annotations`: the library reads the annotations of steps when it builds a graph.
import functools
from collections.abc import Callable, Coroutine
from typing import Any

from pydantic_graph import EndMarker, GraphBuilder, StepContext, reduce_list_append

from sides.shapes import REPLY, Lap, Laps, Stopwatch, expect, lane_steps, pause, runs_of, total

PACKAGES = ("pydantic-graph",)


def step(ran: list[str], seconds: float = 0.0) -> Callable[[StepContext[None, None, str]], Coroutine[Any, Any, str]]:
    """Return a step that answers after a while, and notes that it ran."""

    async def answer(_context: StepContext[None, None, str]) -> str:
        reply = await pause(seconds)
        ran.append(reply)
        return reply

    return answer


class Built:
    """A graph, and the notes of its steps."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.builder = GraphBuilder(name="benchmark", input_type=str, output_type=Any)
        self.graph: Any = None

    def step(self, name: str, seconds: float = 0.0) -> Any:
        """Return a new step."""
        return self.builder.step(step(self.ran, seconds), node_id=name)

    def join(self) -> Any:
        """Return a new join that gathers a list."""
        return self.builder.join(reduce_list_append, initial_factory=list[str], node_id="join")

    def done(self) -> "Built":
        """Build the graph."""
        self.graph = self.builder.build()
        return self


def build_chain(steps: int) -> Built:
    """Return the chain."""
    built = Built()
    line = [built.step(f"s{index}") for index in range(steps)]
    for before, after in zip([built.builder.start_node, *line], [*line, built.builder.end_node], strict=True):
        built.builder.add_edge(before, after)
    return built.done()


def build_fan(width: int, seconds: float) -> Built:
    """Return the fan-out with every branch written down."""
    built = Built()
    g = built.builder
    leaves = [built.step(f"b{index}", seconds) for index in range(width)]
    first, gathered, last = built.step("first", seconds), built.join(), built.step("last", seconds)
    g.add(
        g.edge_from(g.start_node).to(first),
        g.edge_from(first).to(*leaves),
        g.edge_from(*leaves).to(gathered),
        g.edge_from(gathered).to(last),
        g.edge_from(last).to(g.end_node),
    )
    return built.done()


def build_map(width: int) -> Built:
    """Return the fan-out over a list."""
    built = Built()
    g = built.builder

    @g.step(node_id="first")
    async def first(_context: StepContext[None, None, str]) -> list[str]:
        built.ran.append(REPLY)
        return [str(index) for index in range(width)]

    leaf, gathered, last = built.step("leaf"), built.join(), built.step("last")
    g.add(
        g.edge_from(g.start_node).to(first),
        g.edge_from(first).map().to(leaf),
        g.edge_from(leaf).to(gathered),
        g.edge_from(gathered).to(last),
        g.edge_from(last).to(g.end_node),
    )
    return built.done()


def build_lanes() -> Built:
    """Return the two lanes of the stagger; the end is their join."""
    built = Built()
    g = built.builder
    steps = {name: built.step(name, seconds) for name, _, seconds in lane_steps()}
    followed = {before for _, before, _ in lane_steps()}
    gathered = built.join()
    g.add(g.edge_from(g.start_node).to(*[steps[name] for name, before, _ in lane_steps() if before is None]))
    for name, before, _ in lane_steps():
        if before is not None:
            g.add_edge(steps[before], steps[name])
        if name not in followed:
            g.add_edge(steps[name], gathered)
    g.add_edge(gathered, g.end_node)
    return built.done()


built_chain = functools.cache(build_chain)
built_fan = functools.cache(build_fan)
built_map = functools.cache(build_map)


async def timed(built: Built, steps: int, *, runs: int = 1) -> Lap:
    """Return how long one run took."""
    built.ran.clear()
    seen: list[Any] = []
    watch = Stopwatch()
    for _ in range(runs):
        async with built.graph.iter(inputs="") as run:
            async for tasks in run:
                seen.append(tasks)  # noqa: PERF401  (the loop body is what a listener does)
    lap = watch.lap()
    if not isinstance(seen[-1], EndMarker):
        raise TypeError(f"pydantic-graph: the run ended with {seen[-1]!r}")
    expect("pydantic-graph", len(built.ran), runs * steps)
    return Lap(lap.wall / runs, lap.cpu / runs)


async def chain(steps: int) -> Laps:
    """One step after the other."""
    watch = Stopwatch()
    build_chain(steps)
    built = watch.lap()
    lap = await timed(built_chain(steps), steps, runs=runs_of(steps))
    return {"run": lap, "whole": total([built, lap])}


async def fan(width: int, *, seconds: float = 0.0, mapped: bool = False) -> Laps:
    """One step, ``width`` steps beside each other, one step; either all written down, or by ``map``."""
    watch = Stopwatch()
    build_map(width) if mapped else build_fan(width, seconds)
    built = watch.lap()
    made = built_map(width) if mapped else built_fan(width, seconds)
    lap = await timed(made, width + 2, runs=1 if seconds else runs_of(width + 2))
    return {"run": lap, "whole": total([built, lap])}


async def stagger() -> Laps:
    """Two lanes."""
    watch = Stopwatch()
    made = build_lanes()
    built = watch.lap()
    lap = await timed(made, len(lane_steps()))
    return {"run": lap, "whole": total([built, lap])}


async def build(steps: int) -> Laps:
    """Build a chain from Python calls: there is no file to read."""
    watch = Stopwatch()
    build_chain(steps)
    return {"whole": watch.lap()}


CASES = {"chain": chain, "fan": fan, "stagger": stagger, "build": build}
