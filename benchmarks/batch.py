"""``synaptic batch`` over three scripted nodes: how near it comes to what the nodes can do, and what kills cost.

Prints JSON; nothing here is asserted. *bound* is the time that the nodes need if none of them ever waits: replies are
answered four at a time by each. *start* is the time until the first call, and no part of *at_work*. The batch *on_ray*
runs on a cluster of three nodes on this machine, where each asks all three. The killed batch is ended with SIGKILL at
random moments and started again; *again* are the calls that were made twice, at most those that were open at a kill or
had only just ended.

    python benchmarks/batch.py [--items 10000] [--kills 20] [--without-ray]
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
from collections import Counter
from contextlib import AsyncExitStack, nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from faulty_node import FaultyNode
from ray_nodes import ray_nodes

ROOT = Path(__file__).resolve().parents[1]
NODES, PARALLEL = 3, 4
TOKENS, TOKEN = 20, 0.05
"""A reply takes a second."""
CONCURRENCY = 24


async def main() -> None:
    """Measure, and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--without-ray", action="store_true")
    given = parser.parse_args()
    with_ray = not given.without_ray and find_spec("ray") is not None
    report = {
        "benchmark": "batch",
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "load": os.getloadavg()[0],
        "whole": await whole(given.items),
        "on_ray": await whole(given.items, on_ray=True) if with_ray else None,
        "killed": await killed(given.items // 5, given.kills),
        "goals": {"bound_by_time": 0.95, "bound_by_time_on_ray": 0.9, "rows_missing": 0},
    }
    sys.stdout.write(json.dumps(report, indent=2) + "\n")


async def whole(items: int, *, on_ray: bool = False) -> dict[str, Any]:
    """Return how long an undisturbed batch takes."""
    cluster = ray_nodes({f"node-{number}": {} for number in range(NODES)}) if on_ray else nullcontext()
    with cluster as made:
        async with Site(items, TOKEN) as site:
            begin = time.perf_counter()
            process = await site.start(*(["--ray", made.address] if on_ray else []))
            begun = asyncio.create_task(site.begun())
            code = await process.wait()
            took = time.perf_counter() - begin
            start = await begun - begin
            bound = items * TOKENS * TOKEN / (NODES * PARALLEL)
            return {
                "items": items,
                "exit_code": code,
                "seconds": round(took, 1),
                "start_seconds": round(start, 1),
                "bound_seconds": round(bound, 1),
                "bound_by_time": round(bound / took, 3),
                "bound_by_time_at_work": round(bound / (took - start), 3),
                "succeeded": site.rows()["succeeded"],
            }


async def killed(items: int, kills: int) -> dict[str, Any]:
    """Return what came of a batch that was killed so often."""
    chances = random.Random(0)
    async with Site(items, TOKEN / 2) as site:
        for _ in range(kills):
            process = await site.start()
            await asyncio.sleep(chances.uniform(0.5, 4.0))
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        code = await (await site.start()).wait()
        asked = Counter(
            call.messages[-1]["content"] for node in site.nodes for call in node.asked if call.outcome == "ok"
        )
        rows = site.rows()
        return {
            "items": items,
            "kills": kills,
            "exit_code": code,
            "succeeded": rows["succeeded"],
            "rows_missing": items - rows.total(),
            "again": asked.total() - len(asked),
            "open_at_once": CONCURRENCY,
        }


class Site(AsyncExitStack):
    """Three nodes, a file of inputs, and an empty home."""

    def __init__(self, items: int, token: float) -> None:
        super().__init__()
        self.nodes = [
            FaultyNode(models=["m"], parallel=PARALLEL, tokens=TOKENS, seconds_per_token=token) for _ in range(NODES)
        ]
        self._items = items

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.home = Path(self.enter_context(tempfile.TemporaryDirectory()))
        lines = (json.dumps({"query": f"question {number}"}) + "\n" for number in range(self._items))
        (self.home / "in.jsonl").write_text("".join(lines))
        for node in self.nodes:
            await self.enter_async_context(node)
        return self

    async def begun(self) -> float:
        """Return when the first call has come."""
        while not any(node.asked for node in self.nodes):  # noqa: ASYNC110 - the nodes tell it to no other
            await asyncio.sleep(0.01)
        return time.perf_counter()

    async def start(self, *options: str) -> asyncio.subprocess.Process:
        """Start the batch, or go on with it."""
        nodes = json.dumps([{"url": node.url, "parallel": PARALLEL} for node in self.nodes])
        command = ["batch", "answer", "in.jsonl", "-o", "out.jsonl", "-q", "-m", "m"]
        command += ["--concurrency", str(CONCURRENCY), "--set", f"nodes={nodes}"]
        command += ["--set", "task_distribution_enabled=true", *options]
        home = {name: str(self.home) for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, str(ROOT / "main.py"), *command), cwd=self.home, env={**os.environ, **home}
        )

    def rows(self) -> Counter[str]:
        """Return how many rows have which status."""
        lines = (self.home / "out.jsonl").read_text().splitlines()
        return Counter(json.loads(line)["status"] for line in lines)


if __name__ == "__main__":
    asyncio.run(main())
