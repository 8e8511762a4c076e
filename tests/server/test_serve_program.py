"""``synaptic serve`` in front of nodes, as a process: how it starts, what systemd hears, how it ends."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
from ollama_nodes import RealNode
from tool_node import MODEL, ToolNode, tool_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "one two three"}]}


@asynccontextmanager
async def served(tmp_path: Path, *arguments: str, **environ: str) -> AsyncIterator[tuple[RealNode, ToolNode]]:
    async with tool_node() as node:
        config = tmp_path / "settings.json"
        config.write_text(json.dumps({"nodes": [{"url": node.url}]}))
        program = ("-P", "-m", "synaptic", "serve")
        gateway = RealNode(["--config", str(config), *arguments], environ, program)
        try:
            await gateway.start()
            yield gateway, node
        finally:
            await gateway.end()


async def test_it_serves_the_nodes_of_the_settings_and_tells_systemd(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        async with served(tmp_path, NOTIFY_SOCKET=str(tmp_path / "notify")) as (gateway, _):
            assert manager.recv(100) == b"READY=1"
            async with aiohttp.ClientSession(gateway.url) as session:
                async with session.get("/api/tags") as reply:
                    names = [model["name"] for model in (await reply.json())["models"]]
                assert names[0] == MODEL
                assert "pipeline/research:latest" in names
                async with session.post("/api/chat", json={**CHAT, "stream": False}) as reply:
                    assert (await reply.json())["message"]["content"] == "one two three"
            gateway.terminate()
            assert await gateway.gone() == 0
            assert manager.recv(100) == b"STOPPING=1"


async def test_the_first_sigterm_lets_a_reply_end_and_refuses_new_ones(tmp_path: Path) -> None:
    async with served(tmp_path) as (gateway, node), aiohttp.ClientSession(gateway.url) as session:
        node.pace = 0.5
        async with session.post("/api/chat", json=CHAT) as reply:
            await reply.content.readline()
            gateway.terminate()
            lines = [json.loads(line) async for line in reply.content]
        assert lines[-1]["done"] is True
        assert await gateway.gone() == 0


async def test_sighup_reads_the_settings_again_and_drops_no_stream(tmp_path: Path) -> None:
    async with served(tmp_path) as (gateway, node), tool_node("other:1b") as other:
        async with aiohttp.ClientSession(gateway.url) as session:
            node.pace = 0.5
            async with session.post("/api/chat", json=CHAT) as reply:
                await reply.content.readline()
                (tmp_path / "settings.json").write_text("{")
                gateway.send(signal.SIGHUP)
                await until(gateway, "the settings stay as they were")
                (tmp_path / "settings.json").write_text(json.dumps({"nodes": [{"url": other.url}]}))
                gateway.send(signal.SIGHUP)
                await until(gateway, "read the settings again")
                lines = [json.loads(line) async for line in reply.content]
            assert lines[-1]["done"] is True
            async with session.get("/api/tags") as reply:
                assert (await reply.json())["models"][0]["name"] == "other:1b"
        gateway.terminate()
        assert await gateway.gone() == 0


async def until(gateway: RealNode, said: str) -> None:
    async with asyncio.timeout(60):
        while not any(said in line for line in gateway.log):
            await asyncio.sleep(0.02)


async def test_the_second_one_ends_it(tmp_path: Path) -> None:
    async with served(tmp_path) as (gateway, node), aiohttp.ClientSession(gateway.url) as session:
        node.pace = 600.0
        async with session.post("/api/chat", json=CHAT) as reply:
            await reply.content.readline()
            gateway.terminate()
            gateway.send(signal.SIGINT)  # two of one kind could reach it as one
            assert await gateway.gone() in {128 + signal.SIGINT, 128 + signal.SIGTERM}


async def test_without_its_node_it_starts_and_says_so(tmp_path: Path) -> None:
    config = tmp_path / "settings.json"
    config.write_text(json.dumps({"nodes": [{"url": "http://127.0.0.1:9"}]}))
    late = RealNode(["--config", str(config)], {}, ("-P", "-m", "synaptic", "serve"))
    try:
        await late.start()
        assert any("calls are refused until then" in line for line in late.log)
        async with aiohttp.ClientSession(late.url) as session, session.get("/readyz") as reply:
            assert reply.status == 503
    finally:
        await late.end()
