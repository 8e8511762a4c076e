"""What Open WebUI, ``ollama run`` and Claude Code send, while one of three node processes is killed under each answer.

The nodes are processes of their own and die by SIGKILL in the middle of a reply: what their clients get is whole all
the same, since another node goes on with the text.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import aiohttp
import anthropic
import ollama
import pytest
from faulty_node_child import ChildNode, child_node
from gateway_support import gateway

from synaptic.server.ollama_api import ServeSettings
from synaptic.settings.load import Settings
from synaptic.settings.model import NodeSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TEXT = " ".join(f"word{number}" for number in range(40))
SAID = 3  # pieces after which the node dies
MODEL = "m:latest"
QUESTION = {"role": "user", "content": "Tell me forty words."}
NODE: dict[str, Any] = {
    "models": {"m": {"capabilities": ["completion", "tools", "embedding"]}},
    "text": TEXT,
    "seconds_per_token": 0.05,
    "turn": "open",
}


class Pool:
    """Three nodes, and what of them is answering."""

    def __init__(self, nodes: list[ChildNode], url: str, session: aiohttp.ClientSession) -> None:
        self.nodes = nodes
        self.url = url
        self.session = session

    async def busy(self) -> ChildNode:
        """Return the node that answers now."""
        async with asyncio.timeout(60):
            while True:
                for node in self.nodes:
                    if (await node.counters())["in_flight"]:
                        return node

    async def kill_the_busy_one(self) -> ChildNode:
        dying = await self.busy()
        dying.kill()
        self.nodes.remove(dying)
        return dying

    async def back(self, node: ChildNode) -> None:
        """Start a node again, and wait until the gateway gives it calls."""
        await node.restart()
        self.nodes.append(node)
        async with asyncio.timeout(60):
            while any(one["condition"] == "down" for one in (await self.got("GET", "/ui/now"))["nodes"]):
                await asyncio.sleep(0.1)

    async def got(self, method: str, path: str, body: Any = None) -> Any:
        async with self.session.request(method, path, json=body) as reply:
            assert reply.status == 200, (path, await reply.text())
            return await reply.json()

    async def streamed(self, path: str, body: Any, **headers: str) -> list[str]:
        """Return the lines of a stream; the node that answers it is killed in its middle."""
        lines: list[str] = []
        dead: ChildNode | None = None
        async with self.session.post(path, json=body, headers=headers) as reply:
            assert reply.status == 200, await reply.text()
            async for raw in reply.content:
                if line := raw.decode().strip():
                    lines.append(line)
                if dead is None and sum("word" in line for line in lines) == SAID:
                    dead = await self.kill_the_busy_one()
        assert dead is not None
        await self.back(dead)
        return lines


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(child_node(**NODE)) for _ in range(3)]
        settings = Settings(nodes=[NodeSettings(url=node.url) for node in nodes], task_distribution_enabled=True)
        url = await stack.enter_async_context(gateway(settings, serve=ServeSettings()))
        yield Pool(nodes, url, await stack.enter_async_context(aiohttp.ClientSession(url)))


def text_of_chat(lines: list[str]) -> str:
    told = [json.loads(line) for line in lines]
    assert told[-1].get("done") is True, told[-1]
    assert told[-1]["done_reason"] == "stop"
    return "".join(line["message"]["content"] for line in told)


async def test_open_webui_over_both_of_its_connections(pool: Pool) -> None:
    for _ in range(2):  # it looks again and again
        assert "version" in await pool.got("GET", "/api/version")
        assert [model["name"] for model in (await pool.got("GET", "/api/tags"))["models"]] == [MODEL]
        assert isinstance((await pool.got("GET", "/api/ps"))["models"], list)
    assert "tools" in (await pool.got("POST", "/api/show", {"name": MODEL}))["capabilities"]
    ask = {"model": MODEL, "messages": [QUESTION], "options": {"temperature": 0.8, "num_ctx": 4096}, "stream": True}
    assert text_of_chat(await pool.streamed("/api/chat", ask)) == TEXT
    title = {**ask, "stream": False, "messages": [QUESTION, {"role": "user", "content": "Title, as JSON"}]}
    assert (await pool.got("POST", "/api/chat", title))["message"]["content"] == TEXT
    found = await pool.got("POST", "/api/embed", {"model": MODEL, "input": ["a", "b"], "truncate": True})
    assert len(found["embeddings"]) == 2
    # The connection to OpenAI's dialect.
    assert [model["id"] for model in (await pool.got("GET", "/v1/models"))["data"]] == [MODEL]
    openai = {"model": MODEL, "messages": [QUESTION], "stream": True, "stream_options": {"include_usage": True}}
    lines = await pool.streamed("/v1/chat/completions", openai)
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks if one["choices"]) == TEXT
    assert [one["choices"][0]["finish_reason"] for one in chunks if one["choices"]][-1] == "stop"
    whole = await pool.got("POST", "/v1/chat/completions", {**openai, "stream": False, "stream_options": None})
    assert whole["choices"][0]["message"]["content"] == TEXT


async def test_ollama_run_over_three_turns(pool: Pool) -> None:
    async with pool.session.head("/") as reply:
        assert reply.status == 200
    assert {"details", "model_info"} <= set(await pool.got("POST", "/api/show", {"model": "m"}))
    loaded = await pool.got("POST", "/api/generate", {"model": "m", "prompt": "", "stream": False})
    assert (loaded["done"], loaded["done_reason"]) == (True, "load")
    turns: list[dict[str, str]] = []
    for _ in range(3):
        turns.append(QUESTION)
        said = text_of_chat(await pool.streamed("/api/chat", {"model": "m", "messages": turns, "options": {}}))
        assert said == TEXT
        turns.append({"role": "assistant", "content": said})


TOOL = {
    "name": "Bash",
    "description": "Run a command",
    "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
    "cache_control": {"type": "ephemeral"},
}
CLAUDE: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": 32000,
    "system": [{"type": "text", "text": "You are a CLI.", "cache_control": {"type": "ephemeral"}}],
    "messages": [{"role": "user", "content": [{"type": "text", "text": QUESTION["content"]}]}],
    "metadata": {"user_id": "user_1"},
    "stream": True,
}
VERSION = {"anthropic-version": "2023-06-01", "anthropic-beta": "claude-code-20250219", "x-api-key": "none"}


def text_of_message(lines: list[str]) -> tuple[str, str]:
    """Return the text of a stream, and the kind of its last event."""
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    said = "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")
    return said, events[-1]["type"]


async def test_claude_code(pool: Pool) -> None:
    async with pool.session.head("/") as reply:
        assert reply.status == 200
    count = {**{name: CLAUDE[name] for name in ("model", "system", "messages")}, "tools": [TOOL]}
    assert (await pool.got("POST", "/v1/messages/count_tokens?beta=true", count))["input_tokens"] > 0
    # What it asks beside the conversation (a title, whether this is a new topic) has no tools.
    told = await pool.streamed("/v1/messages?beta=true", CLAUDE, **VERSION)
    assert text_of_message(told) == (TEXT, "message_stop")
    # The conversation itself has.
    with_tools = {**CLAUDE, "tools": [TOOL]}
    told = await pool.streamed("/v1/messages?beta=true", with_tools, **VERSION)
    assert text_of_message(told) == (TEXT, "message_stop")


async def test_a_node_that_dies_before_its_first_word_costs_a_call_with_tools_nothing(pool: Pool) -> None:
    for node in pool.nodes:
        await node.control(fault={"kind": "hang_before_headers"})
    async with anthropic.AsyncAnthropic(base_url=pool.url, api_key="none", max_retries=0) as client:
        ask = {name: value for name, value in CLAUDE.items() if name != "stream"}
        asking = asyncio.create_task(client.messages.create(**{**ask, "max_tokens": 1000}, tools=[TOOL]))
        dying = await pool.busy()
        for node in pool.nodes:
            if node is not dying:
                await node.control(fault=None)
        dying.kill()
        message = await asking
        assert (message.stop_reason, message.content[0].text) == ("end_turn", TEXT)


async def test_a_pull_and_a_chat_go_on_while_a_node_dies(pool: Pool) -> None:
    """Models are changed at the nodes that live, and calls are served meanwhile."""
    for node in pool.nodes:
        await node.control(config={"library": {"new:1b": [10]}})
    async with ollama.AsyncClient(pool.url) as client:
        ask = {"model": MODEL, "messages": [QUESTION], "stream": True}
        streaming = asyncio.create_task(pool.streamed("/api/chat", ask))
        assert (await client.pull("new:1b")).status == "success"
        assert text_of_chat(await streaming) == TEXT
        assert (await client.chat("new:1b", [QUESTION])).message.content == TEXT
