"""What one call costs on its way over HTTP: our client beside the libraries that it could be, or is, made of.

Four sides read the same Ollama replies from the same nodes, turn by turn in one process: httpx with its own pool,
httpx over the library ``httpx-aiohttp``, ours (:func:`stream_request` and :func:`ndjson`), and bare aiohttp, which is
the floor. Everything is measured with the event loop of asyncio and, where it is installed, with uvloop. The nodes are
child processes that do next to nothing. Prints JSON; ``--quick`` measures less. ``httpx-aiohttp`` and ``uvloop`` are
left out where they are not installed.
Goals: at most 0.6 ms (p50) and 2 ms (p99) over the floor, one call at a time; at least 850 calls/s, 64 at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from contextlib import AsyncExitStack, ExitStack, aclosing, contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

NODES = 4
CONCURRENT = 64
BUSY_SECONDS = 0.05
PROMPT = {"model": "tiny", "messages": [{"role": "user", "content": "x" * 2000}], "stream": True}
LINES = (1, 32)

Ask: TypeAlias = "Callable[[str, str], Awaitable[int]]"
"""Sends one call to a node's address and a path, and returns the number of lines that came back."""


# The node: a child process.


class Node(asyncio.Protocol):
    """Answers ``POST /<lines>/<seconds>`` after so many seconds with so many lines, each a packet of its own."""

    def __init__(self) -> None:
        """Wait for a request."""
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer once the whole request is there; clients do not send the next one before."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0)
        if len(body) < size:
            return
        self._received = b""
        lines, seconds = head.split(b" ", 2)[1].strip(b"/").split(b"/")
        reply = PACKETS[int(lines)]
        if float(seconds):
            asyncio.get_running_loop().call_later(float(seconds), self._answer, reply)
        else:
            self._answer(reply)

    def _answer(self, packets: list[bytes]) -> None:
        for packet in packets:
            self._transport.write(packet)


def packets(lines: int) -> list[bytes]:
    """Return a reply of Ollama's ``/api/chat``: the headers with the first line, then one line a packet."""
    tokens = [{"model": "tiny", "message": {"role": "assistant", "content": " word"}, "done": False}] * (lines - 1)
    values = [*tokens, {"model": "tiny", "message": {"role": "assistant", "content": ""}, "done": True}]
    bodies = [json.dumps(value).encode() + b"\n" for value in values]
    chunks = [f"{len(body):x}\r\n".encode() + body + b"\r\n" for body in bodies]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
    return [head + chunks[0], *chunks[1:-1], *([chunks[-1] + b"0\r\n\r\n"] if lines > 1 else [b"0\r\n\r\n"])]


PACKETS = {lines: packets(lines) for lines in LINES}


