"""Nodes between up and down, through the pool: not ready, busy, and those that let no call in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from fault_server import Behaviour, FaultServer, before_headers, cut, html, json_reply, ollama_reply, respond
from faulty_node import FaultyNode
from pool_support import ask, ask_many, pool_over, question

from synaptic.backends.router import open_backend
from synaptic.errors import BackendUnavailable, FirstTokenTimeout, ProtocolError, RequestRejected
from synaptic.messages import BackendNotice, Timeouts
from synaptic.settings import Settings

if TYPE_CHECKING:
    from synaptic.messages import BackendReport

SOON = Timeouts(first_token=0.4)


def said(reports: list[BackendReport]) -> list[str]:
    return [report.message for report in reports if isinstance(report, BackendNotice)]


@pytest.mark.parametrize("kind", ["loading", "busy_503"])
async def test_the_only_node_is_waited_for_and_no_failover_is_spent(kind: str):
    async with FaultyNode() as node, pool_over([node], failovers=0) as trial:
        node.fail(kind, times=3)
        answer = await ask(trial.pool, question())
        assert (answer.error, answer.restarts) == (None, [])
        assert len(node.asked) == 4
        first, last = said(trial.reports)
        assert "it is waited for, 20 s at most" in first
        assert last.startswith("n0 is ready, after")


async def test_a_node_that_loads_for_longer_than_the_pool_waits_for_one_that_is_down():
    """Being asked again every second, it is not down."""
    async with FaultyNode() as node, pool_over([node], recovery=0.2) as trial:
        node.fail("loading", times=5)
        assert (await ask(trial.pool, question())).error is None


async def test_calls_go_to_a_node_that_is_ready_and_nothing_is_said():
    async with FaultyNode() as loading, FaultyNode() as ready, pool_over([loading, ready]) as trial:
        loading.fail("loading")
        answers = await ask_many(trial.pool, 6)
        assert [answer.error for answer in answers] == [None] * 6
        assert {answer.node for answer in answers} == {"n1"}
        assert said(trial.reports) == []


async def test_all_calls_wait_for_as_long_as_one_and_are_told_of_once():
    async with FaultyNode() as node, pool_over([node]) as trial:
        node.fail("loading")
        began = len(node.asked)
        answers = await ask_many(trial.pool, 4, timeouts=SOON)
        assert [type(answer.error) for answer in answers] == [FirstTokenTimeout] * 4
        assert all("is not ready yet (500: llm server loading model)" in str(answer.error) for answer in answers)
        assert len(node.asked) - began <= 12, "each waited its whole time, one after the other"
        node.heal()
        assert (await ask(trial.pool, question())).error is None


async def test_a_wait_for_a_node_is_cancelled_at_once():
    async with FaultyNode() as node, pool_over([node]) as trial:
        node.fail("loading")
        call = asyncio.create_task(ask(trial.pool, question()))
        await node.wait_for(lambda: len(node.asked) >= 2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_a_node_that_was_loading_has_all_its_places_again():
    async with FaultyNode(parallel=3) as node, pool_over([node], parallel=3) as trial:
        node.fail("loading", times=2)
        assert (await ask(trial.pool, question())).error is None
        assert trial.state(0).cap == 3


async def test_a_node_that_lets_no_call_in_is_asked_once():
    async with FaultyNode() as node, pool_over([node]) as trial:
        node.fail("unauthorised")
        answer = await ask(trial.pool, question())
        assert isinstance(answer.error, RequestRejected)
        assert "answered 401: it asks for credentials (unauthorized)" in answer.error.message
        assert "token_env" in (answer.error.hint or "")
        assert len(node.asked) == 1


async def test_another_node_takes_the_calls_of_one_that_lets_none_in():
    async with FaultyNode() as closed, FaultyNode() as open_, pool_over([closed, open_]) as trial:
        closed.fail("unauthorised")
        answers = await ask_many(trial.pool, 6)
        assert [answer.error for answer in answers] == [None] * 6
        assert {answer.node for answer in answers} == {"n1"}
        status = trial.pool.statuses()[0]
        if status.condition == "down":  # else a probe has found it alive
            assert "token_env" in status.hint


def ollama_behind(proxy: list[Behaviour], chat: Behaviour | None = None) -> FaultServer:
    """Return an Ollama with one model behind a proxy, whose answers to the first questions are ``proxy``."""
    return FaultServer(
        {
            "/api/version": [*proxy, json_reply({"version": "0.12"})],
            "/api/tags": json_reply({"models": [{"name": "m", "size": 1000}]}),
            "/api/ps": json_reply({"models": []}),
            "/api/show": json_reply({}),
            "/api/chat": chat or ollama_reply(["fine"]),
        }
    )


@pytest.mark.parametrize("refusal", [html(502), html(503), respond(502, b"Bad Gateway", "text/plain")])
async def test_a_node_that_is_not_ready_at_the_start_is_waited_for(refusal: Behaviour):
    reports: list[BackendReport] = []
    async with ollama_behind([refusal, refusal]) as server:
        routed = await open_backend(Settings(nodes=[{"url": server.url}]), reports.append, {})
        answer = await ask(routed.backend, question())  # type: ignore[arg-type]  # the pool
        await routed.backend.aclose()
    assert answer.text == "fine"
    assert any("it is waited for, 5 min at most" in text for text in said(reports))


async def test_the_wait_at_the_start_is_bounded():
    async with FaultServer(html(502)) as server:
        settings = Settings(nodes=[{"url": server.url}], first_token_timeout=0.5)
        with pytest.raises(
            BackendUnavailable, match=r"gets no answer of the server behind it .*still so after"
        ) as caught:
            await open_backend(settings, lambda _: None, {})
    assert caught.value.exit_code == 3
    assert caught.value.hint == "start the Ollama behind it; or raise first_token_timeout"


@pytest.mark.parametrize(
    ("behaviour", "message", "hint"),
    [
        (respond(401), "answered 401: it asks for credentials", "token_env"),
        (respond(403), "answered 403: it refuses access", "OLLAMA_HOST=0.0.0.0"),
        (respond(404), "has no /api/", "the address of an Ollama"),
        (respond(407), "a proxy asks for credentials", "without a proxy"),
        (
            respond(301, headers={"location": "https://gpu.test/"}),
            "it sends calls to https://gpu.test/",
            "write the address of the Ollama",
        ),
        (html(200), "a web page instead", "address of the Ollama itself"),
        (before_headers(cut), "without an answer", "https://"),
    ],
)
async def test_what_is_wrong_with_the_only_node_has_a_hint_of_its_own(behaviour: Behaviour, message: str, hint: str):
    async with FaultServer(behaviour) as server:
        for options in ({}, {"task_distribution_enabled": False}):
            with pytest.raises(BackendUnavailable) as caught:
                await open_backend(Settings(nodes=[{"url": server.url}], **options), lambda _: None, {})
            assert message in caught.value.message
            assert hint in (caught.value.hint or "")


async def test_a_page_in_a_call_is_not_asked_for_again():
    async with ollama_behind([], chat=html(200)) as server:
        routed = await open_backend(Settings(nodes=[{"url": server.url}]), lambda _: None, {})
        answer = await ask(routed.backend, question())  # type: ignore[arg-type]  # the pool
        await routed.backend.aclose()
        assert isinstance(answer.error, ProtocolError)
        assert sum(request.path == "/api/chat" for request in server.requests) == 1
