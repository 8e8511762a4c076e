"""Installs a small engine and prints its progress, a JSON array a line: its arguments are the archive and the jobs."""

import asyncio
import json
import signal
import sys
from pathlib import Path

from engine_support import pin

from synaptic.backends.distributed.engine.build import BuildOrder, install
from synaptic.backends.distributed.engine.progress import EngineProgress


def write_line(*values: object) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def tell(progress: EngineProgress) -> None:
    write_line(progress.stage, progress.process)


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to it
    archive = Path(sys.argv[1])
    order = BuildOrder(archive=archive, source=pin(archive), jobs=int(sys.argv[2]))
    done = asyncio.run(install(order, tell))
    write_line("done", done.was_there, done.waited)


if __name__ == "__main__":
    main()
