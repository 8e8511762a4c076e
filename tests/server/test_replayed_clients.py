"""What Open WebUI, ``ollama run`` and Claude Code send, in their order, over three nodes of which one dies."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
from gateway_support import gateway
from tool_node import MODEL, ToolNode, tool_node

from synaptic.server.ollama_api import ServeSettings
from synaptic.settings.load import Settings
from synaptic.settings.model import NodeSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

QUESTION = "one two three four five six"


class Nodes:
    """Three nodes; any of them can be ended while the others stay."""

    def __init__(self) -> None:
        self.nodes: list[ToolNode] = []
        self._ends: list[AsyncExitStack] = []

    async def start(self) -> None:
        for _ in range(3):
            stack = AsyncExitStack()
            self.nodes.append(await stack.enter_async_context(tool_node()))
            self._ends.append(stack)

    async def kill(self, node: ToolNode) -> None:
        await self._ends[self.nodes.index(node)].aclose()

    async def aclose(self) -> None:
        for stack in self._ends:
            await stack.aclose()

    async def busy(self) -> ToolNode:
        async with asyncio.timeout(30):
            while not (found := [node for node in self.nodes if node.active]):
                await asyncio.sleep(0.01)
        return found[0]


@asynccontextmanager
async def three() -> AsyncIterator[tuple[Nodes, aiohttp.ClientSession]]:
    nodes = Nodes()
    await nodes.start()
    try:
        chosen = [NodeSettings(url=node.url) for node in nodes.nodes]
        serve = ServeSettings(pipelines={"answer": "answer"})
        settings = Settings(nodes=chosen, task_distribution_enabled=True)
        async with gateway(settings, serve=serve) as url, aiohttp.ClientSession(url) as session:
            yield nodes, session
    finally:
        await nodes.aclose()


async def got(session: aiohttp.ClientSession, method: str, path: str, body: Any = None) -> Any:
    async with session.request(method, path, json=body) as reply:
        assert reply.status == 200, (path, await reply.text())
        return await reply.json() if reply.content_type == "application/json" else await reply.text()


async def lines_of(reply: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    return [json.loads(line) async for line in reply.content]


async def test_open_webui() -> None:
    async with three() as (nodes, session):
        assert "version" in await got(session, "GET", "/api/version")
        tags = await got(session, "GET", "/api/tags")
        assert [model["name"] for model in tags["models"]] == [MODEL, "pipeline/answer:latest"]
        assert all({"name", "model", "modified_at", "size", "digest", "details"} <= set(tag) for tag in tags["models"])
        assert [model["name"] for model in (await got(session, "GET", "/api/ps"))["models"]] == [MODEL]
        assert "tools" in (await got(session, "POST", "/api/show", {"model": MODEL}))["capabilities"]
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": QUESTION}],
            "options": {},
            "stream": True,
            "tools": None,
        }
        for node in nodes.nodes:
            node.pace = 0.2
        async with session.post("/api/chat", json=body) as reply:
            first = json.loads(await reply.content.readline())
            await nodes.kill(await nodes.busy())
            rest = await lines_of(reply)
        # What a node says anew from the beginning cannot be taken back: then the stream says that it broke.
        text = "".join(line["message"]["content"] for line in [first, *rest] if "message" in line)
        assert text == QUESTION or "error" in rest[-1]
        assert rest[-1].get("done") is True or "error" in rest[-1]
        title = {**body, "stream": False, "messages": [{"role": "user", "content": "A title"}]}
        assert (await got(session, "POST", "/api/chat", title))["message"]["content"] == "A title"
        assert (await got(session, "POST", "/api/embed", {"model": MODEL, "input": ["a"]}))["embeddings"] == [
            [1, 0, 0, 0]
        ]


async def test_ollama_run() -> None:
    async with three() as (nodes, session):
        async with session.head("/") as reply:
            assert reply.status == 200
        shown = await got(session, "POST", "/api/show", {"model": MODEL})
        assert {"details", "model_info", "capabilities"} <= set(shown)
        loaded = await got(session, "POST", "/api/generate", {"model": MODEL, "prompt": ""})
        assert (loaded["done"], loaded["done_reason"]) == (True, "load")
        await nodes.kill(nodes.nodes[0])
        turns: list[dict[str, Any]] = [{"role": "user", "content": QUESTION}]
        for _ in range(4):
            async with session.post("/api/chat", json={"model": MODEL, "messages": turns}) as reply:
                lines = await lines_of(reply)
            assert lines[-1]["done"] is True
            said = "".join(line["message"]["content"] for line in lines)
            assert said == QUESTION
            turns += [{"role": "assistant", "content": said}, {"role": "user", "content": QUESTION}]


async def test_claude_code() -> None:
    tool = {
        "name": "Bash",
        "description": "Run a command",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
        "cache_control": {"type": "ephemeral"},
    }
    ask: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 32000,
        "system": [{"type": "text", "text": "You are a CLI.", "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}],
        "tools": [tool],
        "metadata": {"user_id": "user_1"},
        "thinking": {"type": "enabled", "budget_tokens": 31999},
        "context_management": {"edits": []},
        "stream": True,
    }
    async with three() as (nodes, session):
        async with session.head("/") as reply:
            assert reply.status == 200
        count = {name: ask[name] for name in ("model", "system", "messages", "tools")}
        assert (await got(session, "POST", "/v1/messages/count_tokens?beta=true", count))["input_tokens"] > 0
        await nodes.kill(nodes.nodes[1])
        for round_ in range(3):
            async with session.post("/v1/messages?beta=true", json=ask) as reply:
                assert reply.status == 200, await reply.text()
                events = [
                    json.loads(line[6:]) for line in (await reply.text()).splitlines() if line.startswith("data: ")
                ]
            kinds = [event["type"] for event in events]
            assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
            used = next(event["content_block"] for event in events if "tool_use" in str(event.get("content_block")))
            assert used["name"] == "Bash"
            blocks = [{"type": "thinking", "thinking": "hm", "signature": ""}, {**used, "input": {"city": "x"}}]
            result = {"type": "tool_result", "tool_use_id": used["id"], "content": f"done {round_}", "is_error": False}
            ask["messages"] += [
                {"role": "assistant", "content": blocks},
                {"role": "user", "content": [result, {"type": "text", "text": "go on"}]},
            ]
