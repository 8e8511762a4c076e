"""What the tests of managed workers share: workers that are ended, a bare llama-server over them, a counting proxy."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from engine_support import real_files
from rpc_support import free_port

from synaptic.backends.distributed.engine.engine import Engine
from synaptic.backends.distributed.engine.store import look_at
from synaptic.backends.distributed.workers.managed import ManagedWorker
from synaptic.backends.distributed.workers.protocol import Endpoint
from synaptic.processes.child import ChildProcess

PATIENCE = 60.0
PROMPT = "The three primary colours are"


@asynccontextmanager
async def managed(engine: Engine, **options: object) -> AsyncIterator[ManagedWorker]:
    """A worker, started; nothing of it is left after."""
    before = {child.pid for child in psutil.Process().children()}
    worker = ManagedWorker(
        engine,
        **{"threads": 1, "memory_bytes": None, "cache_dir": None, "name": "test", **options},  # type: ignore[arg-type]  # as given
    )
    try:
        await worker.start()
        yield worker
    finally:
        await worker.stop()
        assert {child.pid for child in psutil.Process().children()} <= before


async def within(work, seconds: float = PATIENCE):
    async with asyncio.timeout(seconds):
        return await work


async def until(condition) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.02)


async def greedy_text(engine: Engine, model: Path, endpoint: Endpoint, tokens: int = 12) -> str:
    """What llama-server says to PROMPT with all layers on one worker; it is started for that, and ended."""
    port = free_port()
    command = engine.llama_server(
        *("-m", str(model), "--rpc", str(endpoint), "-ngl", "99", "-fit", "off", "-lm", "none", "--no-warmup"),
        *("--host", "127.0.0.1", "--port", str(port), "-c", "256", "-np", "1", "-t", "1", "--cache-ram", "0"),
    )
    child = await ChildProcess.start(command)
    try:
        async with asyncio.timeout(PATIENCE):
            while not await asyncio.to_thread(_healthy, port):
                assert child.running, child.tail
                await asyncio.sleep(0.05)
        return await asyncio.to_thread(_complete, port, tokens)
    finally:
        await child.stop()


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=PATIENCE):
            return True
    except OSError:
        return False


def _complete(port: int, tokens: int) -> str:
    asked = {"prompt": PROMPT, "n_predict": tokens, "temperature": 0, "seed": 1, "cache_prompt": False}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/completion", json.dumps(asked).encode())
    with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
        return json.load(reply)["content"]


@dataclass
class Counter:
    """A proxy in front of a worker, and how many bytes went to it."""

    endpoint: Endpoint
    sent: int = 0


@asynccontextmanager
async def counting(worker: Endpoint) -> AsyncIterator[Counter]:
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, count: bool) -> None:
        try:
            while data := await reader.read(1 << 20):
                counter.sent += len(data) if count else 0
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*worker)
        for task in (
            asyncio.create_task(pump(reader, back, count=True)),
            asyncio.create_task(pump(there, writer, count=False)),
        ):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    counter = Counter(Endpoint("127.0.0.1", server.sockets[0].getsockname()[1]))
    try:
        yield counter
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


_known: list[Engine] = []


@pytest.fixture(name="engine")
async def installed_engine() -> Engine:
    """The installed engine; the test is skipped where there is none. It is examined once."""
    files = real_files()
    if not _known:
        _known.append(await look_at(files, "built", afresh=True))
    return _known[0]
