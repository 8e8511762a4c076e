"""Eight programs over the same nodes, which tell each other their calls or do not. Prints JSON; nothing is asserted.

Each program is a process with a pool of its own; each node is one that speaks Ollama's API and serves a fixed number of
calls at once. Calls come at random and have random lengths, the same ones in every row. In *shared* the programs have
one state directory, in *unshared* each has its own, so that none knows of another; in *one program* all calls come to a
single pool, which is what telling each other cannot beat. Seconds are from a call's arrival to its end; the first
quarter, in which speeds are learned, does not count.

    python benchmarks/pool_herd.py [--calls 800] [--load 0.7]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import sys
import tempfile
import time
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from faulty_node_child import child_node

from synaptic import ChatRequest, Finished, Message, Settings
from synaptic.backends.pool import PoolBackend
from synaptic.settings import NodeSettings

PROGRAMS = 8
PARALLEL = 2
TOKENS = (4, 20)
PACES = {"all alike": (0.1,) * 6, "speeds 1, 2 and 4": (0.2, 0.2, 0.1, 0.1, 0.05, 0.05)}
"""Seconds a token of each node."""
WARM_UP = 0.25
MODES = ("unshared", "shared", "one program")


async def main() -> None:
    """Measure, and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=800)
    parser.add_argument("--load", type=float, default=0.7)
    parser.add_argument("--program", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.program:
        await program(**json.loads(given.program))
        return
    rows = {
        nodes: {mode: await herd(paces, mode, given.calls, given.load) for mode in MODES}
        for nodes, paces in PACES.items()
    }
    report = {
        "benchmark": "pool_herd",
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "programs": PROGRAMS,
        "calls": given.calls,
        "load": given.load,
        "rows": rows,
    }
    sys.stdout.write(json.dumps(report, indent=2) + "\n")


async def herd(paces: tuple[float, ...], mode: str, calls: int, load: float) -> dict[str, Any]:
    """Return how long the calls took, in seconds."""
    mean_tokens = sum(TOKENS) / 2
    per_second = load * sum(PARALLEL / (pace * mean_tokens) for pace in paces)
    chance = random.Random(1)
    arrivals: list[tuple[float, int]] = []
    at = 0.0
    for _ in range(calls):
        at += chance.expovariate(per_second)
        arrivals.append((at, chance.randint(*TOKENS)))
    programs = 1 if mode == "one program" else PROGRAMS
    parts: list[list[tuple[float, int]]] = [[] for _ in range(programs)]
    for arrival in arrivals:
        parts[chance.randrange(programs)].append(arrival)
    async with AsyncExitStack() as stack:
        config = {"models": ["m"], "loaded": ["m"], "tokens": None, "parallel": PARALLEL}
        nodes = [await stack.enter_async_context(child_node(**config, seconds_per_token=pace)) for pace in paces]
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        children = []
        for number, part in enumerate(parts):
            state = home / ("all" if mode == "shared" else str(number))
            told = json.dumps({"urls": [node.url for node in nodes], "arrivals": part})
            command = (sys.executable, __file__, "--program", told)
            environment = {**os.environ, "XDG_STATE_HOME": str(state), "HOME": str(home)}
            pipe = asyncio.subprocess.PIPE
            children.append(await asyncio.create_subprocess_exec(*command, env=environment, stdin=pipe, stdout=pipe))
        for child in children:  # each says when it is ready, and all begin together
            assert child.stdout is not None
            await child.stdout.readline()
        said = await asyncio.gather(*(child.communicate(b"\n") for child in children))
        most = [(await node.counters())["peak_in_flight"] for node in nodes]
    took = sorted(
        seconds for part, _ in said for at, seconds in json.loads(part) if at > arrivals[int(calls * WARM_UP)][0]
    )
    return {
        "calls": len(took),
        "mean": round(fmean(took), 3),
        "p50": round(took[len(took) // 2], 3),
        "p99": round(took[int(len(took) * 0.99)], 3),
        "most_at_a_node": max(most),
    }


async def program(urls: list[str], arrivals: list[tuple[float, int]]) -> None:
    """Be one of the programs: make the calls when they are due, and print when each came and what it took."""
    async with PoolBackend(Settings(), [NodeSettings(url=url, parallel=PARALLEL) for url in urls]) as pool:
        await pool.start()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        begin = time.time()

        async def call(at: float, tokens: int) -> tuple[float, float]:
            await asyncio.sleep(begin + at - time.time())
            began = time.perf_counter()
            request = ChatRequest(messages=(Message("user", f"at {at}"),), model="m", max_tokens=tokens)
            async with aclosing(pool.stream(request)) as chunks:
                last = [chunk async for chunk in chunks][-1]
            if not isinstance(last, Finished):
                raise AssertionError("a call has no end")
            return at, time.perf_counter() - began

        sys.stdout.write(json.dumps(await asyncio.gather(*(call(*arrival) for arrival in arrivals))))


if __name__ == "__main__":
    asyncio.run(main())