async def serve() -> None:
    """Serve until standard input, which the parent holds, is closed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Node, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


@contextmanager
def node() -> Iterator[str]:
    """Give the address of a node in a process of its own."""
    command = [sys.executable, __file__, "node"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()


# The sides.


async def ours(stack: AsyncExitStack, urls: list[str]) -> Ask:
    """Our client, as the backends use it: one for each node."""
    from synaptic.backends.http import Origin  # noqa: PLC0415  (a side imports its own)
    from synaptic.backends.http.client import ndjson, new_client, stream_request  # noqa: PLC0415  (a side imports its own)

    clients = {url: await stack.enter_async_context(new_client(url)) for url in urls}

    async def ask(url: str, path: str) -> int:
        count = 0
        call = stream_request(clients[url], "POST", path, json=PROMPT, origin=Origin("ollama", url))
        async with call as reply, aclosing(ndjson(reply, origin=Origin("ollama", url))) as values:
            async for _ in values:
                count += 1
        return count

    return ask


async def bare_aiohttp(stack: AsyncExitStack, _: list[str]) -> Ask:
    """Use aiohttp as its manual says: one session for all."""
    import aiohttp  # noqa: PLC0415  (as above)

    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector, timeout=timeout))

    async def ask(url: str, path: str) -> int:
        count = 0
        async with session.post(url + path, json=PROMPT) as reply:
            async for line in reply.content:
                json.loads(line)
                count += 1
        return count

    return ask


async def httpx_alone(stack: AsyncExitStack, urls: list[str]) -> Ask:
    """Use httpx over httpcore, one client for all nodes."""
    import httpx  # noqa: PLC0415  (as above)

    return await _httpx(stack, urls, httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=None)))


async def httpx_aiohttp(stack: AsyncExitStack, urls: list[str]) -> Ask:
    """Use httpx over the library ``httpx-aiohttp``."""
    import httpx_aiohttp as library  # noqa: PLC0415  (as above)

    return await _httpx(stack, urls, library.AiohttpTransport())


async def _httpx(stack: AsyncExitStack, _: list[str], transport: Any) -> Ask:
    import httpx  # noqa: PLC0415  (as above)

    client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, timeout=None))

    async def ask(url: str, path: str) -> int:
        count = 0
        async with client.stream("POST", url + path, json=PROMPT) as reply:
            async for line in reply.aiter_lines():
                json.loads(line)
                count += 1
        return count

    return ask


SIDES = {"aiohttp": bare_aiohttp, "ours": ours, "httpx_aiohttp": httpx_aiohttp, "httpx": httpx_alone}
if find_spec("httpx_aiohttp") is None:
    del SIDES["httpx_aiohttp"]


# The measurements.


async def one_at_a_time(ask: Ask, url: str, path: str, calls: int) -> list[float]:
    """Return the milliseconds of each of so many calls, one after the other."""
    spent = []
    for _ in range(calls):
        started = time.perf_counter()
        await ask(url, path)
        spent.append((time.perf_counter() - started) * 1000)
    return spent


async def many_at_once(ask: Ask, urls: list[str], path: str, calls: int) -> tuple[float, float]:
    """Return the seconds that so many calls take when 64 are always under way, and those of the processor."""
    turns = iter(range(calls))

    async def caller() -> None:
        for turn in turns:
            await ask(urls[turn % len(urls)], path)

    started, busy = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENT):
            group.create_task(caller())
    return time.perf_counter() - started, time.process_time() - busy


async def measure(urls: list[str], lines: int, *, quick: bool) -> dict[str, dict[str, float]]:
    """Return the figures of every side, for replies of so many lines."""
    rounds, single, many = (2, 100, 400) if quick else (5, 200, 960)
    slow, fast = f"/{lines}/{BUSY_SECONDS}", f"/{lines}/0"
    alone: dict[str, list[float]] = {name: [] for name in SIDES}
    loads: dict[str, list[tuple[float, float]]] = {name: [] for name in SIDES}
    async with AsyncExitStack() as stack:
        asks = {name: await make(stack, urls) for name, make in SIDES.items()}
        names = list(SIDES)
        for name in names:  # connections and imports are not what is measured
            await many_at_once(asks[name], urls, slow, CONCURRENT * 2)
        for turn in range(rounds):
            order = names[turn % len(names) :] + names[: turn % len(names)]
            for name in order:
                alone[name] += await one_at_a_time(asks[name], urls[0], fast, single)
            for name in order:
                # The one that is slower by far is asked for less, so as to take as long.
                count = many // 4 if name == "httpx" else many
                wall, busy = await many_at_once(asks[name], urls, slow, count)
                loads[name].append((count / wall, busy / count * 1000))
    return {name: figures(alone[name], loads[name], alone["aiohttp"]) for name in SIDES}


def figures(alone: list[float], loads: list[tuple[float, float]], floor: list[float]) -> dict[str, float]:
    """Return what is reported of one side."""
    p50, p99 = quantile(alone, 50), quantile(alone, 99)
    return {
        "p50_ms": p50,
        "p99_ms": p99,
        "p50_over_aiohttp_ms": round(p50 - quantile(floor, 50), 3),
        "p99_over_aiohttp_ms": round(p99 - quantile(floor, 99), 3),
        "calls_per_second": round(statistics.median(rate for rate, _ in loads), 0),
        "cpu_ms_per_call": round(statistics.median(busy for _, busy in loads), 3),
    }


def quantile(values: list[float], percent: int) -> float:
    """Return a percentile."""
    return round(statistics.quantiles(values, n=100)[percent - 1], 3)


def loops() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return the event loops that are installed."""
    found: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    try:
        import uvloop  # noqa: PLC0415  (optional)
    except ImportError:
        return found
    return {**found, "uvloop": uvloop.new_event_loop}


def versions() -> dict[str, str]:
    """Return the versions of what is compared."""
    found = {"python": platform.python_version()}
    for name in ("aiohttp", "httpx", "httpcore", "httpx-aiohttp", "uvloop"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def main() -> None:
    """Measure and print."""
    quick = "--quick" in sys.argv
    report: dict[str, Any] = {"cpus": os.cpu_count(), "versions": versions(), "concurrent": CONCURRENT, "nodes": NODES}
    with ExitStack() as stack:
        urls = [stack.enter_context(node()) for _ in range(NODES)]
        for name, factory in loops().items():
            with asyncio.Runner(loop_factory=factory) as runner:
                report[name] = {f"{lines}_lines": runner.run(measure(urls, lines, quick=quick)) for lines in LINES}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    if sys.argv[1:] == ["node"]:
        asyncio.run(serve())
    else:
        main()
