"""What the pool costs and how well it places calls: the rows of benchmarks/pool.py in which nothing fails."""

from __future__ import annotations

import asyncio
import heapq
import random
import statistics
from typing import TYPE_CHECKING, Any

from sides.pool_processes import described, nodes
from sides.pool_report import Row, median_of, percentile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sides.pool_processes import Side, Workshop

MILLI = 1e3
TOKENS = 4

LATENCY_CALLS, LATENCY_ROUNDS = 200, 6
ADDED_P50_MS, ADDED_P99_MS = 0.6, 2.0

WIDTH, BUSY_SECONDS, PARALLEL = 64, 0.05, 16
THROUGHPUT_NODES, THROUGHPUT_ROUNDS, THROUGHPUT_GOAL = 4, 4, 850.0
CALLS_PER_LANE = {"SOLLOL": 5, "SOLLOL async": 1}
USUAL_CALLS_PER_LANE = 20

FAST_SECONDS, SLOW_SECONDS, UNEQUAL_FOR = 0.02, 0.2, 4.0
UNEQUAL_GOAL = 52.0

SPEEDS = (1, 2, 4, 8)
SECONDS_PER_TOKEN = 0.006
"""On the slowest node. The fastest takes 0.75 ms a token, so that what HTTP and the timers of the nodes add to a
call, 1 to 2 ms, is small beside it."""
MIXED_CALLS, MAKESPAN_GOAL = 200, 0.95


async def latency(workshop: Workshop) -> Row:
    """Calls one after the other to nodes that answer at once."""
    async with nodes([{"parallel": 4}] * 2) as running:
        laps = await in_turns(
            workshop,
            ["aiohttp", "ours", "SOLLOL", "SOLLOL async"],
            described(running),
            rounds=LATENCY_ROUNDS,
            load={"": {"sizes": [TOKENS] * LATENCY_CALLS, "width": 1}},
        )
    row = Row(
        "latency",
        f"one call at a time, two nodes that answer at once; {LATENCY_ROUNDS - 1} turns of {LATENCY_CALLS}, medians",
        goal=f"ours adds <= {ADDED_P50_MS:g} ms p50, <= {ADDED_P99_MS:g} ms p99 to aiohttp",
        compare="p50 ms",
    )
    for name, turns in laps.items():
        figures: dict[str, float] = {}
        for share in (50, 99):
            own = [percentile(seconds_of(turn), share) for turn in turns]
            floor = [percentile(seconds_of(turn), share) for turn in laps["aiohttp"]]
            figures[f"p{share} ms"] = round(MILLI * statistics.median(own), 3)
            added = statistics.median(one - other for one, other in zip(own, floor, strict=True))
            figures[f"added p{share} ms"] = round(MILLI * added, 3)
        figures["cpu ms/call"] = round(MILLI * median_of(turn["cpu"] / len(turn["calls"]) for turn in turns), 3)
        row.add(name, figures, turns)
    if ours := row.sides.get("ours"):
        within = ours["added p50 ms"] <= ADDED_P50_MS and ours["added p99 ms"] <= ADDED_P99_MS
        row.met = within and not ours["errors"]
    return row


async def throughput(workshop: Workshop) -> Row:
    """64 calls at a time over four nodes that take 50 ms."""
    names = ["aiohttp", "ours", "SOLLOL", "SOLLOL async"]
    load = {
        name: {"sizes": [TOKENS] * WIDTH * CALLS_PER_LANE.get(name, USUAL_CALLS_PER_LANE), "width": WIDTH}
        for name in names
    }
    config = {"parallel": PARALLEL, "seconds_per_call": BUSY_SECONDS}
    async with nodes([config] * THROUGHPUT_NODES) as running:
        laps = await in_turns(workshop, names, described(running), rounds=THROUGHPUT_ROUNDS, load=load)
    ideal = THROUGHPUT_NODES * PARALLEL / BUSY_SECONDS
    row = Row(
        "throughput",
        f"{WIDTH} calls at a time over {THROUGHPUT_NODES} nodes of {MILLI * BUSY_SECONDS:g} ms, {PARALLEL} places each;"
        f" ideal {ideal:g}",
        goal=f"ours >= {THROUGHPUT_GOAL:g} calls/s",
        compare="calls/s",
    )
    for name, turns in laps.items():
        rates = [len(seconds_of(turn)) / turn["seconds"] for turn in turns]
        figures = {
            "calls/s": round(statistics.median(rates), 1),
            "best": round(max(rates), 1),
            "p99 ms": round(MILLI * median_of(percentile(seconds_of(turn), 99) for turn in turns), 1),
            "cpu ms/call": round(MILLI * median_of(turn["cpu"] / len(turn["calls"]) for turn in turns), 3),
        }
        row.add(name, figures, turns)
    row.judge("ours", "calls/s", at_least=THROUGHPUT_GOAL)
    return row


