"""Starts managed workers, says which processes they are, and then waits to be killed: its arguments are
the engine's directory and how many."""

import asyncio
import sys
from pathlib import Path

from synaptic import paths
from synaptic.backends.distributed.engine.engine import locate
from synaptic.backends.distributed.engine.store import look_at
from synaptic.backends.distributed.workers.managed import ManagedWorker


async def main() -> None:
    engine = await look_at(locate(Path(sys.argv[1])), "adopted")
    workers = [
        ManagedWorker(engine, threads=1, memory_bytes=None, cache_dir=paths.tensor_cache_dir(), name=f"driven-{number}")
        for number in range(int(sys.argv[2]))
    ]
    await asyncio.gather(*(worker.start() for worker in workers))
    sys.stdout.write(" ".join(str(worker.pid) for worker in workers) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
