"""SOLLOL's ``OllamaPool``, as its documentation has it, with everything switched off that is no pool.

Nodes are given, so that nothing is discovered; ``register_with_dashboard``, ``enable_dask``, ``enable_ray`` and
``enable_gpu_redis`` are false. Two of its parts look for Redis all the same, at ``SOLLOL_REDIS_URL``: that points to
a port where nothing listens (the worker sets it), so they go without. Its cache of replies is off, since a cache would
be measured instead of the pool. Its own logging stays as it is by default (warnings); what it says about failed calls
goes to standard error, which the worker drops.

``chat`` blocks and is driven by threads, ``chat_async`` by tasks. ``httpx[http2]`` must be added to what it declares:
its constructor asks for HTTP/2 and fails without ``h2``.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sollol.pool import OllamaPool
from sollol.routing_strategy import RoutingStrategy

from sides.pool_load import laps_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

PACKAGES = ("sollol", "httpx")


class Blocking:
    """Calls ``OllamaPool.chat``."""

    blocking = True

    def __init__(self, pool: OllamaPool) -> None:
        self._pool = pool

    def call(self, prompt: str, tokens: int) -> str:
        """Return the answer's text."""
        return text_of(self._pool.chat("m", messages_of(prompt), options=options_of(tokens)))


class Asynchronous:
    """Calls ``OllamaPool.chat_async``."""

    blocking = False

    def __init__(self, pool: OllamaPool) -> None:
        self._pool = pool

    async def call(self, prompt: str, tokens: int) -> str:
        """Return the answer's text."""
        return text_of(await self._pool.chat_async("m", messages_of(prompt), options=options_of(tokens)))


def new_pool(nodes: list[dict[str, Any]], strategy: str = "intelligent") -> OllamaPool:
    """Return a pool over ``nodes``."""
    return OllamaPool(
        nodes=[node["url"] for node in nodes],
        routing_strategy=RoutingStrategy(strategy),
        register_with_dashboard=False,
        enable_ray=False,
        enable_dask=False,
        enable_gpu_redis=False,
        enable_cache=False,
    )


@asynccontextmanager
async def opened(
    nodes: list[dict[str, Any]], *, strategy: str = "intelligent", asynchronous: bool = False
) -> AsyncGenerator[Blocking | Asynchronous]:
    """Give a pool over ``nodes`` (``url``; it has no notion of a node's places)."""
    pool = await asyncio.to_thread(new_pool, nodes, strategy)
    yield Asynchronous(pool) if asynchronous else Blocking(pool)
    pool.session.close()  # its stop() waits up to ten seconds for threads that sleep; they are daemons
    await pool.async_session.aclose()


def picker(nodes: int, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of a choice among so many nodes, in the fastest way it offers from outside, by repeat."""
    pool = new_pool([{"url": "http://127.0.0.1:1"}])
    performance = pool.stats["node_performance"]
    [known] = performance.values()
    performance.clear()
    pool.nodes = [{"host": f"10.0.{number >> 8}.{number & 255}", "port": "11434"} for number in range(nodes)]
    for node in pool.nodes:
        key = f"{node['host']}:{node['port']}"
        performance[key] = {**known, "host": key}
    payload = {"model": "m", "messages": messages_of("What is a pool?"), "stream": False}

    def choose() -> None:
        pool._select_node(payload=payload, priority=5)  # noqa: SLF001 - it offers no other way to ask for a choice

    return {"choice": laps_of(choose, repeats)}


def messages_of(prompt: str) -> list[dict[str, str]]:
    """Return a conversation."""
    return [{"role": "user", "content": prompt}]


def options_of(tokens: int) -> dict[str, int]:
    """Return the options of a call; the context is what the nodes have the model loaded with."""
    return {"num_ctx": 4096, "num_predict": tokens}


def text_of(reply: dict[str, Any]) -> str:
    """Return a reply's text."""
    text: str = reply["message"]["content"]
    return text
