"""The row of benchmarks/distributed.py about memory: a model that is mostly weights, over three workers."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from sides.distributed_product import ask, over_managed
from sides.pool_report import OURS, Row
from sides.synthetic_gguf import write_synthetic

if TYPE_CHECKING:
    from sides.distributed_rows import Bench

MOST_COORDINATOR = 0.15
MOST_SHARE = 0.45
POLL_SECONDS = 0.02
TOKENS = 8
FIELDS = ("VmHWM", "RssAnon", "RssFile")
COORDINATOR, WORKER = "llama-server", "rpc-server"


class Watch:
    """Looks at the memory of the engine's processes that this one started.

    Attributes:
        peaks: By process, the most of each field in bytes; ``VmHWM`` is the kernel's own peak of the whole.
        names: Of the processes.

    """

    def __init__(self) -> None:
        self.peaks: dict[int, dict[str, int]] = {}
        self.names: dict[int, str] = {}

    async def look(self) -> None:
        """Look until cancelled."""
        while True:
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error, OSError):
                    self._take(child)
            await asyncio.sleep(POLL_SECONDS)

    def _take(self, child: psutil.Process) -> None:
        name = Path(child.exe()).name
        if not name.endswith((COORDINATOR, WORKER)):
            return
        self.names[child.pid] = name
        text = Path(f"/proc/{child.pid}/status").read_text(encoding="ascii", errors="replace")
        peaks = self.peaks.setdefault(child.pid, dict.fromkeys(FIELDS, 0))
        for field, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE):
            if field in peaks:
                peaks[field] = max(peaks[field], int(kib) * 1024)

    def of(self, kind: str) -> list[dict[str, int]]:
        """Return the peaks of the processes of a kind."""
        return [peaks for pid, peaks in self.peaks.items() if self.names[pid].endswith(kind)]


async def memory(bench: Bench) -> Row:
    """Load a synthetic model over three workers, generate a little, and say what each process had at most."""
    row = Row(
        "memory",
        "peak memory while loading and generating, as a part of the model's size: all layers on 3 workers",
        goal=f"coordinator at most {MOST_COORDINATOR}, any process at most {MOST_SHARE}",
        compare="VmHWM / model",
    )
    if not bench.big.exists():
        print(f"writing {bench.big} (once)", file=sys.stderr)
        bench.big.parent.mkdir(parents=True, exist_ok=True)
        unfinished = bench.big.with_suffix(".part")
        await asyncio.to_thread(write_synthetic, unfinished, gigabytes=bench.gigabytes)
        unfinished.rename(bench.big)
    size = bench.big.stat().st_size
    watch = Watch()
    looking = asyncio.create_task(watch.look())
    try:
        async with over_managed(bench.big, 3) as product:
            await ask(product.backend, TOKENS)
            planned = [share.weight_bytes / product.placement.shape.weight_bytes for share in product.placement.shares]
            seconds = product.ready_seconds
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    sides = {OURS: watch.of(COORDINATOR), **{f"worker {n}": [one] for n, one in enumerate(watch.of(WORKER), 1)}}
    for side, processes in sides.items():
        most = {field: max(one[field] for one in processes) for field in FIELDS}
        row.add(side, {f"{field} / model": round(value / size, 3) for field, value in most.items()})
    largest = max(side["VmHWM / model"] for side in row.sides.values())
    row.met = row.sides[OURS]["VmHWM / model"] <= MOST_COORDINATOR and largest <= MOST_SHARE
    row.notes += [
        f"the model: {size / 1e9:.2f} GB; weights as planned: {', '.join(f'{part:.3f}' for part in planned)}",
        f"ready after {seconds:.1f} s; ours is the coordinator",
        "the most of anonymous memory (RssAnon) and of file-backed (RssFile) need not have been at the same time",
    ]
    return row