async def unequal(workshop: Workshop) -> Row:
    """A fast and a slow node with one place each: is the fast one waited for?"""
    ideal = 1 / FAST_SECONDS + 1 / SLOW_SECONDS
    row = Row(
        "unequal",
        f"nodes of {MILLI * FAST_SECONDS:g} and {MILLI * SLOW_SECONDS:g} ms, one place each, {UNEQUAL_FOR:g} s;"
        f" ideal {ideal:g}",
        goal=f"ours >= {UNEQUAL_GOAL:g} calls/s, 16 at a time and 8",
        compare="calls/s, 16",
    )
    names = ["aiohttp", "ours", "SOLLOL"]
    async with workshop.sides(names) as sides:
        for side in sides:
            figures: dict[str, float] = {}
            results = []
            configs = [{"seconds_per_call": seconds} for seconds in (FAST_SECONDS, SLOW_SECONDS)]
            async with nodes(configs) as running:
                await side.open(described(running))
                await side.ask("lanes", sizes=[TOKENS] * 8, width=2)  # what is slow is learned from calls
                for width in (16, 8):
                    result = await side.ask("lanes", sizes=[TOKENS] * 100, width=width, seconds=UNEQUAL_FOR)
                    done = sum(ok and start + seconds <= UNEQUAL_FOR for start, seconds, ok in result["calls"])
                    figures[f"calls/s, {width}"] = round(done / UNEQUAL_FOR, 1)
                    figures[f"p99 ms, {width}"] = round(MILLI * percentile(seconds_of(result), 99), 0)
                    results.append(result)
            row.add(side.name, figures, results)
    if ours := row.sides.get("ours"):
        row.met = min(ours["calls/s, 16"], ours["calls/s, 8"]) >= UNEQUAL_GOAL and not ours["errors"]
    return row


async def makespan(workshop: Workshop) -> Row:
    """200 calls of mixed size at once over nodes of speed 1, 2, 4 and 8: how near to the lower bound?"""
    sizes = mixed_sizes()
    bound = lower_bound(sizes)
    row = Row(
        "makespan",
        f"{MIXED_CALLS} calls of {min(sizes)} to {max(sizes)} tokens, all at once, over nodes of speed"
        f" {', '.join(map(str, SPEEDS))} with one place each; lower bound {bound:.2f} s",
        goal=f"ours: lower bound / makespan >= {MAKESPAN_GOAL:g}",
        compare="bound/makespan",
    )
    configs = [{"seconds_per_token": SECONDS_PER_TOKEN / speed} for speed in SPEEDS]
    async with workshop.sides(["ours", "SOLLOL"]) as sides:
        for side in sides:
            async with nodes(configs) as running:
                await side.open(described(running))
                for turn in ("learning", "") if side.name == "ours" else ("",):
                    result = await side.ask("lanes", sizes=sizes, width=len(sizes))
                    end = max(start + seconds for start, seconds, _ in result["calls"])
                    figures = {"bound/makespan": round(bound / end, 3), "seconds": round(end, 2)}
                    name = f"{side.name}, speeds not known yet" if turn else side.name
                    row.add(name, figures, [result])
    for name, end in simulated(sizes).items():
        row.add(f"{name} (simulated)", {"bound/makespan": round(bound / end, 3), "seconds": round(end, 2)})
    row.judge("ours", "bound/makespan", at_least=MAKESPAN_GOAL)
    return row


def mixed_sizes() -> list[int]:
    """Return the sizes of the calls in tokens, always the same: many short ones, few long ones."""
    draw = random.Random(4)
    return [min(400, max(8, round(draw.lognormvariate(4.1, 0.8)))) for _ in range(MIXED_CALLS)]


def lower_bound(sizes: Sequence[int]) -> float:
    """Return the seconds that no schedule can beat: all work on all nodes, or the longest call on the fastest."""
    return SECONDS_PER_TOKEN * max(sum(sizes) / sum(SPEEDS), max(sizes) / max(SPEEDS))


def simulated(sizes: Sequence[int]) -> dict[str, float]:
    """Return the makespans of others' rules, at no cost per call: nodes queue what they get, first come, first served.

    All at once, least connections deals like round robin; 16 at a time it can see who has finished.
    """

    def at_once() -> float:
        work = [sum(sizes[place :: len(SPEEDS)]) * SECONDS_PER_TOKEN / speed for place, speed in enumerate(SPEEDS)]
        return max(work)

    def in_lanes(*, least: bool) -> float:
        free = [0.0] * len(SPEEDS)
        open_until: list[list[float]] = [[] for _ in SPEEDS]
        lanes = [0.0] * 16
        for turn, size in enumerate(sizes):
            now = heapq.heappop(lanes)
            open_until = [[end for end in ends if end > now] for ends in open_until]
            place = min(range(len(SPEEDS)), key=lambda each: len(open_until[each])) if least else turn % len(SPEEDS)
            free[place] = max(free[place], now) + size * SECONDS_PER_TOKEN / SPEEDS[place]
            open_until[place].append(free[place])
            heapq.heappush(lanes, free[place])
        return max(free)

    return {
        "round robin, all at once": at_once(),
        "round robin, 16 at a time": in_lanes(least=False),
        "least connections, 16 at a time": in_lanes(least=True),
    }


async def in_turns(
    workshop: Workshop,
    names: Sequence[str],
    running: list[dict[str, Any]],
    *,
    rounds: int,
    load: dict[str, dict[str, Any]],
) -> dict[str, list[dict[str, Any]]]:
    """Return what the loads of each side gave, by side, without the first round, which warms up.

    One side at a time is at work, and another one goes first each time.
    """
    async with workshop.sides(names) as sides:
        for side in sides:
            await side.open(running)
        laps: dict[str, list[dict[str, Any]]] = {side.name: [] for side in sides}
        for turn in range(rounds):
            for side in rotated(sides, turn):
                result = await side.ask("lanes", **(load.get(side.name) or load[""]))
                await asyncio.sleep(0.05)
                if turn:
                    laps[side.name].append(result)
    return laps


def rotated(sides: list[Side], turn: int) -> Iterator[Side]:
    """Yield the sides, another one first each turn."""
    shift = turn % len(sides)
    yield from sides[shift:] + sides[:shift]


def seconds_of(result: dict[str, Any]) -> list[float]:
    """Return how long the answered calls took."""
    return [seconds for _, seconds, ok in result["calls"] if ok]
