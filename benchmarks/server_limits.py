"""What hostile clients cost ``synaptic serve``: slow ones, few file descriptors, bombs, and requests that are none.

A real server in a process of its own is attacked from this one; meanwhile somebody else asks for its version on a new
connection ten times a second. Prints JSON. ``--quick`` attacks less: 300 connections, 2,000 requests.
Goals: 1,500 slow connections are all closed in 30 s while others are served within 1 s, also with ``ulimit -n 256``; a
packed body of 238 KB that unpacks to 240 MB, and 63 MB of JSON, cost neither GB nor seconds; 20,000 malformed requests
leave at most 10 MB behind, and no answer of them is a 5xx.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from hostile_clients import HEAD, OtherClient, SlowClients, exchange, malformed, statuses

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOW, MALFORMED = (300, 2_000) if "--quick" in sys.argv else (1_500, 20_000)
WARM_UP = 2_000  # malformed requests before memory is looked at first: what is loaded and cached is no growth
WATCHED = 40.0  # seconds
MB = 1_000_000


class Server:
    """A running ``synaptic serve``, and what it wrote to standard error."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        """Wait for its address."""
        self.info = psutil.Process(process.pid)
        self.log = log
        while "serving at " not in (said := log.read_text()):
            if process.poll() is not None:
                raise SystemExit(f"the server did not start: {said}")
            time.sleep(0.05)
        self.address = said.partition("serving at ")[2].split()[0]

    @property
    def megabytes(self) -> float:
        """Memory that it has now."""
        return float(self.info.memory_info().rss / MB)

    @property
    def peak(self) -> float:
        """Megabytes that it had at most, so far."""
        lines = Path(f"/proc/{self.info.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / MB


@contextmanager
def serving(files: int | None = None) -> Iterator[Server]:
    """Run one for a block, with so many file descriptors."""
    command = [sys.executable, "-m", "synaptic", "serve", "--port", "0"]
    with TemporaryDirectory() as folder, (log := Path(folder) / "log").open("w") as written:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=written, text=True)
        if files:
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (files, files))
        try:
            yield Server(process, log)
        finally:
            process.terminate()
            process.wait(30)


async def slow(files: int | None) -> dict[str, Any]:
    """Attack with connections that never finish."""
    with serving(files) as server:
        clients = SlowClients()
        async with OtherClient(server.address, "/api/version", 0.1) as other:
            await clients.attack(server.address, SLOW, WATCHED)
        return {
            "files": files or resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "connections": SLOW,
            "open_after_40_s": clients.open,
            "closed_after_s": round(max(clients.ages), 1),
            "others_asked": len(other.took),
            "others_slowest_ms": round(max(other.took) * 1000),
            "log_lines": len(server.log.read_text().splitlines()),
            "tracebacks": server.log.read_text().count("Traceback"),
        }


async def heavy() -> list[dict[str, Any]]:
    """Send bodies that cost more than they weigh."""
    bodies = {
        "packed, 240 MB": (gzip.compress(b'{"model":"' + b"x" * 240 * MB + b'"}'), b"content-encoding: gzip\r\n"),
        "JSON of 63 MB": (b'{"model":[' + b"[]," * 21 * MB + b"1]}", b""),
        "JSON of 30 MB, wide": (b'{"model":[' + b"[]," * 10 * MB + b"1]}", b""),
        "JSON of 30 MB, one text": (b'{"model":"' + b"\\n" * 15 * MB + b'"}', b""),
        "JSON, deep": (b"[" * MB, b""),
    }
    found = []
    for name, (body, header) in bodies.items():
        with serving() as server:
            before, began = server.megabytes, time.monotonic()
            async with OtherClient(server.address, "/api/version", 0.01) as other:
                status = await exchange(
                    server.address, HEAD + header + b"content-length: %d\r\n\r\n" % len(body) + body
                )
            row = {"body": name, "sent_kb": len(body) // 1000, "status": status}
            row |= {"seconds": round(time.monotonic() - began, 2), "peak_mb_more": round(server.peak - before)}
            found.append(row | {"others_slowest_ms": round(max(other.took) * 1000)})
    return found


async def broken() -> dict[str, Any]:
    """Send requests each of which has something wrong with it."""
    with serving() as server:
        await statuses(server.address, malformed(WARM_UP, seed=1))
        before = server.megabytes
        found = await statuses(server.address, malformed(MALFORMED))
        return {
            "requests": MALFORMED,
            "statuses": {str(status): count for status, count in sorted(found.items(), key=str)},
            "5xx": sum(count for status, count in found.items() if status and status >= 500),
            "growth_mb": round(server.megabytes - before, 1),
            "log_kb": round(server.log.stat().st_size / 1000, 1),
        }


async def main() -> None:
    """Attack in all ways, one after another."""
    report = {"slow": [await slow(None), await slow(256)], "heavy": await heavy(), "malformed": await broken()}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
