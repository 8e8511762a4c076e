"""Construct a pool once, in a process of its own, and say what that took.

``python -m sides.pool_construct ours|sollol|sollol-defaults URL ...``
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from typing import Any

import psutil


async def ours(urls: list[str]) -> dict[str, Any]:
    """Make our pool and its first call."""
    begin = time.perf_counter()
    import synaptic  # noqa: PLC0415 - its time is measured
    import synaptic.backends.pool.backend  # noqa: PLC0415 - imported with the first pool, unless it is before
    import synaptic.backends.pool.from_program  # noqa: PLC0415 - the same

    imported = time.perf_counter()
    pool = synaptic.Pool(urls, model="m")
    constructed = time.perf_counter()
    async with pool:
        what = report(begin, imported, constructed)
        await pool.chat("What is a pool?", max_tokens=4)
        return {**what, "first call ms": round(1e3 * (time.perf_counter() - constructed), 1)}


def sollol(urls: list[str], *, everything: bool) -> dict[str, Any]:
    """Make SOLLOL's pool, as it is by default or with everything switched off that is no pool."""
    begin = time.perf_counter()
    from sollol.pool import OllamaPool  # noqa: PLC0415 - its time is measured

    off = dict.fromkeys(("register_with_dashboard", "enable_dask", "enable_gpu_redis", "enable_cache"), False)
    imported = time.perf_counter()
    pool = OllamaPool(nodes=urls, **({} if everything else off))
    constructed = time.perf_counter()
    what = report(begin, imported, constructed)
    pool.chat("m", [{"role": "user", "content": "What is a pool?"}], options={"num_ctx": 4096, "num_predict": 4})
    return {**what, "first call ms": round(1e3 * (time.perf_counter() - constructed), 1)}


def report(begin: float, imported: float, constructed: float) -> dict[str, Any]:
    """Return the times, and what is there now that was not before."""
    children = psutil.Process().children(recursive=True)
    return {
        "construct ms": round(1e3 * (constructed - imported), 2),
        "import ms": round(1e3 * (imported - begin), 1),
        "both ms": round(1e3 * (constructed - begin), 1),
        "children": len(children),
        "threads": threading.active_count() - 1,
    }


def main(name: str, urls: list[str]) -> None:
    """Print one line of JSON, and end with whatever was started."""
    replies, sys.stdout = sys.stdout, sys.stderr
    os.environ["SOLLOL_REDIS_URL"] = "redis://127.0.0.1:1"
    found = asyncio.run(ours(urls)) if name == "ours" else sollol(urls, everything=name == "sollol-defaults")
    replies.write(json.dumps(found) + "\n")
    replies.flush()
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
