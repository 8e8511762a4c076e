"""Ollama's dialect in front of other backends, spoken by Ollama's own client: what it asks arrives at the node."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import ollama
import pytest
from fault_server import FaultServer, json_reply
from gateway_support import gateway
from tool_node import MODEL, ToolNode, tool_node

from synaptic.backends import gathered
from synaptic.backends.llama_server import LlamaServerBackend
from synaptic.backends.scripted import Failure, Reply, ScriptedBackend
from synaptic.errors import StreamFailed, StreamTruncated
from synaptic.messages import (
    ChatRequest,
    Chunk,
    Delta,
    Finished,
    Restarted,
    ThoughtSoFar,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from synaptic.server.gateway.live_reply import live, merged
from synaptic.settings.load import Settings
from synaptic.settings.model import NodeSettings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

USER = [{"role": "user", "content": "Paris in spring"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture(params=["one node", "the pool"])
async def node(request: pytest.FixtureRequest) -> AsyncIterator[tuple[ToolNode, ollama.AsyncClient]]:
    async with tool_node() as one:
        settings = Settings(nodes=[NodeSettings(url=one.url)], task_distribution_enabled=request.param == "the pool")
        async with gateway(settings) as url, ollama.AsyncClient(url) as client:
            yield one, client


async def test_a_chat_streams_and_counts(node: tuple[ToolNode, ollama.AsyncClient]) -> None:
    _, client = node
    parts = [part async for part in await client.chat(MODEL, USER, stream=True)]
    assert "".join(part.message.content or "" for part in parts) == "Paris in spring"
    assert (parts[-1].done, parts[-1].done_reason, parts[-1].eval_count) == (True, "stop", 3)
    assert not any(part.done for part in parts[:-1])
    whole = await client.chat(MODEL, USER)
    assert whole.message.content == "Paris in spring"
    assert whole.prompt_eval_count == 3


async def test_a_tool_is_called_and_its_result_comes_back(node: tuple[ToolNode, ollama.AsyncClient]) -> None:
    one, client = node
    asked = await client.chat(MODEL, USER, tools=[TOOL])
    assert asked.message.tool_calls is not None
    call = asked.message.tool_calls[0].function
    assert (call.name, call.arguments) == ("weather", {"city": "Paris in spring"})
    turns = [*USER, asked.message, {"role": "tool", "content": "rain", "tool_name": "weather"}]
    answered = await client.chat(MODEL, turns, tools=[TOOL], stream=False)
    assert answered.message.content == "rain"
    sent = one.bodies[-1]["messages"]
    assert sent[1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Paris in spring"}}
    assert (sent[2]["role"], sent[2]["tool_name"]) == ("tool", "weather")


async def test_pictures_thinking_shape_and_options_arrive(node: tuple[ToolNode, ollama.AsyncClient]) -> None:
    one, client = node
    seen = await client.chat(MODEL, [{"role": "user", "content": "?", "images": [b"\x89PNG..."]}], think="high")
    assert (seen.message.content, seen.message.thinking) == ("7 bytes", "hm")
    assert one.bodies[-1]["think"] == "high"
    shape = {"type": "object", "properties": {"city": {"type": "string"}}}
    options = {"top_k": 3, "stop": ["x"], "typical_p": 0.5, "num_predict": 9, "repeat_penalty": 1.3, "num_ctx": 4096}
    shaped = await client.chat(MODEL, USER, format=shape, options=options, keep_alive="7m")
    assert json.loads(shaped.message.content or "") == {"city": "Paris in spring"}
    body = one.bodies[-1]
    assert body["format"] == shape
    assert body["keep_alive"] == "7m"
    assert body["truncate"] is True
    assert {name: body["options"].get(name) for name in options} == options
    generated = await client.generate(MODEL, "Paris", system="short", logprobs=True, top_logprobs=1)
    assert generated.response == "Paris"
    assert generated.logprobs is not None
    assert generated.logprobs[0].token == "Paris"
    assert [message["role"] for message in one.bodies[-1]["messages"]] == ["system", "user"]


async def test_models_are_listed_shown_and_embedded(node: tuple[ToolNode, ollama.AsyncClient]) -> None:
    _, client = node
    assert [model.model for model in (await client.list()).models] == [MODEL]
    assert [model.model for model in (await client.ps()).models] == [MODEL]
    shown = await client.show(MODEL)
    assert shown.capabilities == ["completion", "tools", "vision", "thinking"]
    with pytest.raises(ollama.ResponseError, match="delete"):
        await client.delete(MODEL)
    found = await client.embed(MODEL, ["a", "bbb"])
    assert [vector[0] for vector in found.embeddings] == [1.0, 3.0]
    with pytest.raises(ollama.ResponseError, match="not found") as caught:
        await client.chat("nothing:1b", USER)
    assert caught.value.status_code == 404


async def test_a_client_that_goes_away_ends_the_call_at_the_node(node: tuple[ToolNode, ollama.AsyncClient]) -> None:
    one, client = node
    one.pace = 60.0
    stream = await client.chat(MODEL, USER, stream=True)
    assert (await anext(stream)).message.content == "Paris"
    assert one.active == 1
    await stream.aclose()
    await asyncio.wait_for(one.idle.wait(), 30)


async def test_a_backend_that_shows_no_models_itself_has_them_described() -> None:
    backend = ScriptedBackend(context=4096)
    async with gateway(backend=backend) as url, ollama.AsyncClient(url) as client:
        shown = await client.show("scripted")
        assert shown.modelfile == "FROM scripted\n"
        assert shown.capabilities is not None
        assert "completion" in shown.capabilities
        assert shown.modelinfo is not None
        assert shown.modelinfo["general.architecture"] == "model"
        with pytest.raises(ollama.ResponseError, match="not found") as caught:
            await client.show("nothing")
        assert caught.value.status_code == 404


async def test_a_described_model_has_the_context_of_its_server() -> None:
    listing = {"data": [{"id": "tiny", "meta": {"n_ctx": 4096, "n_params": 134515008, "ftype": "Q4_1"}}]}
    async with FaultServer({"/v1/models": json_reply(listing)}) as server:
        backend = LlamaServerBackend(server.url)
        async with gateway(backend=backend) as url, ollama.AsyncClient(url) as client:
            shown = await client.show("tiny")
        await backend.aclose()
    assert shown.modelinfo == {"general.architecture": "model", "model.context_length": 4096}
    assert shown.details is not None
    assert (shown.details.parameter_size, shown.details.quantization_level) == ("135M", "Q4_1")


async def test_a_call_without_a_question_loads_a_model_and_unloads_none() -> None:
    backend = ScriptedBackend()
    async with gateway(backend=backend) as url, ollama.AsyncClient(url) as client:
        loaded = await client.generate("scripted", "")
        assert (loaded.done, loaded.done_reason, loaded.response) == (True, "load", "")
        assert (await client.chat("scripted", [])).done_reason == "load"
        with pytest.raises(ollama.ResponseError, match="not found") as caught:
            await client.generate("nothing", "")
        assert caught.value.status_code == 404
        with pytest.raises(ollama.ResponseError, match="unloads nothing") as caught:
            await client.generate("scripted", "", keep_alive=0)
        assert caught.value.status_code == 400
    assert backend.requests == []


async def test_one_text_and_no_text_have_their_vectors(node: tuple[ToolNode, ollama.AsyncClient]) -> None:
    _, client = node
    assert (await client.embeddings(MODEL, "bbb")).embedding[0] == 3.0
    assert list((await client.embeddings(MODEL, "")).embedding) == []
    assert list((await client.embed(MODEL, [])).embeddings) == []


async def test_arguments_that_are_no_object_are_called_with_none() -> None:
    calls = (ToolCall("", "weather", "{no"), ToolCall("", "clock", "[1]"))
    async with (
        gateway(backend=ScriptedBackend([Reply(text="", tool_calls=calls)])) as url,
        ollama.AsyncClient(url) as client,
    ):
        asked = await client.chat("scripted", USER, tools=[TOOL])
    assert [(call.function.name, call.function.arguments) for call in asked.message.tool_calls or ()] == [
        ("weather", {}),
        ("clock", {}),
    ]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"top_logprobs": 21}, "top_logprobs must be between 0 and 20"),
        ({"messages": [5]}, "messages[0] must be an object"),
        ({"messages": [{"role": "boss", "content": "?"}]}, "messages[0].role must be one of"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]},
            "messages[0].tool_calls[0].function must be an object with a name",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "x"}}]}]},
            "messages[0].tool_calls[0].function.arguments must be an object",
        ),
        ({"tools": [{"function": {"name": ""}}]}, "tools[0].function must be an object with a name"),
        ({"tools": [{"function": {"name": "f", "parameters": [1]}}]}, "tools[0].function: parameters is a JSON Schema"),
    ],
)
async def test_a_chat_that_is_wrongly_made_is_refused_where_it_is_wrong(fields: dict[str, Any], said: str) -> None:
    backend = ScriptedBackend()
    body = {"model": "scripted", "messages": USER, **fields}
    async with (
        gateway(backend=backend) as url,
        aiohttp.ClientSession(url) as session,
        session.post("/api/chat", json=body) as reply,
    ):
        assert reply.status == 400
        assert said in (await reply.json())["error"]
    assert backend.requests == []


async def told_by(*chunks: Chunk) -> AsyncGenerator[Chunk, None]:
    for chunk in chunks:
        yield chunk


@pytest.mark.parametrize("anew", [Restarted(2, "node gone"), ThoughtSoFar()])
async def test_a_reply_that_begins_anew_is_over_once_something_was_given(anew: Chunk) -> None:
    with pytest.raises(StreamFailed, match="broke off"):
        [_ async for _ in live(told_by(Delta("one"), anew, Delta("two"), Finished("stop")))]
    fresh = [chunk async for chunk in live(told_by(Delta(""), anew, Delta("two"), Finished("stop")))]
    assert fresh == [Delta("two"), Finished("stop")]


async def test_a_gathered_reply_that_begins_anew_is_the_later_one() -> None:
    call = ToolCallDelta(0, "c", "clock", "{}")
    whole = await gathered(
        told_by(Delta("old", "hm", tool_calls=(call,)), Restarted(2, "node gone"), Delta("new"), Finished("stop"))
    )
    assert (whole.text, whole.thinking, whole.tool_calls) == ("new", "", ())
    thought = await gathered(told_by(Delta("so"), ThoughtSoFar(), Delta("yes"), Finished("stop")))
    assert (thought.text, thought.thinking) == ("yes", "so")


class BeginsAnew(ScriptedBackend):
    """A server of which one node goes in mid-reply."""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Any, None]:
        del request
        for chunk in (Delta("old"), Restarted(2, "node gone"), Delta("new"), Finished("stop", Usage(3, 1))):
            yield chunk


async def test_a_whole_reply_begins_anew_where_a_stream_cannot() -> None:
    async with gateway(backend=BeginsAnew()) as url, ollama.AsyncClient(url) as client:
        whole = await client.chat("scripted", USER)
        assert (whole.message.content, whole.done, whole.done_reason, whole.eval_count) == ("new", True, "stop", 1)
        assert (await client.generate("scripted", "hi")).response == "new"
        with pytest.raises(ollama.ResponseError, match="broke off"):
            [_ async for _ in await client.chat("scripted", USER, stream=True)]


async def test_a_reply_without_an_end_is_truncated() -> None:
    with pytest.raises(StreamTruncated):
        await gathered(told_by(Delta("one")))
    with pytest.raises(StreamTruncated):
        [_ async for _ in live(told_by(Delta("one")))]


@pytest.mark.parametrize("count", [1, 2])
async def test_several_replies_come_each_with_its_place(count: int) -> None:
    replies = [live(told_by(Delta(str(index)), Finished("stop"))) for index in range(count)]
    told = [each async for each in merged(replies)]
    for index in range(count):
        assert [chunk for at, chunk in told if at == index] == [Delta(str(index)), Finished("stop")]
    assert len(told) == 2 * count


async def test_the_first_error_of_several_replies_ends_them_all() -> None:
    good, bad = live(told_by(Delta("one"), Finished("stop"))), live(told_by())
    with pytest.raises(StreamTruncated):
        [_ async for _ in merged([good, bad])]
    assert await anext(good, None) is None


async def test_what_a_backend_cannot_do_is_refused_by_name() -> None:
    async with gateway(backend=ScriptedBackend()) as url, ollama.AsyncClient(url) as client:
        with pytest.raises(ollama.ResponseError, match="cannot do logprobs, options") as caught:
            await client.chat("scripted", USER, logprobs=True, options={"typical_p": 0.5})
        assert caught.value.status_code == 400
        with pytest.raises(ollama.ResponseError, match="embeddings"):
            await client.embed("scripted", "text")
        with pytest.raises(ollama.ResponseError, match="suffix"):
            await client.generate("scripted", "text", suffix="end")


async def test_failures_have_their_status_or_are_the_last_line() -> None:
    replies = [Failure("busy"), Failure("unavailable"), Failure("server_error"), Failure("truncated", after_tokens=1)]
    async with gateway(backend=ScriptedBackend(replies)) as url, aiohttp.ClientSession(url) as session:
        told = []
        for _ in range(3):
            async with session.post("/api/chat", json={"model": "scripted", "messages": USER}) as reply:
                told.append((reply.status, reply.headers.get("retry-after"), list(await reply.json())))
        assert told == [(503, "1", ["error"]), (503, "1", ["error"]), (502, None, ["error"])]
        async with session.post("/api/chat", json={"model": "scripted", "messages": USER}) as reply:
            assert reply.status == 200
            lines = [json.loads(line) async for line in reply.content]
        assert lines[0]["message"]["content"] == "one"
        assert "before its end" in lines[-1]["error"]


async def test_it_says_whether_it_lives_and_whether_it_would_serve() -> None:
    gone = Settings(nodes=[NodeSettings(url="http://127.0.0.1:9")])
    async with gateway(gone) as url, aiohttp.ClientSession(url) as session:
        async with session.get("/healthz") as reply:
            assert (reply.status, await reply.json()) == (200, {"status": "ok"})
        async with session.get("/readyz") as reply:
            assert reply.status == 503
        async with session.get("/api/tags") as reply:
            assert reply.status == 503
    backend = ScriptedBackend()
    async with gateway(backend=backend) as url, aiohttp.ClientSession(url) as session, session.get("/readyz") as reply:
        assert reply.status == 200


async def test_a_picture_that_is_none_is_refused_in_every_dialect() -> None:
    openai_part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,\u00e9"}}
    claude_part = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "\u00e9"}}
    async with gateway(backend=ScriptedBackend()) as url, aiohttp.ClientSession(url) as session:
        for path, message in (
            ("/api/chat", {"role": "user", "content": "?", "images": ["\u00e9"]}),
            ("/api/chat", {"role": "user", "content": "?", "images": ["a"]}),
            ("/v1/chat/completions", {"role": "user", "content": [openai_part]}),
            ("/v1/messages", {"role": "user", "content": [claude_part]}),
        ):
            body = {"model": "scripted", "max_tokens": 1, "messages": [message]}
            async with session.post(path, json=body) as reply:
                assert reply.status == 400, path
                assert "picture" in await reply.text()
