"""A server that is not ready is waited for, at no attempt's cost: over real sockets, through the stack of a session."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from chunk_support import collected
from fault_server import (
    Behaviour,
    FaultServer,
    html,
    json_reply,
    ollama_lines,
    ollama_reply,
    respond,
    sse_reply,
    stream,
)

from synaptic.backends.llama_server import LlamaServerBackend
from synaptic.backends.ollama.backend import OllamaBackend
from synaptic.errors import BackendBusy, BackendError, FirstTokenTimeout, ServerError
from synaptic.messages import ChatRequest, Message, Timeouts
from synaptic.pipeline.graph import CallPolicy
from synaptic.runtime.policies import Bounds, BudgetMeter, Stacks
from synaptic.settings import Settings

if TYPE_CHECKING:
    from synaptic.backends.base import Backend
    from synaptic.messages import BackendReport

LOADING = json_reply({"error": "llm server loading model"}, 500)
LLAMA_LOADING = json_reply({"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, 503)
SWAPPING = json_reply({"error": "unable to start process"}, 502)
BUSY = json_reply({"error": "server busy, please try again.  maximum pending requests exceeded"}, 503)
OLLAMA = ollama_reply(["fine"])
LLAMA = sse_reply(
    [
        {"choices": [{"delta": {"content": "fine"}}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
    ]
)


def asked(first_token: float | None = 60.0) -> ChatRequest:
    return ChatRequest(messages=(Message("user", "hi"),), model="tiny", timeouts=Timeouts(first_token))


def stacked(backend: Backend, reports: list[BackendReport], retries: int = 0) -> Backend:
    """Return the backend as a session with these retries calls it."""
    stacks = Stacks(backend, Settings(retries=retries), report=reports.append)
    return stacks.of(CallPolicy(), Bounds(BudgetMeter()))


def server_of(path: str, *behaviours: Behaviour) -> FaultServer:
    return FaultServer({path: list(behaviours)})


def calls(server: FaultServer) -> int:
    return sum(request.method == "POST" for request in server.requests)


async def answer(backend: Backend, request: ChatRequest) -> str:
    try:
        return collected([chunk async for chunk in backend.stream(request)])
    finally:
        await backend.aclose()


@pytest.mark.parametrize(
    "refusal",
    [
        LOADING,
        json_reply({"error": "unexpected server status: llm server loading model"}, 500),
        stream([json.dumps({"error": "llm server loading model"}).encode() + b"\n"]),
        BUSY,
        html(502),
        html(503),
        respond(503, b"<html><h1>503</h1></html>", "text/html", {"retry-after": "0"}),
        respond(502, b"", headers={"server": "Caddy"}),
    ],
)
async def test_ollama_is_waited_for_without_a_retry(refusal: Behaviour):
    reports: list[BackendReport] = []
    async with server_of("/api/chat", refusal, refusal, OLLAMA) as server:
        assert await answer(stacked(OllamaBackend(server.url), reports), asked()) == "fine"
        assert calls(server) == 3
    first, last = (getattr(report, "message", "") for report in reports)
    assert "it is waited for, 1 min at most" in first
    assert last.startswith(f"{server.url} is ready, after")


@pytest.mark.parametrize("refusal", [LLAMA_LOADING, SWAPPING, html(504)])
async def test_a_llama_server_is_waited_for_without_a_retry(refusal: Behaviour):
    reports: list[BackendReport] = []
    async with server_of("/v1/chat/completions", refusal, refusal, LLAMA) as server:
        assert await answer(stacked(LlamaServerBackend(server.url), reports), asked()) == "fine"
    assert len(reports) == 2


async def test_the_wait_is_bounded_and_its_end_names_the_cause():
    reports: list[BackendReport] = []
    async with server_of("/api/chat", LOADING) as server:
        with pytest.raises(FirstTokenTimeout) as caught:
            await answer(stacked(OllamaBackend(server.url), reports, retries=3), asked(0.3))
        assert calls(server) <= 4, "a retry was spent on it"
    assert "is not ready yet (500: llm server loading model) (still so after" in caught.value.message
    assert "first_token_timeout" in (caught.value.hint or "")
    assert len(reports) == 1


async def test_a_server_that_asks_for_more_time_than_there_is_is_not_waited_for():
    refusal = json_reply({"error": "slow down"}, 429, {"retry-after": "3600"})
    async with server_of("/api/chat", refusal) as server:
        with pytest.raises(FirstTokenTimeout, match="it asks to be left alone for 1 h"):
            await answer(stacked(OllamaBackend(server.url), [], retries=3), asked())
        assert calls(server) == 1


async def test_retries_are_left_for_what_fails_after_the_wait():
    boom = json_reply({"error": "boom"}, 500)
    async with server_of("/api/chat", LOADING, boom, LOADING, OLLAMA) as server:
        assert await answer(stacked(OllamaBackend(server.url), [], retries=1), asked()) == "fine"
    async with server_of("/api/chat", LOADING, boom, OLLAMA) as server:
        with pytest.raises(ServerError):
            await answer(stacked(OllamaBackend(server.url), [], retries=0), asked())


async def test_a_server_that_is_busy_in_the_middle_of_a_reply_has_failed():
    lines = [
        *ollama_lines(["half"], done=False),
        json.dumps({"error": "server busy, please try again"}).encode() + b"\n",
    ]
    async with server_of("/api/chat", stream(lines), OLLAMA) as server:
        with pytest.raises(BackendBusy):
            await answer(stacked(OllamaBackend(server.url), []), asked())
        assert calls(server) == 1


async def test_a_wait_is_cancelled_at_once_and_leaves_no_connection():
    async with server_of("/api/chat", LOADING) as server:
        backend = OllamaBackend(server.url)
        task = asyncio.create_task(answer(stacked(backend, []), asked(None)))
        await server.wait_for(lambda: calls(server) >= 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await backend.aclose()
        await server.wait_until_idle()


async def text_of(stack: Backend) -> str:
    return collected([chunk async for chunk in stack.stream(asked())])


async def test_calls_that_wait_together_are_told_of_once():
    reports: list[BackendReport] = []
    async with server_of("/api/chat", *[LOADING] * 8, OLLAMA) as server:
        backend = OllamaBackend(server.url)
        stack = stacked(backend, reports)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(text_of(stack)) for _ in range(4)]
        assert [task.result() for task in tasks] == ["fine"] * 4
        await backend.aclose()
    assert len(reports) == 2


@pytest.mark.parametrize("status", [401, 403, 404, 407, 301])
async def test_what_waits_for_a_person_is_not_waited_for(status: int):
    reports: list[BackendReport] = []
    async with server_of("/api/chat", respond(status)) as server:
        with pytest.raises(BackendError) as caught:
            await answer(stacked(OllamaBackend(server.url), reports, retries=3), asked())
        assert calls(server) == 1
    assert reports == []
    assert caught.value.hint
