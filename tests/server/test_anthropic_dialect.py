"""Anthropic's dialect, spoken by Anthropic's own client, over one node, over the pool, and over the embedded engine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import anthropic
import pytest
from gateway_support import embedded_application, gateway
from tool_node import MODEL, ToolNode, tool_node

from synaptic.backends.scripted import Failure, Reply, ScriptedBackend
from synaptic.messages import ToolCall
from synaptic.models import ModelStore
from synaptic.server.limits import listening
from synaptic.server.ollama_api import ServeSettings
from synaptic.settings.load import Settings
from synaptic.settings.model import NodeSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

USER: Any = [{"role": "user", "content": "Paris in spring"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: Any = {"name": "weather", "description": "of a city", "input_schema": SCHEMA}
ASK: dict[str, Any] = {"model": MODEL, "max_tokens": 50, "messages": USER}


HOT = {"temperature": 0.5, "top_k": 3}  # which the client has no arguments for any more


def client_of(url: str) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0)


@pytest.fixture(params=["one node", "the pool"])
async def node(request: pytest.FixtureRequest) -> AsyncIterator[tuple[ToolNode, anthropic.AsyncAnthropic]]:
    async with tool_node() as one:
        settings = Settings(nodes=[NodeSettings(url=one.url)], task_distribution_enabled=request.param == "the pool")
        async with gateway(settings) as url, client_of(url) as client:
            yield one, client


async def test_a_message_is_answered_whole_and_in_events(node: tuple[ToolNode, anthropic.AsyncAnthropic]) -> None:
    one, client = node
    system: Any = [{"type": "text", "text": "short", "cache_control": {"type": "ephemeral"}}]
    whole = await client.messages.create(**ASK, system=system, stop_sequences=["x"], extra_body=HOT)
    assert (whole.role, whole.type, whole.model, whole.stop_reason) == ("assistant", "message", MODEL, "end_turn")
    assert [block.text for block in whole.content if block.type == "text"] == ["Paris in spring"]
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (4, 3)
    assert one.bodies[-1]["messages"][0] == {"role": "system", "content": "short"}
    wanted = {"num_predict": 50, "temperature": 0.5, "top_k": 3, "stop": ["x"]}
    assert {name: one.bodies[-1]["options"][name] for name in wanted} == wanted
    kinds = []
    async for event in await client.messages.create(**ASK, stream=True):
        kinds.append(event.type)
        if event.type == "message_delta":
            assert (event.delta.stop_reason, event.usage.output_tokens) == ("end_turn", 3)
    deltas = ["content_block_delta"] * 3
    assert kinds == [
        "message_start",
        "content_block_start",
        *deltas,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


async def test_thinking_is_a_block_of_its_own_and_closed_before_the_text(
    node: tuple[ToolNode, anthropic.AsyncAnthropic],
) -> None:
    one, client = node
    async with client.messages.stream(**ASK, thinking={"type": "enabled", "budget_tokens": 1024}) as stream:
        order = [(event.type, getattr(event, "index", None)) async for event in stream if "block" in event.type]
        final = await stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text"]
    assert [pair for pair in order if pair[0] != "content_block_delta"] == [
        ("content_block_start", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_stop", 1),
    ]
    assert one.bodies[-1]["think"] is True
    await client.messages.create(**ASK, thinking={"type": "disabled"})
    assert one.bodies[-1]["think"] is False


async def test_a_tool_is_used_and_its_result_comes_back(node: tuple[ToolNode, anthropic.AsyncAnthropic]) -> None:
    one, client = node
    asked = await client.messages.create(**ASK, tools=[TOOL])
    assert asked.stop_reason == "tool_use"
    used: Any = asked.content[0]
    assert (used.type, used.name, used.input) == ("tool_use", "weather", {"city": "Paris in spring"})
    result = {"type": "tool_result", "tool_use_id": used.id, "content": [{"type": "text", "text": "rain"}]}
    turns = [*USER, {"role": "assistant", "content": asked.content}, {"role": "user", "content": [result]}]
    answered: Any = await client.messages.create(**{**ASK, "messages": turns}, tools=[TOOL])
    assert answered.content[0].text == "rain"
    sent = one.bodies[-1]["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
    assert (sent[2]["tool_name"], sent[2]["tool_call_id"]) == ("weather", used.id)
    async with client.messages.stream(**ASK, tools=[TOOL]) as stream:
        final: Any = await stream.get_final_message()
    assert (final.stop_reason, final.content[0].input) == ("tool_use", {"city": "Paris in spring"})


async def test_pictures_arrive_and_tokens_are_counted(node: tuple[ToolNode, anthropic.AsyncAnthropic]) -> None:
    _, client = node
    source = {"type": "base64", "media_type": "image/png", "data": "aGVsbG8="}
    content = [{"type": "text", "text": "?"}, {"type": "image", "source": source}]
    seen: Any = await client.messages.create(**{**ASK, "messages": [{"role": "user", "content": content}]})
    assert seen.content[0].text == "5 bytes"
    assert [model.id async for model in client.models.list()] == [MODEL]
    few = await client.messages.count_tokens(model=MODEL, messages=USER)
    many = await client.messages.count_tokens(model=MODEL, messages=USER, tools=[TOOL], system="be short")
    assert 0 < few.input_tokens < many.input_tokens


async def test_errors_are_those_of_the_client(node: tuple[ToolNode, anthropic.AsyncAnthropic]) -> None:
    one, client = node
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.create(**{**ASK, "model": "nothing:1b"})
    server_tool: Any = {"type": "web_search_20250305", "name": "web_search"}
    for fields in (
        {"max_tokens": 0},
        {"messages": []},
        {"tools": [server_tool]},
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "other"}},
        {"extra_body": {"nonsense": 1}},
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://a"}}]}]},
    ):
        with pytest.raises(anthropic.BadRequestError) as refused:
            await client.messages.create(**{**ASK, **fields})
        body: Any = refused.value.body
        assert body["error"]["type"] == "invalid_request_error"
    count = len(one.bodies)
    with pytest.raises(anthropic.BadRequestError, match="cannot do tool_choice"):
        await client.messages.create(**ASK, tools=[TOOL], tool_choice={"type": "any"})
    assert len(one.bodies) == count


async def test_failures_have_their_status_or_are_an_event() -> None:
    replies = [Failure("busy"), Failure("unavailable"), Failure("server_error"), Failure("truncated", after_tokens=1)]
    ask = {**ASK, "model": "scripted"}
    async with gateway(backend=ScriptedBackend(replies)) as url, client_of(url) as client:
        for status in (429, 529, 502):
            with pytest.raises(anthropic.APIStatusError) as failed:
                await client.messages.create(**ask)
            assert failed.value.status_code == status
        with pytest.raises(anthropic.APIStatusError, match="before its end"):
            [event async for event in await client.messages.create(**ask, stream=True)]
    async with gateway(backend=ScriptedBackend()) as url, aiohttp.request("GET", f"{url}/v1/messages") as reply:
        assert (reply.status, (await reply.json())["type"]) == (405, "error")


async def test_the_choice_of_a_tool_is_passed_on_where_it_can_be() -> None:
    backend = ScriptedBackend([Reply(text="so", tool_calls=(ToolCall("c1", "weather", '{"city": "Rome"}'),))] * 2)
    ask: dict[str, Any] = {**ASK, "model": "scripted", "tools": [TOOL]}
    async with gateway(backend=backend) as url, client_of(url) as client:
        choice: Any = {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}
        async with client.messages.stream(**ask, tool_choice=choice) as stream:
            final: Any = await stream.get_final_message()
        await client.messages.create(**ask, tool_choice={"type": "any"})
    assert [block.type for block in final.content] == ["text", "tool_use"]
    assert final.content[1].input == {"city": "Rome"}
    assert [(one.tool_choice, one.parallel_tools) for one in backend.requests] == [
        ("weather", False),
        ("required", None),
    ]


async def test_a_client_that_goes_away_ends_the_call(node: tuple[ToolNode, anthropic.AsyncAnthropic]) -> None:
    one, client = node
    one.pace = 60.0
    stream = await client.messages.create(**ASK, stream=True)
    await anext(stream)
    assert one.active == 1
    await stream.close()
    await asyncio.wait_for(one.idle.wait(), 30)


@pytest.mark.real_model
async def test_the_embedded_model_answers() -> None:
    app = embedded_application(ServeSettings(threads=2), ModelStore())
    async with listening(app, "127.0.0.1", 0, drain=0.1) as addresses, client_of(addresses[0]) as client:
        ask: dict[str, Any] = {
            "model": "smollm2:135m",
            "messages": USER,
            "max_tokens": 4,
            "extra_body": {"temperature": 0},
        }
        whole: Any = await client.messages.create(**ask)
        assert (whole.stop_reason, whole.usage.output_tokens) == ("max_tokens", 4)
        async with client.messages.stream(**ask) as stream:
            assert await stream.get_final_text() == whole.content[0].text
        counted = await client.messages.count_tokens(model="smollm2:135m", messages=USER)
        assert counted.input_tokens == whole.usage.input_tokens + whole.usage.cache_read_input_tokens
