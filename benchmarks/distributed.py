"""Distributed inference beside the same engine alone: starts, tokens a second, memory, faults. The workers are real.

``python benchmarks/distributed.py`` measures every row, ``--only decode --only start`` only those. Tables go to
standard error, one JSON document to standard output. Nothing is asserted about time: each row says whether its goal
was reached. It needs an engine (``synaptic engine install``).

How it is measured. The model is SmolLM2-135M; a model that fits into one worker is never split, so workers are given
so little memory, or so many layers by name, that all are needed. ``local`` is the same ``llama-server`` without
workers, ``bare`` the one that a person starts by hand over RPC workers; all answer the same call, in turns, another
side first in each, and the first turn warms up. Rates are the server's own count of tokens by its own clock. A worker
has one thread, and so has ``local``. Links are emulated by a proxy (``sides/link_proxy.py``) that says beside each
nominal figure what it really was. State goes to an empty directory; the engine, and what is known of the speed of
workers, are this user's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import platformdirs
from sides import distributed_faults, distributed_memory, distributed_rows

from synaptic.backends.distributed.engine.store import current_engine
from synaptic.messages import ignore_report
from synaptic.models.download import ModelStore

ROWS = {
    "start": distributed_rows.start,
    "decode": distributed_rows.decode,
    "agents": distributed_rows.many_agents,
    "predicted": distributed_rows.predicted,
    "killed": distributed_faults.killed,
    "cycles": distributed_faults.cycles,
    "memory": distributed_memory.memory,
}


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the rows by name, and print each as soon as it is there."""
    begin, busy = time.perf_counter(), os.getloadavg()[0]
    engine = await current_engine()
    cache = Path(platformdirs.user_cache_dir("synapticllamas")) / "benchmarks"
    bench = distributed_rows.Bench(
        engine=engine,
        model=await ModelStore().ensure(ignore_report),
        rounds=arguments.rounds,
        tokens=arguments.tokens,
        cycles=arguments.cycles,
        rest=arguments.rest,
        gigabytes=arguments.gigabytes,
        big=cache / f"synthetic-{arguments.gigabytes:g}GB.gguf",
    )
    rows: dict[str, Any] = {}
    for name in arguments.only or ROWS:
        started = time.perf_counter()
        row = await ROWS[name](bench)
        seconds = round(time.perf_counter() - started, 1)
        rows[name] = {**row.document(), "seconds": seconds}
        print(f"{row.table()}\n  ({seconds:g} s)", file=sys.stderr)
    return {
        "benchmark": "distributed",
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "engine": {"version": engine.facts.version, "rpc": engine.facts.rpc_version, "cpu": engine.facts.cpu_variant},
        "load_average_before": round(busy, 2),
        "seconds": round(time.perf_counter() - begin, 1),
        "rows": rows,
    }


def main() -> None:
    """Measure, and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", choices=list(ROWS), metavar="ROW", help=f"of: {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side that count")
    parser.add_argument("--tokens", type=int, default=64, help="of a call")
    parser.add_argument("--cycles", type=int, default=50, help="faults of the row cycles")
    parser.add_argument("--rest", type=float, default=0.0, help="seconds between two faults")
    parser.add_argument("--gigabytes", type=float, default=1.6, help="size of the synthetic model of the row memory")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as state:
        os.environ["XDG_STATE_HOME"] = state
        print(json.dumps(asyncio.run(measure(arguments)), indent=2))


if __name__ == "__main__":
    main()
