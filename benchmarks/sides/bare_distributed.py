"""llama-server and its RPC workers as a person would start them by hand: the floor under benchmarks/distributed.py.

Nothing here is the product's but two things: the command lines of an engine, and children that die with us.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from synaptic.processes.child import ChildProcess

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from synaptic.backends.distributed.engine.engine import Engine

PATIENCE_SECONDS = 300.0
NO_PIPELINE = ("-ot", "ZZZ=CPU")
"""An override that no tensor fits: with any override llama.cpp keeps one copy of its compute buffers, not four."""
PROMPT = "Tell a long story about a lighthouse keeper and the sea."


def free_port() -> int:
    """Return a TCP port of loopback that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass(frozen=True)
class Reply:
    """What one call gave.

    Attributes:
        text: The whole of it.
        tokens: Generated ones.
        decode_rate: Tokens a second while generating, as the server counts them.
        prompt_rate: Tokens a second while reading the prompt.
        seconds: From the call to its end.

    """

    text: str
    tokens: int
    decode_rate: float
    prompt_rate: float
    seconds: float


@dataclass
class Server:
    """A llama-server that is ready.

    Attributes:
        child: Its process.
        url: Where it listens.
        ready_seconds: From its start until it said that it is healthy.

    """

    child: ChildProcess
    url: str
    ready_seconds: float
    client: httpx.AsyncClient = field(repr=False)

    async def complete(self, tokens: int, prompt: str = PROMPT, **options: Any) -> Reply:
        """Generate exactly ``tokens`` tokens, greedily and without the cache of prompts.

        Raises:
            httpx.HTTPError: If the server does not answer, or answers with an error.

        """
        body = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
        began = time.perf_counter()
        response = await self.client.post(f"{self.url}/completion", json={**body, **options})
        response.raise_for_status()
        reply = response.json()
        timings = reply["timings"]
        return Reply(
            reply["content"],
            timings["predicted_n"],
            timings["predicted_per_second"],
            timings["prompt_per_second"],
            time.perf_counter() - began,
        )

    async def agents(self, count: int, tokens: int) -> dict[str, float]:
        """Have ``count`` calls answered at once; return tokens a second, of the whole time and while decoding."""
        began = time.perf_counter()
        prompts = [f"{PROMPT} This is story number {number}." for number in range(count)]
        replies = await asyncio.gather(*(self.complete(tokens, prompt) for prompt in prompts))
        total = sum(reply.tokens for reply in replies)
        return {
            "tokens_per_second": total / (time.perf_counter() - began),
            "decode_per_second": sum(reply.decode_rate for reply in replies),
        }


@asynccontextmanager
async def worker(
    engine: Engine, *, threads: int, port: int | None = None, cache: Path | None = None
) -> AsyncGenerator[tuple[str, ChildProcess]]:
    """Run a worker on loopback; yield ``host:port`` and its process once it listens."""
    port = port or free_port()
    options = ["--host", "127.0.0.1", "--port", str(port), "-t", str(threads), *(["-c"] if cache else [])]
    env = {**os.environ, **({"LLAMA_CACHE": str(cache)} if cache else {})}
    child = await ChildProcess.start(engine.rpc_server(*options), env=env)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not _listens(port):
                if not child.running:
                    raise RuntimeError("\n".join(("the worker ended:", *child.tail)))
                await asyncio.sleep(0.01)
        yield f"127.0.0.1:{port}", child
    finally:
        await child.stop()


@asynccontextmanager
async def workers(
    engine: Engine, count: int, *, threads: int = 1, cache: Path | None = None
) -> AsyncGenerator[list[str]]:
    """Run workers; yield their ``host:port``."""
    async with AsyncExitStack() as stack:
        yield [(await stack.enter_async_context(worker(engine, threads=threads, cache=cache)))[0] for _ in range(count)]


@asynccontextmanager
async def server(
    engine: Engine, model: Path, *, threads: int, endpoints: Sequence[str] = (), flags: Sequence[str] = ()
) -> AsyncGenerator[Server]:
    """Run a server over ``endpoints``, or locally if there are none; yield it once it is ready.

    Raises:
        RuntimeError: If it ends; the last lines of its log are in the message.

    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    where = ["--rpc", ",".join(endpoints), "-ngl", "all"] if endpoints else ["--device", "none"]
    command = ["-m", str(model), "--host", "127.0.0.1", "--port", str(port), "-t", str(threads), "-fit", "off"]
    env = {**os.environ, "GGML_NO_BACKTRACE": "1"}
    began = time.perf_counter()
    child = await ChildProcess.start(engine.llama_server(*command, *where, "--no-webui", *flags), env=env)
    client = httpx.AsyncClient(timeout=PATIENCE_SECONDS, trust_env=False)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await _healthy(client, url):
                if not child.running:
                    raise RuntimeError("\n".join(("the server ended:", *child.tail)))
                await asyncio.sleep(0.01)
        yield Server(child, url, time.perf_counter() - began, client)
    finally:
        await client.aclose()
        await child.stop()


async def _healthy(client: httpx.AsyncClient, url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return (await client.get(f"{url}/health")).is_success
    return False


def _listens(port: int) -> bool:
    """Say whether the system lists ``port`` as listening on loopback; a connection would be taken for a coordinator."""
    wanted = f":{port:04X}"
    with open("/proc/net/tcp", encoding="ascii") as table:  # noqa: PTH123 - no file
        return any(fields[1].endswith(wanted) and fields[3] == "0A" for fields in map(str.split, table))
