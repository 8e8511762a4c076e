"""Twenty runs of ``research`` over three real nodes, one of which is killed in each. Prints JSON.

The nodes are ``synaptic serve`` with the embedded model, one thread each. In every run a node that is at
work is killed (SIGKILL) at a random moment, and started again for the next run. A run counts if it ends with an answer.

    python benchmarks/pool_survival.py [RUNS]
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from ollama_nodes import MODEL, RealNode, real_nodes

from synaptic import Session, Settings, StepContinued, StepRetried
from synaptic.backends.pool.backend import PoolBackend

RUNS = 20
LATEST_KILL = 12.0
"""Seconds; a run without any loss takes about 20."""


async def kill_one_at_work(pool: PoolBackend, nodes: list[RealNode], after: float) -> RealNode | None:
    """Wait, then kill a node that has calls; return it."""
    await asyncio.sleep(after)
    busy = [nodes[key] for key, member in pool.members.items() if member.state.in_flight and nodes[key].running]
    if not busy:
        return None
    victim = random.choice(busy)
    victim.kill()
    return victim


async def one_run(nodes: list[RealNode], after: float) -> dict[str, object]:
    """Run the pipeline once and kill a node meanwhile; return what came of it."""
    settings = Settings(nodes=[node.url for node in nodes], model=MODEL, journal="off")
    events: list[object] = []
    async with Session(settings, on_event=events.append) as session:
        await session.route()
        pool = session.routed_backend
        assert isinstance(pool, PoolBackend), "several nodes are a pool"
        killer = asyncio.create_task(kill_one_at_work(pool, nodes, after))
        began = time.monotonic()
        result = await session.run("What is a heat pump?", pipeline="research")
        seconds = time.monotonic() - began
        killer.cancel()
        victim = (await asyncio.gather(killer, return_exceptions=True))[0]
    killed = isinstance(victim, RealNode)
    if isinstance(victim, RealNode):
        await victim.restart()
    return {
        "answered": result.status == "succeeded" and bool(result.text.strip()),
        "status": result.status,
        "killed": killed,
        "killed_after": round(after, 1),
        "seconds": round(seconds, 1),
        "continued": sum(isinstance(event, StepContinued) for event in events),
        "restarted": sum(isinstance(event, StepRetried) for event in events),
        "error": str(result.error) if result.error else None,
    }


async def main(count: int) -> None:
    """Make the runs and print what came of them."""
    rng = random.Random(4)
    runs = []
    async with real_nodes(3) as nodes:
        for number in range(count):
            runs.append(await one_run(nodes, rng.uniform(0.5, LATEST_KILL)))
            sys.stderr.write(f"{number + 1}/{count}: {runs[-1]}\n")
    answered = sum(bool(run["answered"]) for run in runs)
    killed = sum(bool(run["killed"]) for run in runs)
    print(json.dumps({"runs": len(runs), "answered": answered, "nodes_killed": killed, "each": runs}, indent=1))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS))
