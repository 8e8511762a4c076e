"""Aliases and the bound on calls of one model, at the gateway, through the clients of all dialects."""

from __future__ import annotations

import asyncio
from asyncio import FIRST_COMPLETED
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import anthropic
import ollama
import openai
import pytest
from gateway_support import gateway
from tool_node import ToolNode, tool_node

from synaptic.backends.scripted import Failure, Reply, ScriptedBackend
from synaptic.errors import BackendUnavailable, RequestRejected
from synaptic.messages import ModelInfo
from synaptic.models import ModelStore
from synaptic.runtime import Session
from synaptic.server.gateway import ModelFront
from synaptic.server.gateway.alias_models import first_that_does
from synaptic.server.limits import listening
from synaptic.server.ollama_api import ServeSettings, embedded_models
from synaptic.server.program import gateway_application
from synaptic.settings.load import Settings
from synaptic.settings.model import NodeSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from synaptic.backends.scripted import Answer
    from synaptic.messages import ChatRequest

USER: Any = [{"role": "user", "content": "hello there"}]
FAST = {"fast": ["missing:1b", "first:1b", "second:1b"], "gone": ["missing:1b"]}


class Several(ScriptedBackend):
    """The scripted backend with several models, each of which has its own answer."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = answers
        super().__init__(self._of)

    def _of(self, request: ChatRequest) -> Answer:
        return self.answers[request.model or ""]

    async def models(self) -> list[ModelInfo]:
        return [ModelInfo(name=name, context_length=4096 if name == "small" else None) for name in self.answers]


@asynccontextmanager
async def two_nodes() -> AsyncIterator[tuple[ToolNode, ToolNode, AsyncExitStack, str]]:
    async with AsyncExitStack() as first_up, tool_node("second:1b") as second:
        first = await first_up.enter_async_context(tool_node("first:1b"))
        nodes = [NodeSettings(url=node.url) for node in (first, second)]
        settings = Settings(nodes=nodes, aliases=FAST, pool_recovery_wait=0, failovers=0)
        async with gateway(settings) as url:
            yield first, second, first_up, url


async def test_every_dialect_says_which_model_answered_and_goes_on_with_the_next() -> None:
    async with two_nodes() as (first, second, first_up, url):
        for model in ("first:1b", "second:1b"):
            async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
                whole = await client.chat.completions.create(model="fast", messages=USER, n=2)
                assert (whole.model, whole.choices[1].message.content) == (model, "hello there")
                stream = await client.chat.completions.create(model="Fast:latest", messages=USER, stream=True)
                assert {chunk.model async for chunk in stream} == {model}
                assert (await client.completions.create(model="fast", prompt="a b")).model == model
                found = await client.embeddings.create(model="fast", input="bb", encoding_format="float")
                assert found.data[0].embedding[0] == 2.0
            async with anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as claude:
                message = await claude.messages.create(model="fast", max_tokens=9, messages=USER)
                assert message.model == model
                async with claude.messages.stream(model="fast", max_tokens=9, messages=USER) as events:
                    assert (await events.get_final_message()).model == model
            async with ollama.AsyncClient(url) as client:
                assert (await client.chat("fast", USER)).model == model
                assert [line.model async for line in await client.chat("fast", USER, stream=True)] == [model] * 3
                assert (await client.show("fast")).capabilities == ["completion", "tools", "vision", "thinking"]
            if model == "first:1b":
                assert not second.bodies
                first.idle.clear()
                await first_up.aclose()


async def test_aliases_are_listed_where_a_model_of_theirs_is_there() -> None:
    async with two_nodes() as (_, _, _, url), aiohttp.ClientSession(url) as session:
        async with session.get("/api/tags") as reply:
            names = [model["name"] for model in (await reply.json())["models"]]
        assert sorted(names) == ["fast:latest", "first:1b", "second:1b"]
        async with session.get("/v1/models/fast") as reply:
            assert (await reply.json())["id"] == "fast"
        async with session.post("/api/generate", json={"model": "fast"}) as reply:  # loads it
            assert (reply.status, (await reply.json())["done_reason"]) == (200, "load")
        for path, body in (("/api/chat", {"messages": USER}), ("/api/generate", {}), ("/api/show", {})):
            async with session.post(path, json={"model": "gone", **body}) as reply:
                assert reply.status == 404
        async with session.post("/v1/chat/completions", json={"model": "gone", "messages": USER}) as reply:
            assert reply.status == 404
            assert "stands for missing:1b, and none of them is there" in (await reply.json())["error"]["message"]


@asynccontextmanager
async def serving(backend: ScriptedBackend, **settings: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    async with Session(Settings(**settings), backend=backend) as session:
        app = gateway_application(ServeSettings(), ModelFront(session))
        async with (
            listening(app, "127.0.0.1", 0, drain=0.1) as addresses,
            openai.AsyncOpenAI(base_url=f"{addresses[0]}/v1", api_key="none", max_retries=0) as client,
        ):
            yield client


async def test_a_model_that_cannot_call_tools_is_passed_over() -> None:
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    async with two_nodes() as (first, second, _, url):
        first.can = ["completion"]
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            told = await client.chat.completions.create(model="fast", messages=USER, tools=[tool])
            assert (told.model, told.choices[0].finish_reason) == ("second:1b", "tool_calls")
            assert (await client.chat.completions.create(model="fast", messages=USER)).model == "first:1b"
        assert len(second.bodies) == 1


async def test_only_what_another_model_may_do_better_is_tried_again() -> None:
    asked: dict[str, Any] = {"model": "any", "messages": USER}
    order = {"any": ["a", "b", "c"]}
    busy = Several(a=Failure("busy"), b=Failure("server_error"), c="fine")
    async with serving(busy, aliases=order) as client:
        assert (await client.chat.completions.create(**asked)).model == "c"
    assert [request.model for request in busy.requests] == ["a", "b", "c"]
    wrong = Several(a=Failure("rejected"), b="fine")
    async with serving(wrong, aliases=order) as client:
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(**asked)
    assert len(wrong.requests) == 1
    broken = Several(a=Failure("truncated", after_tokens=1), b="fine")
    async with serving(broken, aliases=order) as client:
        with pytest.raises(openai.APIError, match="before its end"):
            [chunk async for chunk in await client.chat.completions.create(**asked, stream=True)]
    assert len(broken.requests) == 1
    none = Several(a=Failure("server_error"), b=Failure("busy"))
    async with serving(none, aliases=order) as client:
        with pytest.raises(openai.RateLimitError, match=r"a: .*; b: ") as refused:
            await client.chat.completions.create(**asked)
    assert refused.value.response.headers["retry-after"] == "1"


async def test_a_model_without_the_context_that_is_asked_for_is_passed_over() -> None:
    backend = Several(small="short", large="long")
    async with serving(backend, aliases={"any": ["small", "large"], "tiny": ["small"]}) as client:
        url = str(client.base_url).removesuffix("/v1/")
        async with ollama.AsyncClient(url) as other:
            assert (await other.chat("any", USER)).model == "small"
            assert (await other.chat("any", USER, options={"num_ctx": 8192})).model == "large"
            with pytest.raises(ollama.ResponseError, match="8192 tokens") as refused:
                await other.chat("tiny", USER, options={"num_ctx": 8192})
            assert refused.value.status_code == 400


async def test_calls_of_one_model_wait_and_too_many_are_refused_with_an_estimate() -> None:
    backend = Several(slow=Reply(text="one two", token_delay=60), other="at once")
    asked: dict[str, Any] = {"model": "slow", "messages": USER}
    async with serving(backend, model_parallel={"slow": 1}, pool_queue=1) as client:
        first = await client.chat.completions.create(**asked, stream=True)
        await anext(first)
        calls = [asyncio.create_task(client.chat.completions.create(**asked, stream=True)) for _ in range(2)]
        done, waiting = await asyncio.wait(calls, return_when=FIRST_COMPLETED)
        with pytest.raises(
            openai.RateLimitError, match=r"slow:latest \(1 at once\): 1 call waiting already"
        ) as refused:
            done.pop().result()
        assert int(refused.value.response.headers["retry-after"]) >= 1
        assert (await client.chat.completions.create(model="other", messages=USER)).choices[0].message.content
        assert backend.max_active == 2
        await first.close()
        second = await waiting.pop()
        await anext(second)
        await second.close()
    async with serving(backend, model_parallel={"slow": 1}, pool_max_wait=0.05) as client:
        first = await client.chat.completions.create(**asked, stream=True)
        await anext(first)
        with pytest.raises(openai.RateLimitError, match="no place within"):
            await client.chat.completions.create(**asked)
        await first.close()


async def test_the_queue_of_a_pool_refuses_with_its_estimate() -> None:
    async with tool_node("first:1b") as node:
        node.pace = 60
        settings = Settings(nodes=[NodeSettings(url=node.url)], pool_queue=1)
        async with gateway(settings) as url, aiohttp.ClientSession(url) as session:
            body = {"model": "first:1b", "messages": USER}
            calls = [asyncio.create_task(session.post("/api/chat", json=body)) for _ in range(3)]
            refused: list[aiohttp.ClientResponse] = []
            while not refused:
                done, _ = await asyncio.wait([call for call in calls if not call.done()], return_when=FIRST_COMPLETED)
                refused = [call.result() for call in done if call.result().status != 200]
            assert (refused[0].status, int(refused[0].headers["retry-after"]) >= 1) == (503, True)
            assert "wait already" in (await refused[0].json())["error"]
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.real_model
async def test_an_alias_of_the_embedded_model_is_served_beside_it() -> None:
    models = embedded_models(ServeSettings(threads=2), ModelStore())
    session = Session(Settings(aliases={"tiny": ["qwen3:8b", "smollm2:135m"]}), backend=models.backend)
    app = gateway_application(ServeSettings(threads=2), ModelFront(session), models.host)
    async with (
        session,
        listening(app, "127.0.0.1", 0, drain=0.1) as addresses,
        ollama.AsyncClient(addresses[0]) as client,
    ):
        assert [model.model for model in (await client.list()).models] == ["smollm2:135m", "tiny:latest"]
        told = await client.chat("tiny", USER, options={"num_predict": 2})
        assert (told.model, bool(told.message.content)) == ("smollm2:135m", True)


async def test_vectors_that_no_model_makes_say_why_of_each() -> None:
    asked: list[str] = []

    async def fail(name: str) -> None:
        asked.append(name)
        raise RequestRejected("empty") if name == "strict" else BackendUnavailable(f"no {name}")

    with pytest.raises(BackendUnavailable, match="a: no a; b: no b"):
        await first_that_does(["a", "b"], fail)
    with pytest.raises(RequestRejected):
        await first_that_does(["strict", "b"], fail)
    assert asked == ["a", "b", "strict"]
