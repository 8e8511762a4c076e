"""What a request may ask for beyond text for text: it is passed on, and what cannot be done is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from fault_server import FaultServer, json_reply, sse_reply
from tool_node import MODEL, tool_node

from synaptic.backends.base import EVERY_FEATURE, check_features, features_of
from synaptic.backends.embedded.backend import EmbeddedBackend
from synaptic.backends.llama_server import LlamaServerBackend
from synaptic.backends.ollama.backend import OllamaBackend
from synaptic.backends.pool.backend import PoolBackend
from synaptic.backends.scripted import Reply, ScriptedBackend
from synaptic.errors import FeatureMissing, RequestRejected
from synaptic.messages import (
    ChatRequest,
    Chunk,
    Delta,
    Finished,
    Image,
    Message,
    OfferedTool,
    Sampling,
    ToolCall,
    ToolCallDelta,
)
from synaptic.settings import Settings
from synaptic.settings.model import NodeSettings

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = OfferedTool("weather", "The weather of a city", CITY)
CALL = ToolCall("c1", "weather", '{"city": "Paris"}')
ANSWERED = (
    Message("user", "Paris"),
    Message("assistant", "", tool_calls=(CALL,)),
    Message("tool", "rain", tool_call_id="c1", tool_name="weather"),
)


def asks(*messages: Message, **more: Any) -> ChatRequest:
    return ChatRequest(messages=messages or (Message("user", "Paris"),), verbatim=True, repetition_guard=False, **more)


async def all_of(backend: Any, request: ChatRequest) -> list[Chunk]:
    return [chunk async for chunk in backend.stream(request)]


@pytest.mark.parametrize(
    ("request_", "features"),
    [
        (asks(), set()),
        (asks(tools=(WEATHER,)), {"tools"}),
        (asks(*ANSWERED), {"tools"}),
        (asks(tools=(WEATHER,), tool_choice="required"), {"tools", "tool_choice"}),
        (asks(tools=(WEATHER,), tool_choice="none"), {"tools"}),
        (asks(Message("user", "?", images=(Image("aGk=", "image/png"),))), {"images"}),
        (asks(logprobs=0), {"logprobs"}),
        (asks(stop=("x",), sampling=Sampling(top_k=1), parallel_tools=False), {"stop", "sampling", "parallel_tools"}),
    ],
)
def test_what_a_request_asks_for(request_: ChatRequest, features: set[str]) -> None:
    assert features_of(request_) == features


def test_what_cannot_be_done_is_named() -> None:
    with pytest.raises(FeatureMissing) as caught:
        check_features(asks(tools=(WEATHER,), logprobs=3), frozenset({"stop"}), backend="b")
    assert caught.value.missing == ("logprobs", "tools")
    check_features(asks(tools=(WEATHER,), logprobs=3), EVERY_FEATURE, backend="b")


async def test_an_ollama_calls_a_tool_and_gets_its_result() -> None:
    async with tool_node() as node, OllamaBackend(node.url) as backend:
        *deltas, end = await all_of(backend, asks(model=MODEL, tools=(WEATHER,)))
        calls = [call for delta in deltas if isinstance(delta, Delta) for call in delta.tool_calls]
        assert calls == [ToolCallDelta(0, "", "weather", '{"city": "Paris"}')]
        assert isinstance(end, Finished)
        assert (end.finish_reason, end.tool) == ("tool_calls", None)
        *deltas, end = await all_of(backend, asks(*ANSWERED, model=MODEL, tools=(WEATHER,)))
        assert deltas == [Delta("rain")]
    sent = node.bodies[-1]
    assert sent["messages"][1]["tool_calls"] == [
        {"id": "c1", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
    ]
    assert sent["messages"][2] == {"role": "tool", "content": "rain", "tool_name": "weather", "tool_call_id": "c1"}
    assert sent["tools"][0]["function"] == {"name": "weather", "description": WEATHER.description, "parameters": CITY}


async def test_an_ollama_gets_pictures_stops_sampling_and_gives_log_probabilities() -> None:
    picture = Message("user", "?", images=(Image("aGVsbG8=", "image/png"),))
    sampling = Sampling(top_p=0.5, top_k=3, min_p=0.1, repeat_penalty=1.2, frequency_penalty=0.3, presence_penalty=0.4)
    async with tool_node() as node, OllamaBackend(node.url) as backend:
        chunks = await all_of(backend, asks(picture, model=MODEL, stop=("x",), sampling=sampling, logprobs=1))
    first = chunks[0]
    assert isinstance(first, Delta)
    assert (first.text, first.logprobs[0].token, first.logprobs[0].top[0].logprob) == ("5", "5", -0.5)
    assert first.logprobs[0].bytes == (ord("5"),)
    options = node.bodies[0]["options"]
    assert {**options, "num_ctx": None} == {
        "num_ctx": None,
        "top_p": 0.5,
        "top_k": 3,
        "min_p": 0.1,
        "repeat_penalty": 1.2,
        "frequency_penalty": 0.3,
        "presence_penalty": 0.4,
        "stop": ["x"],
    }


async def test_an_ollama_too_old_for_log_probabilities_is_said_to_be() -> None:
    line = b'{"message": {"role": "assistant", "content": "hi"}, "done": false}\n'

    async def old(_: Any, writer: Any, __: Any) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\n\r\n" + line)

    async with FaultServer(old) as server, OllamaBackend(server.url) as backend:
        with pytest.raises(RequestRejected, match="no log-probabilities"):
            await all_of(backend, asks(model="m", logprobs=0))


async def test_a_pool_sends_tools_where_the_model_can_and_spreads_embeddings() -> None:
    async with tool_node() as one, tool_node() as two:
        nodes = [NodeSettings(url=one.url), NodeSettings(url=two.url)]
        async with PoolBackend(Settings(), nodes) as pool:
            *_, end = await all_of(pool, asks(model=MODEL, tools=(WEATHER,)))
            assert isinstance(end, Finished)
            assert end.finish_reason == "tool_calls"
            texts = ["x" * length for length in range(100)]
            found = await pool.embed(texts, MODEL)
        assert [vector[0] for vector in found.vectors] == [float(len(text)) for text in texts]
        assert found.prompt_tokens == len(texts)
        assert any("input" in body for body in one.bodies)
        assert any("input" in body for body in two.bodies)


def chat_event(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], "model": "tiny"}


async def test_a_llama_server_streams_the_call_of_a_tool() -> None:
    first = {"index": 0, "id": "c9", "type": "function", "function": {"name": "weather", "arguments": "{"}}
    events = [
        chat_event({"tool_calls": [first]}),
        chat_event({"tool_calls": [{"index": 0, "function": {"arguments": '"city": "Paris"}'}}]}),
        chat_event({}, "tool_calls"),
    ]
    answers = {"/props": json_reply({}), "/v1/chat/completions": sse_reply(events)}
    async with FaultServer(answers) as server:
        backend = LlamaServerBackend(server.url)
        chunks = await all_of(backend, asks(*ANSWERED, tools=(WEATHER,), tool_choice="weather", parallel_tools=False))
        await backend.aclose()
    assert [chunk.tool_calls for chunk in chunks if isinstance(chunk, Delta)] == [
        (ToolCallDelta(0, "c9", "weather", "{"),),
        (ToolCallDelta(0, "", "", '"city": "Paris"}'),),
    ]
    assert isinstance(chunks[-1], Finished)
    assert chunks[-1].finish_reason == "tool_calls"
    sent = server.requests[-1].json
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert sent["parallel_tool_calls"] is False
    assert sent["messages"][1]["tool_calls"][0]["function"]["arguments"] == CALL.arguments
    assert sent["messages"][2] == {"role": "tool", "content": "rain", "tool_call_id": "c1", "name": "weather"}


async def test_a_call_that_was_demanded_and_did_not_come_is_an_error() -> None:
    events = [chat_event({"content": "no"}), chat_event({}, "stop")]
    answers = {"/props": json_reply({}), "/v1/chat/completions": sse_reply(events)}
    async with FaultServer(answers) as server:
        backend = LlamaServerBackend(server.url)
        with pytest.raises(RequestRejected, match="without a call"):
            await all_of(backend, asks(tools=(WEATHER,), tool_choice="required"))
        await backend.aclose()


async def test_a_script_calls_a_tool() -> None:
    backend = ScriptedBackend([Reply(text="", tool_calls=(CALL,))])
    *_, delta, end = await all_of(backend, asks(tools=(WEATHER,)))
    assert delta == Delta(tool_calls=(ToolCallDelta(0, "c1", "weather", CALL.arguments),))
    assert isinstance(end, Finished)
    assert end.finish_reason == "tool_calls"


@pytest.mark.real_model
async def test_the_embedded_engine_stops_counts_and_refuses_what_its_model_cannot() -> None:
    backend = EmbeddedBackend(Settings())
    try:
        *deltas, end = await all_of(backend, asks(logprobs=2, max_tokens=3, temperature=0.0))
        told = [entry for delta in deltas if isinstance(delta, Delta) for entry in delta.logprobs]
        assert "".join(entry.token for entry in told) == "".join(delta.text for delta in deltas)  # type: ignore[union-attr]
        assert all(entry.logprob <= 0 and len(entry.top) == 2 for entry in told)
        assert isinstance(end, Finished)
        assert end.finish_reason == "length"
        *deltas, end = await all_of(backend, asks(stop=(" ",), max_tokens=50, sampling=Sampling(top_k=1)))
        assert " " not in "".join(delta.text for delta in deltas)  # type: ignore[union-attr]
        found = await backend.embed(["one", "two", "one"], None)
        assert found.vectors[0] == pytest.approx(found.vectors[2], abs=1e-3)
        assert found.vectors[0] != pytest.approx(found.vectors[1], abs=1e-3)
        for request, what in (
            (asks(tools=(WEATHER,), tool_choice="required"), "tools"),
            (asks(Message("user", "?", images=(Image("aGk=", "image/png"),))), "images"),
        ):
            with pytest.raises(FeatureMissing) as caught:
                await all_of(backend, request)
            assert caught.value.missing == (what,)
    finally:
        await backend.aclose()
