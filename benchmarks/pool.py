"""The pool of Ollama nodes beside SOLLOL's and beside bare aiohttp: what a call costs, who gets it, what faults cost.

``python benchmarks/pool.py`` measures every row, ``python benchmarks/pool.py latency busy`` only those. Tables go to
standard error, one JSON document to standard output. Nothing is asserted about time: each row says whether ours
reached its goal. It fails only if a side or a node cannot be started.

How it is measured. Nodes are scripted servers in processes of their own (``faulty_node_child.py``): their times
are timers, so no model stands between the pools; only ``research`` has real ones. Each side has a process of its own,
ours and aiohttp in this environment, SOLLOL 0.9.66 in one that is made for it (``requirements-pool.txt``), with its
discovery, dashboard, Dask, Ray, Redis and its cache of replies switched off (``sides/pool_sollol.py`` says how; the row
``construct`` also has it as it is by default). The same loads drive every side (``sides/pool_load.py``), by tasks or,
where a library blocks, by threads. Where sides are compared in speed they take turns on the same nodes, one at work at
a time, another one first in each turn, and the first turn warms up; where faults are made, each has new nodes. A call
counts as answered only if its text is whole.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from typing import Any

from sides import pool_fault_rows, pool_rows, pool_small_rows
from sides.pool_processes import Workshop
from sides.processes import empty_home

ROWS = {
    "latency": pool_rows.latency,
    "throughput": pool_rows.throughput,
    "dead": pool_fault_rows.dead,
    "killed": pool_fault_rows.killed,
    "unequal": pool_rows.unequal,
    "makespan": pool_rows.makespan,
    "picker": pool_small_rows.picker,
    "busy": pool_fault_rows.busy,
    "hedging": pool_fault_rows.hedging,
    "construct": pool_small_rows.construct,
    "research": pool_small_rows.research,
}


async def measure(chosen: list[str], *, peers: bool) -> dict[str, Any]:
    """Return the rows by name, and print each as soon as it is there."""
    begin, busy = time.perf_counter(), os.getloadavg()[0]
    rows: dict[str, Any] = {}
    with empty_home() as home:
        workshop = Workshop(home, peers=peers)
        for name in chosen:
            started = time.perf_counter()
            row = await ROWS[name](workshop)
            seconds = round(time.perf_counter() - started, 1)
            rows[name] = {**row.document(), "seconds": seconds}
            print(f"{row.table()}\n  ({seconds:g} s)", file=sys.stderr)
    return {
        "benchmark": "pool",
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "load_average_before": round(busy, 2),
        "seconds": round(time.perf_counter() - begin, 1),
        "versions": workshop.versions,
        "rows": rows,
    }


def main() -> None:
    """Measure, and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help=f"one of: {', '.join(ROWS)}; all of them if none is named"
    )
    parser.add_argument("--no-peers", action="store_true", help="leave SOLLOL out")
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - set(ROWS):
        parser.error(f"there is no row {', '.join(sorted(unknown))}; there are: {', '.join(ROWS)}")
    chosen = arguments.rows or list(ROWS)
    print(json.dumps(asyncio.run(measure(chosen, peers=not arguments.no_peers)), indent=2))


if __name__ == "__main__":
    main()
