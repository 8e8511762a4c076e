"""LangGraph: ``StateGraph`` over a ``TypedDict`` with async nodes, no checkpointer, updates streamed.

A step is a node function that returns its update. LangGraph reads the state for it, writes the update into its
channels, and ends the superstep; the stream of updates is read to its end, which is its counterpart of events.
``run`` is a run of a compiled graph that has run before; ``whole`` adds building it from Python calls and compiling it.
"""

# No `from __future__ import annotations`: the library reads the annotations of states and nodes when it runs.
import functools
import operator
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from sides.shapes import (
    LIMIT,
    REPLY,
    STEP_SECONDS,
    Lap,
    Laps,
    Stopwatch,
    contended_steps,
    expect,
    lane_steps,
    pause,
    runs_of,
    total,
)

PACKAGES = ("langgraph", "langchain-core")


class Line(TypedDict):
    """State of a chain: the last answer."""

    value: str


class Gathered(TypedDict):
    """State of a graph with parallel nodes: their answers, appended."""

    values: Annotated[list[str], operator.add]


class Item(TypedDict):
    """What an instance of a map gets."""

    item: str


async def line_node(_state: Line) -> dict[str, str]:
    """Answer at once."""
    return {"value": REPLY}


async def item_node(_state: Item) -> dict[str, list[str]]:
    """Answer at once, for one item."""
    return {"values": [REPLY]}


def node(seconds: float = 0.0) -> Callable[[Gathered], Coroutine[Any, Any, dict[str, list[str]]]]:
    """Return a node that answers after a while."""

    async def answer(_state: Gathered) -> dict[str, list[str]]:
        return {"values": [await pause(seconds)]}

    return answer


def build_chain(steps: int) -> Any:
    """Return the compiled chain."""
    graph = StateGraph(Line)
    for index in range(steps):
        graph.add_node(f"s{index}", line_node)
        graph.add_edge(f"s{index - 1}" if index else START, f"s{index}")
    graph.add_edge(f"s{steps - 1}", END)
    return graph.compile()


def build_fan(width: int, seconds: float) -> Any:
    """Return the compiled fan-out with every branch written down."""
    graph = StateGraph(Gathered)
    leaves = [f"b{index}" for index in range(width)]
    for name in ("first", *leaves, "last"):
        graph.add_node(name, node(seconds))
    graph.add_edge(START, "first")
    for leaf in leaves:
        graph.add_edge("first", leaf)
    graph.add_edge(leaves, "last")
    graph.add_edge("last", END)
    return graph.compile()


def build_map(width: int) -> Any:
    """Return the compiled fan-out over a list."""
    graph = StateGraph(Gathered)
    graph.add_node("first", node())
    graph.add_node("leaf", item_node)
    graph.add_node("last", node())
    graph.add_edge(START, "first")
    graph.add_conditional_edges("first", lambda _: [Send("leaf", {"item": str(at)}) for at in range(width)], ["leaf"])
    graph.add_edge("leaf", "last")
    graph.add_edge("last", END)
    return graph.compile()


def build_lanes(steps: list[tuple[str, str | None, float]]) -> Any:
    """Return compiled lanes: name, the step before, seconds."""
    graph = StateGraph(Gathered)
    for name, before, seconds in steps:
        graph.add_node(name, node(seconds))
        graph.add_edge(before or START, name)
    followed = {before for _, before, _ in steps}
    for name, _, _ in steps:
        if name not in followed:
            graph.add_edge(name, END)
    return graph.compile()


built_chain = functools.cache(build_chain)
built_fan = functools.cache(build_fan)
built_map = functools.cache(build_map)


async def timed(graph: Any, start: dict[str, Any], steps: int, *, runs: int = 1, **config: int) -> Lap:
    """Return how long one run took."""
    updates: list[Any] = []
    watch = Stopwatch()
    for _ in range(runs):
        async for update in graph.astream(start, {"recursion_limit": steps + 10, **config}, stream_mode="updates"):
            updates.append(update)  # noqa: PERF401  (the loop body is what a listener does)
    lap = watch.lap()
    expect("langgraph", len(updates), runs * steps)
    return Lap(lap.wall / runs, lap.cpu / runs)


async def chain(steps: int) -> Laps:
    """One node after the other."""
    watch = Stopwatch()
    build_chain(steps)
    built = watch.lap()
    lap = await timed(built_chain(steps), {"value": ""}, steps, runs=runs_of(steps))
    return {"run": lap, "whole": total([built, lap])}


async def fan(width: int, *, seconds: float = 0.0, mapped: bool = False) -> Laps:
    """One node, ``width`` nodes beside each other, one node; either all written down, or by ``Send``."""
    watch = Stopwatch()
    build_map(width) if mapped else build_fan(width, seconds)
    built = watch.lap()
    graph = built_map(width) if mapped else built_fan(width, seconds)
    lap = await timed(graph, {"values": []}, width + 2, runs=1 if seconds else runs_of(width + 2))
    return {"run": lap, "whole": total([built, lap])}


async def stagger() -> Laps:
    """Two lanes."""
    steps = lane_steps()
    watch = Stopwatch()
    graph = build_lanes(steps)
    built = watch.lap()
    lap = await timed(graph, {"values": []}, len(steps))
    return {"run": lap, "whole": total([built, lap])}


async def contended() -> Laps:
    """More ready nodes than places."""
    steps = [(name, before, STEP_SECONDS) for name, before in contended_steps()]
    return {"run": await timed(build_lanes(steps), {"values": []}, len(steps), max_concurrency=LIMIT)}


async def build(steps: int) -> Laps:
    """Build and compile a chain from Python calls: there is no file to read."""
    watch = Stopwatch()
    build_chain(steps)
    return {"whole": watch.lap()}


CASES = {"chain": chain, "fan": fan, "stagger": stagger, "contended": contended, "build": build}
