"""Installs a small engine and is killed meanwhile: its arguments are the archive and the number of jobs."""

import asyncio
import signal
import sys
from pathlib import Path

from engine_support import pin

from synaptic.backends.distributed.engine.build import BuildOrder, install


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to it
    archive = Path(sys.argv[1])
    order = BuildOrder(archive=archive, source=pin(archive), jobs=int(sys.argv[2]))
    asyncio.run(install(order))


if __name__ == "__main__":
    main()
