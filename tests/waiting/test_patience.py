"""How long a server is waited for that is not ready, and what is said of it."""

from __future__ import annotations

import asyncio
from math import inf

import pytest

from synaptic.errors import (
    BackendBusy,
    BackendNotReady,
    FirstTokenTimeout,
    PoolSaturated,
    ServerError,
    Trouble,
)
from synaptic.messages import BackendReport, Timeouts
from synaptic.waiting import Patience, WaitNotices, until_ready

LOADING = BackendNotReady("desk is not ready yet (503: Loading model)", node="desk")


def test_the_waits_grow_to_a_second_and_end_with_the_bound():
    patience = Patience(10.0)
    assert [patience.delay(LOADING, now) for now in (100.0, 101.0, 102.0, 103.0, 109.5)] == [0.25, 0.5, 1.0, 1.0, 0.5]
    with pytest.raises(FirstTokenTimeout) as caught:
        patience.delay(LOADING, 110.0)
    assert caught.value.message == "desk is not ready yet (503: Loading model) (still so after 10 s)"
    assert caught.value.hint == "raise first_token_timeout, or set it to null"
    assert caught.value.__cause__ is LOADING
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("limits", "limit"),
    [(Timeouts(), inf), (Timeouts(5.0), 5.0), (Timeouts(None, None, 7.0), 7.0), (Timeouts(5.0, None, 3.0), 3.0)],
)
def test_the_bounds_of_the_call_hold(limits: Timeouts, limit: float):
    assert Patience.of(limits).limit == limit


def test_what_the_server_asks_for_is_kept_if_there_is_time_for_it():
    patience = Patience(60.0)
    assert patience.delay(BackendBusy("x", retry_after=7.0), 0.0) == 7.0
    assert patience.delay(BackendBusy("x", retry_after=0.0), 7.0) == 0.5
    with pytest.raises(FirstTokenTimeout, match="it asks to be left alone for 1 h, which is longer"):
        patience.delay(BackendBusy("x", retry_after=3600.0), 8.0)


def test_what_is_left_of_the_bounds():
    patience, limits = Patience(20.0), Timeouts(20.0, 5.0, 60.0)
    assert patience.left(limits, 3.0) is limits
    patience.delay(LOADING, 100.0)
    assert patience.left(limits, 112.0) == Timeouts(8.0, 5.0, 48.0)
    assert patience.left(limits, 120.0).first_token == 1.0


def test_a_proxy_that_reaches_no_server_keeps_its_advice():
    error = BackendNotReady("desk answered 502", hint="start the Ollama behind it")
    error.trouble = Trouble.GATEWAY
    patience = Patience(0.0)
    with pytest.raises(FirstTokenTimeout) as caught:
        patience.delay(error, 0.0)
    assert caught.value.hint == "start the Ollama behind it; or raise first_token_timeout"
    assert caught.value.trouble is Trouble.GATEWAY


def messages(reports: list[BackendReport]) -> list[str]:
    return [getattr(report, "message", "") for report in reports]


def test_a_wait_is_told_once_for_all_calls():
    reports: list[BackendReport] = []
    notices = WaitNotices(reports.append, "ollama")
    for now in (0.0, 1.0, 2.0):
        notices.began("desk", LOADING, 300.0, now)
    notices.ended("desk", 30.0, ready=False)
    for now in (40.0, 41.0):
        notices.ended("desk", now, ready=True)
    assert messages(reports) == [
        "desk is not ready yet (503: Loading model); it is waited for, 5 min at most",
        "desk is ready, after 40 s",
    ]


def test_a_wait_that_was_given_up_is_told_again():
    reports: list[BackendReport] = []
    notices = WaitNotices(reports.append, "ollama")
    for _ in range(2):
        notices.began("desk", LOADING, inf, 0.0)
        notices.ended("desk", 1.0, ready=False)
    assert messages(reports) == ["desk is not ready yet (503: Loading model); it is waited for"] * 2


class Server:
    """Refuses as it is told, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked = 0

    async def answer(self) -> str:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return "here"


async def test_a_server_is_asked_until_it_is_ready():
    reports: list[BackendReport] = []
    server = Server(LOADING, BackendBusy("busy"))
    assert await until_ready(server.answer, Patience(60.0), WaitNotices(reports.append, "x")) == "here"
    assert server.asked == 3
    assert len(reports) == 2


@pytest.mark.parametrize("error", [ServerError("boom"), PoolSaturated("full", estimated_wait=1.0)])
async def test_everything_else_is_not_waited_for(error: Exception):
    reports: list[BackendReport] = []
    server = Server(error)
    with pytest.raises(type(error)):
        await until_ready(server.answer, Patience(60.0), WaitNotices(reports.append, "x"))
    assert (server.asked, reports) == (1, [])


async def test_a_wait_can_be_cancelled_at_any_moment():
    reports: list[BackendReport] = []
    server = Server(*[LOADING] * 1000)
    task = asyncio.create_task(until_ready(server.answer, Patience(inf), WaitNotices(reports.append, "x")))
    async with asyncio.timeout(60):
        while server.asked < 2:
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.asked == 2
