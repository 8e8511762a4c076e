"""The process of one side of benchmarks/pool.py: a line of JSON in, a line of JSON out, the event loop alive between.

``python -m sides.pool_worker MODULE`` says hello with its versions. Requests: ``{"do": "open", "nodes": [...], ...}``
(once, or again for a new pool), ``{"do": "lanes" | "arrivals", ...}`` (see ``pool_load``), ``{"do": "picker", ...}``.
A request that comes while another one runs is served beside it. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import platform
import sys
from contextlib import AsyncExitStack
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from sides import pool_load

if TYPE_CHECKING:
    from typing import TextIO


async def serve(side: Any, replies: TextIO) -> None:
    """Answer the requests."""
    async with AsyncExitStack() as stack:
        caller: Any = None
        while line := await asyncio.to_thread(sys.stdin.readline):
            request = json.loads(line)
            what = request.pop("do")
            gc.collect()
            answer: Any = None
            if what == "open":
                await stack.aclose()
                caller = await stack.enter_async_context(side.opened(**request))
            elif what == "picker":
                answer = side.picker(**request)
            else:
                answer = await getattr(pool_load, what)(caller, **request)
            replies.write(json.dumps(answer) + "\n")
            replies.flush()


def main(name: str) -> None:
    """Serve until standard input ends."""
    replies, sys.stdout = sys.stdout, sys.stderr  # what a library prints must not come between the replies
    os.environ["SOLLOL_REDIS_URL"] = "redis://127.0.0.1:1"
    logging.disable(logging.CRITICAL)
    side = import_module(f"sides.pool_{name}")
    hello = {"python": platform.python_version(), **{package: version(package) for package in side.PACKAGES}}
    replies.write(json.dumps(hello) + "\n")
    replies.flush()
    asyncio.run(serve(side, replies))
    os._exit(0)  # threads of a side that never end must not keep the process


if __name__ == "__main__":
    main(sys.argv[1])
