"""A soak: calls through the pool, a tenth of whose connections break, and what is kept in memory of each that broke.

Scripted nodes in processes of their own cut connections, with RST and with FIN, after none to all of their tokens; the
pool has to answer every call all the same. Heap (``tracemalloc``) and objects are counted while nothing is under way,
first once all caches are warm, then at the end. Prints JSON; ends with 1 where a goal is missed.
Goals: at most 0.1 KB kept a broken call, no call lost.

    nice -n 10 python benchmarks/soak.py --minutes 10
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import random
import sys
import time
import tracemalloc
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
from sides.pool_processes import ChildNode, child_node

import synaptic
from synaptic.errors import SynapticError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

NODES = 3
AT_ONCE = 8
FAULTS = 0.25
"""Calls before which a node is told to break its next one; a node that is told twice breaks one: about a tenth."""
TRIES = 8
"""Further nodes for a call: with three nodes that break one call in ten, some calls break three times in a row."""
PROMPT_BYTES = 20_000
PROMPTS = 20
"""Different ones: what the pool remembers of each at each node has its bound, and must be whole before anything is
measured. A prompt stays where it was read, so it is long until every node has had each of many."""
TOKENS = 8
WARM = 0.2
"""Of the time; until then what is made once is made: connections, caches of templates, what is learned of nodes."""
FORGET_EVERY = 500
"""Calls; the nodes keep what they were asked until then."""
GOAL_KB = 0.1
SHOWN_TYPES = 8


class Still(NamedTuple):
    """What there is while nothing is under way."""

    heap: int
    objects: int
    types: Counter[str]
    resident: int
    descriptors: int
    tasks: int


@dataclass
class Tally:
    """What has happened so far."""

    calls: int = 0
    lost: Counter[str] = field(default_factory=Counter)


def still() -> Still:
    """Return what there is now."""
    for _ in range(3):
        gc.collect()
    types = Counter(type(thing).__qualname__ for thing in gc.get_objects())
    heap, _ = tracemalloc.get_traced_memory()
    process = psutil.Process()
    return Still(heap, types.total(), types, process.memory_info().rss, process.num_fds(), len(asyncio.all_tasks()))


async def ask(pool: synaptic.Pool, nodes: Sequence[ChildNode], rng: random.Random, tally: Tally) -> None:
    """Make one call, and perhaps have one of the nodes break the next connection."""
    if rng.random() < FAULTS:
        fault = {"kind": "drop_after_n", "after": rng.randrange(TOKENS + 1), "reset": rng.random() < 0.5, "times": 1}
        await rng.choice(nodes).control(fault=fault)
    tally.calls += 1
    try:
        await pool.chat(f"{tally.calls % PROMPTS} " + "word " * (PROMPT_BYTES // 5), max_tokens=TOKENS)
    except SynapticError as error:
        tally.lost[type(error).__name__] += 1
    if tally.calls % FORGET_EVERY == 0:
        for node in nodes:
            await node.control(forget=True)


async def work(
    pool: synaptic.Pool, nodes: Sequence[ChildNode], rng: random.Random, tally: Tally, seconds: float
) -> Still:
    """Call for so many seconds, several at once; return what there is afterwards."""
    end = time.monotonic() + seconds

    async def one_after_the_other() -> None:
        while time.monotonic() < end:
            await ask(pool, nodes, rng, tally)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(one_after_the_other())
    await asyncio.sleep(1.0)  # the last connections are closed
    return still()


async def broken(nodes: Sequence[ChildNode]) -> int:
    """Return how many connections the nodes have broken."""
    return sum([(await node.counters())["outcomes"].get("failed", 0) for node in nodes])


async def soak(minutes: float, seed: int) -> dict[str, Any]:
    """Run it; return the figures."""
    rng, tally = random.Random(seed), Tally()
    async with contextlib.AsyncExitStack() as stack:
        config = {"models": ["m"], "loaded": ["m"], "parallel": AT_ONCE, "tokens": TOKENS}
        nodes = [await stack.enter_async_context(child_node(**config)) for _ in range(NODES)]
        listed = [{"url": node.url, "parallel": AT_ONCE} for node in nodes]
        pool = await stack.enter_async_context(synaptic.Pool(listed, model="m", failovers=TRIES))
        tracemalloc.start()
        before = await work(pool, nodes, rng, tally, minutes * 60 * WARM)
        calls, breaks = tally.calls, await broken(nodes)
        after = await work(pool, nodes, rng, tally, minutes * 60 * (1 - WARM))
        breaks = await broken(nodes) - breaks
    kept = (after.heap - before.heap) / max(1, breaks)
    return {
        "minutes": minutes,
        "seed": seed,
        "calls": tally.calls,
        "calls_measured": tally.calls - calls,
        "broken_measured": breaks,
        "calls_lost": dict(tally.lost),
        "heap_kb": [round(before.heap / 1000, 1), round(after.heap / 1000, 1)],
        "kept_kb_a_broken_call": round(kept / 1000, 4),
        "objects": [before.objects, after.objects],
        "objects_a_broken_call": round((after.objects - before.objects) / max(1, breaks), 4),
        "types_that_grew": dict((after.types - before.types).most_common(SHOWN_TYPES)),
        "descriptors": [before.descriptors, after.descriptors],
        "tasks": [before.tasks, after.tasks],
        "resident_mb": [round(before.resident / 1e6, 1), round(after.resident / 1e6, 1)],
        "goals": {"kept_kb_a_broken_call": kept / 1000 <= GOAL_KB, "calls_lost": not tally.lost, "broke": breaks > 0},
    }


def main(
    soak: Callable[[float, int], Coroutine[Any, Any, dict[str, Any]]] = soak, about: str = __doc__.partition("\n")[0]
) -> int:
    """Soak for as long as the command line says, and print the figures; 0 if all goals are met."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long. [1]")
    parser.add_argument("--seed", type=int, default=0, help="of what breaks and when. [0]")
    given = parser.parse_args()
    figures = asyncio.run(soak(given.minutes, given.seed))
    json.dump(figures, sys.stdout, indent=2)
    print()
    return 0 if all(figures["goals"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
