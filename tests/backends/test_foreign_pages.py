"""Every port that an engine of ours opens, asked as a web page of another origin asks: it reads and uses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from typing import TYPE_CHECKING

import aiohttp
import pytest
from engine_support import real_files

from synaptic.backends.distributed.coordinator.llama_process import LlamaProcess
from synaptic.backends.distributed.engine.store import look_at
from synaptic.backends.distributed.workers.managed import ManagedWorker
from synaptic.backends.embedded import Parameters, launch
from synaptic.messages import ignore_report
from synaptic.models.download import ModelStore
from synaptic.processes.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real_model

EVIL = "https://evil.example"
OPEN_PATHS = {"/health": 200, "/v1/health": 200, "/": 404}
LOCKED_PATHS = ("/v1/models", "/props", "/slots", "/completion", "/v1/chat/completions", "/tokenize", "/api/tags")


async def check_http(url: str) -> None:
    """Ask as a page does: with its origin, and under a name that it has pointed here."""
    async with aiohttp.ClientSession(url) as session:
        for path in (*OPEN_PATHS, *LOCKED_PATHS):
            for method in ("GET", "POST", "OPTIONS"):
                headers = {"origin": EVIL, "host": "evil.example", "access-control-request-method": "POST"}
                async with session.request(method, path, headers=headers) as reply:
                    text = await reply.text()
                    assert reply.headers.get("access-control-allow-origin", "") == "", (method, path)
                    assert reply.headers.get("access-control-allow-credentials") != "true"
                    if method == "GET":
                        assert reply.status == OPEN_PATHS.get(path, 401), path
                        assert "smollm" not in text.lower()
                    assert reply.status != 200 or path in OPEN_PATHS or text == "", (method, path)


async def test_the_coordinator_shows_no_page_anything_and_a_worker_speaks_no_http(tmp_path: Path) -> None:
    engine = await look_at(real_files(), "built")
    model = await ModelStore().ensure(ignore_report)
    arguments = ["--model", str(model), "--ctx-size", "256", "--parallel", "1", "--threads", "1", "--no-webui"]
    worker = ManagedWorker(engine, threads=1, memory_bytes=None, cache_dir=None, name="w")
    process = await LlamaProcess.start(engine, arguments, port=free_port(), log_file=tmp_path / "log")
    try:
        await worker.start()
        await process.loaded(lambda _: None, stall=60)
        assert await process.client.health()
        await check_http(process.url)
        reader, writer = await asyncio.open_connection(worker.endpoint.host, worker.endpoint.port)
        writer.write(f"GET / HTTP/1.1\r\nHost: evil.example\r\nOrigin: {EVIL}\r\n\r\n".encode())
        async with asyncio.timeout(60):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
    finally:
        await process.stop()
        await worker.stop()


async def test_the_embedded_engine_shows_no_page_anything() -> None:
    parameters = Parameters(
        parent=os.getpid(),
        model=str(await ModelStore().ensure(ignore_report)),
        alias="smollm2:135m",
        api_key=secrets.token_urlsafe(24),
        slots=1,
        slot_context=256,
        threads=1,
    )
    child, url = await launch(parameters)
    try:
        await check_http(url)
    finally:
        await child.stop()
