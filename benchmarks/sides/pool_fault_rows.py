"""What the pool does when nodes fail: the rows of benchmarks/pool.py with faults.

A fault is made by the node, or by a signal to it, while the sides know nothing of it; what went where is counted by
the nodes.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING, Any

from sides.pool_processes import described, nodes
from sides.pool_report import Row, percentile
from sides.pool_rows import MILLI, TOKENS, seconds_of

if TYPE_CHECKING:
    from sides.pool_processes import ChildNode, Side, Workshop

DEAD_CALLS, SLOW_CALLS, DEAD_WIDTH, DEAD_FACTOR = 200, 60, 8, 2.0
SLOW_STRATEGIES = {"SOLLOL round robin", "SOLLOL latency first", "SOLLOL fairness"}
"""Those get fewer calls: they take 5 to 9 of them a second."""
NODE = {"seconds_per_call": 0.02, "parallel": 8}

KILL_AFTER, RESTART_AFTER, RUN_FOR, SHARE_FROM, BACK_WITHIN = 2.0, 6.5, 15.0, 13.0, 5.0
KILLED_NODE = {"seconds_per_call": 0.1, "parallel": 4}
KILLED_WIDTH, LEARNING_CALLS = 12, 150
"""The node is away for longer than SOLLOL's health checks are apart (5 s): a shorter absence it may not even notice."""

BUSY_FOR, BUSY_FROM, BUSY_SHARE = 6.0, 2.0, 0.02
BUSY_NODE = {"seconds_per_call": 0.03, "parallel": 4}

HEDGE_NODE = {"seconds_per_call": 0.03, "parallel": 4}
HEDGE_RATE, HEDGE_CALLS, HEDGE_ROUNDS, HEDGE_GOAL = 120.0, 840, 2, 0.4
TURNS, SLOW_SECONDS, SLOW_FACTOR = (1.5, 3.5, 5.5), 1.0, 10.0
"""When the next node turns slow, for how long the calls are counted, and how slow it turns."""


async def dead(workshop: Workshop) -> Row:
    """One dead and one healthy node."""
    row = Row(
        "dead",
        f"a node that refuses beside one of {MILLI * NODE['seconds_per_call']:g} ms; {DEAD_CALLS} calls,"
        f" {DEAD_WIDTH} at a time; normal: the healthy node alone",
        goal=f"ours: no error, p99 <= {DEAD_FACTOR:g} x normal",
        compare="p99 ms",
    )
    strategies = ["SOLLOL least loaded", "SOLLOL round robin", "SOLLOL latency first", "SOLLOL fairness"]
    async with workshop.sides(["ours", "SOLLOL", "SOLLOL async", *strategies]) as sides:
        for side in sides[:2]:
            await _dead(row, side)
        await asyncio.gather(*(_dead(row, side) for side in sides[2:]))  # they wait most of the time
    row.notes.append("SOLLOL's further strategies ran at the same time, with nodes of their own")
    if ours := row.sides.get("ours"):
        row.met = not ours["errors"] and ours["p99 ms"] <= DEAD_FACTOR * ours["normal p99 ms"]
    return row


async def _dead(row: Row, side: Side) -> None:
    sizes = [TOKENS] * (SLOW_CALLS if side.name in SLOW_STRATEGIES else DEAD_CALLS)
    async with nodes([NODE, NODE]) as [gone, healthy]:
        await side.open(described([healthy]))
        await side.ask("lanes", sizes=sizes[:32], width=DEAD_WIDTH)
        await side.open(described([healthy]))  # both figures are of a pool that knows nothing yet
        normal = await side.ask("lanes", sizes=sizes, width=DEAD_WIDTH)
        await gone.control(fault={"kind": "refuse"})
        await asyncio.sleep(0.2)
        await side.open(described([gone, healthy]))
        result = await side.ask("lanes", sizes=sizes, width=DEAD_WIDTH)
    figures = {
        "p99 ms": round(MILLI * percentile(seconds_of(result), 99), 1),
        "normal p99 ms": round(MILLI * percentile(seconds_of(normal), 99), 1),
        "calls": len(sizes),
        "calls/s": round(len(sizes) / result["seconds"], 1),
    }
    row.add(side.name, figures, [result])


async def killed(workshop: Workshop) -> Row:
    """A node killed while it works, and started again on its port."""
    row = Row(
        "killed",
        f"one of three nodes of {MILLI * KILLED_NODE['seconds_per_call']:g} ms, {KILLED_NODE['parallel']} places each,"
        f" is killed {KILL_AFTER:g} s into {RUN_FOR:g} s of {KILLED_WIDTH} calls at a time, and is back after"
        f" {RESTART_AFTER:g} s",
        goal=f"ours: no error, used again within {BACK_WITHIN:g} s",
        compare="calls",
    )
    async with workshop.sides(["ours", "SOLLOL", "SOLLOL least loaded"]) as sides:
        await _killed(row, sides[0])
        await asyncio.gather(*(_killed(row, side) for side in sides[1:]))  # they wait most of the time
    row.notes.append("the sides of SOLLOL ran at the same time, with nodes of their own")
    if ours := row.sides.get("ours"):
        back = ours["used again after s"]
        row.met = not ours["errors"] and back is not None and back <= BACK_WITHIN
    return row


async def _killed(row: Row, side: Side) -> None:
    async with nodes([KILLED_NODE] * 3) as running:
        await side.open(described(running))
        await side.ask("lanes", sizes=[TOKENS] * LEARNING_CALLS, width=KILLED_WIDTH)
        load = asyncio.create_task(side.ask("lanes", sizes=[TOKENS] * 500, width=KILLED_WIDTH, seconds=RUN_FOR))
        figures = await _kill_and_restart(running, time.perf_counter())
        result = await load
    row.add(side.name, {"calls": len(result["calls"]), **figures}, [result])


