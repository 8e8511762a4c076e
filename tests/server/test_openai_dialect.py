"""OpenAI's dialect, spoken by OpenAI's own client, over one node, over the pool, and over the embedded engine."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import openai
import pytest
from gateway_support import embedded_application, gateway
from pydantic import BaseModel
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
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
EMBEDDED = "smollm2:135m"


def client_of(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


@pytest.fixture(params=["one node", "the pool"])
async def node(request: pytest.FixtureRequest) -> AsyncIterator[tuple[ToolNode, openai.AsyncOpenAI]]:
    async with tool_node() as one:
        settings = Settings(nodes=[NodeSettings(url=one.url)], task_distribution_enabled=request.param == "the pool")
        async with gateway(settings) as url, client_of(url) as client:
            yield one, client


async def test_a_chat_is_answered_whole_and_in_chunks(node: tuple[ToolNode, openai.AsyncOpenAI]) -> None:
    _, client = node
    whole = await client.chat.completions.create(model=MODEL, messages=USER)
    assert (whole.object, whole.model, whole.choices[0].finish_reason) == ("chat.completion", MODEL, "stop")
    assert whole.choices[0].message.content == "Paris in spring"
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.total_tokens) == (3, 3, 6)
    options: Any = {"include_usage": True}
    stream = await client.chat.completions.create(model=MODEL, messages=USER, stream=True, stream_options=options)
    chunks = [chunk async for chunk in stream]
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    told = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.delta.content or "" for choice in told) == "Paris in spring"
    assert [choice.finish_reason for choice in told if choice.finish_reason] == ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 6
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_a_tool_is_called_and_its_result_comes_back(node: tuple[ToolNode, openai.AsyncOpenAI]) -> None:
    one, client = node
    asked = await client.chat.completions.create(model=MODEL, messages=USER, tools=[TOOL])
    assert asked.choices[0].finish_reason == "tool_calls"
    assert asked.choices[0].message.content is None
    assert asked.choices[0].message.tool_calls is not None
    call: Any = asked.choices[0].message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Paris in spring"})
    turns = [*USER, asked.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    answered = await client.chat.completions.create(model=MODEL, messages=turns, tools=[TOOL])
    assert answered.choices[0].message.content == "rain"
    assert one.bodies[-1]["messages"][2] == {"role": "tool", "content": "rain", "tool_call_id": call.id}
    async with client.chat.completions.stream(model=MODEL, messages=USER, tools=[TOOL]) as stream:
        final = await stream.get_final_completion()
    streamed: Any = final.choices[0].message.tool_calls
    assert (streamed[0].function.name, streamed[0].id[:5]) == ("weather", "call_")
    assert json.loads(streamed[0].function.arguments) == {"city": "Paris in spring"}


class Town(BaseModel):
    city: str


async def test_shapes_pictures_sampling_and_thinking_arrive(node: tuple[ToolNode, openai.AsyncOpenAI]) -> None:
    one, client = node
    parsed = await client.chat.completions.parse(model=MODEL, messages=USER, response_format=Town)
    assert parsed.choices[0].message.parsed == Town(city="Paris in spring")
    assert one.bodies[-1]["format"]["properties"]["city"]["type"] == "string"
    picture: Any = [
        {"type": "text", "text": "?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}},
    ]
    asked: Any = [{"role": "system", "content": "short"}, {"role": "user", "content": picture}]
    seen = await client.chat.completions.create(
        model=MODEL,
        messages=asked,
        stop=["x"],
        seed=7,
        temperature=0.5,
        top_p=0.5,
        max_tokens=9,
        reasoning_effort="high",
    )
    message: Any = seen.choices[0].message
    assert (message.content, message.reasoning_content) == ("5 bytes", "hm")
    body = one.bodies[-1]
    assert body["think"] == "high"
    wanted = {"stop": ["x"], "seed": 7, "temperature": 0.5, "top_p": 0.5, "num_predict": 9}
    assert {name: body["options"][name] for name in wanted} == wanted
    assert "repeat_penalty" not in body["options"]


async def test_several_choices_have_seeds_of_their_own_and_log_probabilities(
    node: tuple[ToolNode, openai.AsyncOpenAI],
) -> None:
    one, client = node
    asked: dict[str, Any] = {"model": MODEL, "messages": USER, "n": 3, "seed": 1, "logprobs": True, "top_logprobs": 1}
    whole = await client.chat.completions.create(**asked)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert sorted(body["options"]["seed"] for body in one.bodies[-3:]) == [1, 2, 3]
    assert whole.usage is not None
    assert whole.usage.total_tokens == 18
    logprobs = whole.choices[2].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [entry.token for entry in logprobs.content] == ["Paris", " in", " spring"]
    assert logprobs.content[0].top_logprobs[0].logprob == -0.5
    texts = ["", "", ""]
    async for chunk in await client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == ["Paris in spring"] * 3


async def test_models_completions_and_embeddings(node: tuple[ToolNode, openai.AsyncOpenAI]) -> None:
    _, client = node
    assert [model.id async for model in client.models.list()] == [MODEL]
    assert (await client.models.retrieve(MODEL)).object == "model"
    completed = await client.completions.create(model=MODEL, prompt=["a b", "c"])
    assert [choice.text for choice in completed.choices] == ["a b", "c"]
    stream = await client.completions.create(model=MODEL, prompt="a b", stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == "a b"
    found = await client.embeddings.create(model=MODEL, input=["a", "bbb"])
    assert [entry.embedding[0] for entry in found.data] == [1.0, 3.0]
    plain = await client.embeddings.create(model=MODEL, input="bb", encoding_format="float")
    assert plain.data[0].embedding == [2.0, 0.0, 0.0, 0.0]


async def test_errors_are_those_of_the_client(node: tuple[ToolNode, openai.AsyncOpenAI]) -> None:
    one, client = node
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="nothing:1b", messages=USER)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nothing")
    elsewhere = {"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}}
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"n": 0}, "n"),
        ({"temperature": "hot"}, "temperature"),
        ({"extra_body": {"nonsense": 1}}, "nonsense"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [elsewhere]}]}, "messages"),
    )
    for fields, param in wrong:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(**{"model": MODEL, "messages": USER, **fields})
        assert (refused.value.param or "").startswith(param), fields
        assert refused.value.type == "invalid_request_error"
    count = len(one.bodies)
    with pytest.raises(openai.BadRequestError, match="cannot do tool_choice"):
        await client.chat.completions.create(model=MODEL, messages=USER, tools=[TOOL], tool_choice="required")
    assert len(one.bodies) == count


async def test_failures_have_their_status_or_end_the_stream() -> None:
    replies = [Failure("busy"), Failure("unavailable"), Failure("server_error"), Failure("truncated", after_tokens=1)]
    async with gateway(backend=ScriptedBackend(replies)) as url, client_of(url) as client:
        for kind, status in ((openai.RateLimitError, 429), (openai.InternalServerError, 503), (openai.APIError, 502)):
            with pytest.raises(kind) as failed:
                await client.chat.completions.create(model="scripted", messages=USER)
            assert failed.value.status_code == status
        stream = await client.chat.completions.create(model="scripted", messages=USER, stream=True)
        with pytest.raises(openai.APIError, match="before its end"):
            [chunk async for chunk in stream]
    async with gateway(backend=ScriptedBackend()) as url, aiohttp.ClientSession(url) as session:
        for path, status in (("/v1/nothing", 404), ("/v1/models", 200), ("/v1/chat/completions", 405)):
            async with session.get(path) as reply:
                assert reply.status == status
                assert status == 200 or set(await reply.json()) == {"error"}


async def test_half_a_character_is_told_as_the_replacement_character() -> None:
    """Small models produce it; ``?`` would stand for a question."""
    backend = ScriptedBackend([Reply(text="a\ud83d"), Reply(text="a\ud83d")])
    async with gateway(backend=backend) as url, client_of(url) as client:
        whole = await client.chat.completions.create(model="scripted", messages=USER)
        stream = await client.chat.completions.create(model="scripted", messages=USER, stream=True)
        parts = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert whole.choices[0].message.content == "".join(parts) == "a\ufffd"


async def test_a_backend_that_can_is_asked_for_the_choice_of_a_tool() -> None:
    backend = ScriptedBackend([Reply(text="", tool_calls=(ToolCall("c1", "weather", '{"city": "Rome"}'),))])
    async with gateway(backend=backend) as url, client_of(url) as client:
        chosen: Any = {"type": "function", "function": {"name": "weather"}}
        asked = await client.chat.completions.create(
            model="scripted", messages=USER, tools=[TOOL], tool_choice=chosen, parallel_tool_calls=False
        )
    assert asked.choices[0].finish_reason == "tool_calls"
    request = backend.requests[0]
    assert (request.tool_choice, request.parallel_tools, request.tools[0].name) == ("weather", False, "weather")
    assert (request.verbatim, request.repetition_guard) == (True, False)


async def test_a_client_that_goes_away_ends_all_choices(node: tuple[ToolNode, openai.AsyncOpenAI]) -> None:
    one, client = node
    one.pace = 60.0
    stream = await client.chat.completions.create(model=MODEL, messages=USER, stream=True)
    await anext(stream)
    assert one.active == 1
    await stream.close()
    await asyncio.wait_for(one.idle.wait(), 30)


@pytest.mark.real_model
async def test_the_embedded_model_answers() -> None:
    app = embedded_application(ServeSettings(threads=2), ModelStore())
    async with listening(app, "127.0.0.1", 0, drain=0.1) as addresses, client_of(addresses[0]) as client:
        assert [model.id async for model in client.models.list()] == [EMBEDDED]
        asked: dict[str, Any] = {"model": EMBEDDED, "messages": USER, "temperature": 0, "max_tokens": 4}
        whole = await client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
        assert whole.choices[0].finish_reason == "length"
        stream = await client.chat.completions.create(**asked, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert text == whole.choices[0].message.content
        told = whole.choices[0].logprobs
        assert told is not None
        assert "".join(entry.token for entry in told.content or ()) == text
        parsed = await client.chat.completions.parse(
            model=EMBEDDED, messages=USER, response_format=Town, temperature=0, max_tokens=60
        )
        assert isinstance(parsed.choices[0].message.parsed, Town)
        found = await client.embeddings.create(model=EMBEDDED, input=["a", "b"])
        assert len(found.data) == 2
        with pytest.raises(openai.BadRequestError, match="tools"):
            await client.chat.completions.create(model=EMBEDDED, messages=USER, tools=[TOOL])
