"""Policies around a backend: timeouts, the limit on calls at once, retries."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from synaptic.backends.base import Backend
from synaptic.backends.scripted import Failure, Reply, ScriptedBackend
from synaptic.errors import (
    BackendBusy,
    BackendUnavailable,
    CallTimeout,
    EngineCrashed,
    FirstTokenTimeout,
    IdleTimeout,
    ModelNotFound,
    ServerError,
)
from synaptic.messages import ChatRequest, Chunk, Message, ModelInfo, Timeouts
from synaptic.runtime.policies import BackendWrapper, Backoff, Limited, Retrying, Timed

SHORT = 0.05
NO_WAIT = Backoff(first=0.0, longest=0.0)


def ask(tag: str = "", **timeouts: float) -> ChatRequest:
    return ChatRequest(messages=(Message("user", "hello there"),), tag=tag, timeouts=Timeouts(**timeouts))


async def text_of(backend: Backend, request: ChatRequest) -> str:
    """Return the text of a reply, as a consumer that honours restarts collects it."""
    text = ""
    async for chunk in backend.stream(request):
        text = "" if chunk.restart else text + chunk.text
    return text


async def test_a_reply_in_time_passes_unchanged():
    backend = Timed(ScriptedBackend(["a b c"]))

    assert await text_of(backend, ask(first_token=5, idle=5, total=5)) == "a b c"
    assert backend.name == "scripted"


@pytest.mark.parametrize(
    ("answer", "timeouts", "error"),
    [
        (Failure("stall"), {"first_token": SHORT}, FirstTokenTimeout),
        (Failure("stall", after_tokens=2), {"first_token": 60.0, "idle": SHORT}, IdleTimeout),
        (Failure("stall", after_tokens=2), {"total": SHORT}, CallTimeout),
        (Failure("stall"), {"first_token": 60.0, "total": SHORT}, CallTimeout),
        (Reply(text="a " * 1000, token_delay=0.01), {"idle": 60.0, "total": SHORT}, CallTimeout),
    ],
)
async def test_each_bound_has_its_own_error(answer: object, timeouts: dict, error: type[Exception]):
    inner = ScriptedBackend([answer])

    with pytest.raises(error, match=r"0\.05 s") as caught:
        await text_of(Timed(inner), ask(**timeouts))

    assert caught.value.hint
    assert inner.active == 0


async def test_without_bounds_a_stream_may_take_as_long_as_it_likes():
    reply = Reply(text="a b c", token_delay=SHORT)

    assert await text_of(Timed(ScriptedBackend([reply], first_token_delay=SHORT)), ask()) == "a b c"


async def test_a_timeout_of_the_caller_is_not_taken_for_ours():
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SHORT):
            await text_of(Timed(ScriptedBackend([Failure("stall")])), ask(first_token=60))


async def test_a_backends_own_timeout_error_is_not_taken_for_ours():
    with pytest.raises(TimeoutError):
        await text_of(Timed(ScriptedBackend([TimeoutError()])), ask(first_token=60))


async def test_no_more_calls_than_the_limit_run_at_once():
    inner = ScriptedBackend([Reply(text="a b", token_delay=0.001)] * 12)
    backend = Limited(inner, 3)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(12):
            tasks.create_task(text_of(backend, ask()))

    assert inner.max_active == 3


async def test_a_cancelled_call_gives_its_place_back():
    inner = ScriptedBackend([Failure("stall"), "fine"])
    backend = Limited(inner, 1)
    stalled = asyncio.create_task(text_of(backend, ask()))
    while inner.active == 0:
        await asyncio.sleep(0)

    stalled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stalled

    assert await text_of(backend, ask()) == "fine"


@pytest.mark.parametrize("kind", ["unavailable", "busy", "server_error", "truncated", "crash"])
async def test_what_may_pass_is_asked_again(kind: str):
    inner = ScriptedBackend([Failure(kind), "fine"])

    assert await text_of(Retrying(inner, 1, NO_WAIT), ask()) == "fine"


@pytest.mark.parametrize("kind", ["not_found", "rejected", "protocol", "stream_failed"])
async def test_what_would_fail_again_is_not_asked_again(kind: str):
    inner = ScriptedBackend([Failure(kind), "never"])

    with pytest.raises(Exception, match="scripted"):
        await text_of(Retrying(inner, 5, NO_WAIT), ask())

    assert len(inner.requests) == 1


async def test_a_restart_in_the_middle_voids_what_came_before():
    inner = ScriptedBackend([Failure("crash", after_tokens=3), "fine words"])
    chunks = [chunk async for chunk in Retrying(inner, 1, NO_WAIT).stream(ask())]

    (restart,) = [chunk.restart for chunk in chunks if chunk.restart]
    assert restart.attempt == 2
    assert "died" in restart.reason
    assert "".join(chunk.text for chunk in chunks[4:]) == "fine words"


async def test_the_last_failure_is_raised_when_the_retries_are_used_up():
    inner = ScriptedBackend([Failure("server_error")] * 4)

    with pytest.raises(ServerError):
        await text_of(Retrying(inner, 3, NO_WAIT), ask())

    assert len(inner.requests) == 4


async def test_no_retries_means_one_request():
    inner = ScriptedBackend([Failure("crash"), "never"])

    with pytest.raises(EngineCrashed):
        await text_of(Retrying(inner, 0), ask())

    assert len(inner.requests) == 1


def test_the_wait_doubles_within_its_bounds():
    backoff = Backoff(first=1.0, longest=8.0)
    error = BackendUnavailable("x")

    for failures, full in [(1, 1), (2, 2), (3, 4), (4, 8), (10, 8)]:
        assert full / 2 <= backoff.delay(failures, error) <= full


def test_a_servers_own_wish_is_the_wait():
    backoff = Backoff(first=1.0, longest=8.0)

    assert backoff.delay(1, BackendBusy("x", retry_after=3.0)) == 3.0
    assert backoff.delay(1, BackendBusy("x", retry_after=300.0)) == 8.0
    assert backoff.delay(1, BackendBusy("x")) <= 1.0


class Silent:
    """A backend whose stream ends at once."""

    name = "silent"

    async def stream(self, request: ChatRequest) -> AsyncIterator[Chunk]:
        for chunk in ():
            yield chunk

    async def models(self) -> list[ModelInfo]:
        raise ModelNotFound("none")

    async def aclose(self) -> None:
        raise ModelNotFound("closed")


async def test_a_wrapper_hands_everything_on():
    wrapper = BackendWrapper(Timed(Retrying(Silent(), 1)))

    assert [chunk async for chunk in wrapper.stream(ask())] == []
    with pytest.raises(ModelNotFound, match="none"):
        await wrapper.models()
    with pytest.raises(ModelNotFound, match="closed"):
        await wrapper.aclose()