async def _kill_and_restart(running: list[ChildNode], begin: float) -> dict[str, Any]:
    """Return when the node was used again, and its share of the calls once it was bound to be."""
    victim = running[0]
    await asyncio.sleep(KILL_AFTER)
    victim.kill()
    await asyncio.sleep(begin + RESTART_AFTER - time.perf_counter())
    await victim.restart()
    up = time.perf_counter()
    used_after = None
    while time.perf_counter() < begin + SHARE_FROM:
        if (await victim.counters())["calls"]:
            used_after = round(time.perf_counter() - up, 2)
            break
        await asyncio.sleep(0.05)
    await asyncio.sleep(max(0.0, begin + SHARE_FROM - time.perf_counter()))
    before = await counted(running)
    await asyncio.sleep(begin + RUN_FOR - time.perf_counter())
    after = await counted(running)
    later = [new - old for new, old in zip(after, before, strict=True)]
    return {"used again after s": used_after, "share of later calls": round(later[0] / max(1, sum(later)), 3)}


async def busy(workshop: Workshop) -> Row:
    """A node that answers 503 at once, and so looks faster than every other one."""
    row = Row(
        "busy",
        f"one of three nodes answers 503 at once; {KILLED_WIDTH} calls at a time for {BUSY_FOR:g} s, counted after"
        f" {BUSY_FROM:g} s",
        goal=f"ours: <= {BUSY_SHARE:.0%} of the traffic goes there, no error",
        compare="calls/s",
    )
    async with workshop.sides(["ours", "SOLLOL", "SOLLOL least loaded"]) as sides:
        for side in sides:
            async with nodes([BUSY_NODE] * 3) as running:
                await running[0].control(fault={"kind": "busy_503"})
                await side.open(described(running))
                load = asyncio.create_task(
                    side.ask("lanes", sizes=[TOKENS] * 500, width=KILLED_WIDTH, seconds=BUSY_FOR)
                )
                await asyncio.sleep(BUSY_FROM)
                before = await counted(running)
                result = await load
                after = await counted(running)
            later = [new - old for new, old in zip(after, before, strict=True)]
            answered = [start for start, _, ok in result["calls"] if ok]
            figures = {
                "share there": round(later[0] / max(1, sum(later)), 4),
                "first 2 s": round(before[0] / max(1, sum(before)), 4),
                "calls/s": round(len(answered) / result["seconds"], 1),
            }
            row.add(side.name, figures, [result])
    row.judge("ours", "share there", at_most=BUSY_SHARE)
    return row


async def hedging(workshop: Workshop) -> Row:
    """One node of three turns ten times slower, with hedging and without."""
    row = Row(
        "hedging",
        f"of three nodes of {MILLI * HEDGE_NODE['seconds_per_call']:g} ms, one after the other turns {SLOW_FACTOR:g} x"
        f" slower for 2 s; {HEDGE_RATE:g} calls arrive per second; those of the {SLOW_SECONDS:g} s after each turn,"
        f" medians of {HEDGE_ROUNDS} runs (SOLLOL: 1)",
        goal=f"p99 with hedging <= {HEDGE_GOAL:g} x p99 without",
        compare="p99 ms",
    )
    runs: dict[str, list[tuple[list[float], list[float]]]] = {}
    results: dict[str, list[dict[str, Any]]] = {}
    async with workshop.sides(["ours", "ours, hedging", "SOLLOL"]) as sides:
        for turn in range(HEDGE_ROUNDS):
            for side in sides[: 2 if turn else 3]:
                result, turned = await _turning(side)
                calls = [(start + result["begin"], seconds) for start, seconds, ok in result["calls"] if ok]
                normal = [seconds for at, seconds in calls if at < turned[0] - SLOW_FACTOR * seconds]
                late = [seconds for at, seconds in calls if any(0 <= at - turn <= SLOW_SECONDS for turn in turned)]
                runs.setdefault(side.name, []).append((late, normal))
                results.setdefault(side.name, []).append(result)
    for name, found in runs.items():
        figures = {
            f"p{share} ms": round(MILLI * statistics.median(percentile(late, share) for late, _ in found), 1)
            for share in (50, 95, 99, 100)
        }
        figures["p99 ms before"] = round(MILLI * statistics.median(percentile(early, 99) for _, early in found), 1)
        row.add(name, figures, results[name])
    on, off = row.sides.get("ours, hedging"), row.sides.get("ours")
    if on and off:
        row.notes.append(f"p99 on / off: {on['p99 ms'] / off['p99 ms']:.2f}")
        row.met = on["p99 ms"] <= HEDGE_GOAL * off["p99 ms"] and not on["errors"] + off["errors"]
    return row


async def _turning(side: Side) -> tuple[dict[str, Any], list[float]]:
    """Return what came of the calls, and when a node turned slow."""
    async with nodes([HEDGE_NODE] * 3) as running:
        await side.open(described(running))
        await side.ask("lanes", sizes=[TOKENS] * 120, width=12)
        begin = time.perf_counter()
        load = asyncio.create_task(side.ask("arrivals", sizes=[TOKENS] * HEDGE_CALLS, per_second=HEDGE_RATE))
        turned = []
        for place, at in enumerate(TURNS):
            await asyncio.sleep(begin + at - time.perf_counter())
            await running[place].control(fault={"kind": "slow", "factor": SLOW_FACTOR})
            turned.append(time.perf_counter())
            if place:
                await running[place - 1].control(fault=None)
        return await load, turned


async def counted(running: list[ChildNode]) -> list[int]:
    """Return how many calls each node has had."""
    return [(await node.counters())["calls"] for node in running]
