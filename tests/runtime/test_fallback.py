"""Another model where the first one fails for good."""

import asyncio

import pytest
from chunk_support import collected, finished, of_kind

from synaptic.backends.base import Backend
from synaptic.backends.scripted import Failure, ScriptedBackend
from synaptic.errors import BackendBusy, ContextOverflow, EngineCrashed, ModelNotFound, RequestRejected
from synaptic.messages import ChatRequest, Chunk, Delta, Message, Restarted
from synaptic.runtime.policies import Retrying
from synaptic.runtime.policies.fallback import FallingBack
from synaptic.waiting import Backoff

NO_WAIT = Backoff((0.0,))
ASK = ChatRequest(messages=(Message("user", "hello there"),), model="first")


def by_model(**answers: object) -> ScriptedBackend:
    return ScriptedBackend(lambda request: answers[request.model or "none"])


async def chunks_of(backend: Backend, request: ChatRequest = ASK) -> list[Chunk]:
    return [chunk async for chunk in backend.stream(request)]


async def test_a_model_that_answers_is_the_only_one_that_is_asked():
    inner = by_model(first="fine")
    chunks = await chunks_of(FallingBack(inner, ["second"]))

    assert (collected(chunks), finished(chunks).model, len(inner.requests)) == ("fine", "first", 1)


async def test_the_next_model_is_named_and_voids_what_came_before():
    inner = by_model(first=Failure("rejected", after_tokens=2), second="fine")
    chunks = await chunks_of(FallingBack(inner, ["second"]))

    assert chunks[2] == Restarted(2, "the request was rejected (scripted)", 0.0, model="second")
    assert (collected(chunks), finished(chunks).model) == ("fine", "second")


async def test_attempts_are_counted_over_all_models():
    inner = by_model(first=Failure("crash"), second=Failure("crash"), third="fine")
    stack = FallingBack(Retrying(inner, 1, NO_WAIT), ["second", "third"])

    restarts = of_kind(Restarted, await chunks_of(stack))

    assert [(restart.attempt, restart.model) for restart in restarts] == [
        (2, None),
        (3, "second"),
        (4, None),
        (5, "third"),
    ]


async def test_if_all_fail_the_last_error_says_who_was_asked():
    inner = by_model(first=Failure("crash"), second=Failure("not_found"))

    with pytest.raises(ModelNotFound, match=r"not there \(scripted\) \(models asked: first, second\)") as caught:
        await chunks_of(FallingBack(inner, ["second"]))

    assert caught.value.backend == "scripted"
    assert isinstance(caught.value.__cause__, ModelNotFound)


async def test_an_error_that_is_raised_twice_says_it_once():
    error = BackendBusy("busy", retry_after=3.0)
    backend = FallingBack(ScriptedBackend(lambda _: error), ["second"])
    for _ in range(2):
        with pytest.raises(BackendBusy) as caught:
            await chunks_of(backend)
        assert caught.value.message == "busy (models asked: first, second)"
        assert caught.value.retry_after == 3.0


async def test_a_prompt_that_one_model_cannot_hold_goes_to_the_next():
    inner = by_model(first=ContextOverflow("too long"), second="fine")
    chunks = await chunks_of(FallingBack(inner, ["second"]))

    assert finished(chunks).model == "second"


async def test_a_model_that_is_named_twice_is_asked_once():
    inner = by_model(first=Failure("rejected"))

    with pytest.raises(RequestRejected, match=r"^the request was rejected \(scripted\)$"):
        await chunks_of(FallingBack(inner, ["first"]))

    assert len(inner.requests) == 1


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyError("x")])
async def test_a_bug_is_no_failure_of_a_model(error: Exception):
    inner = by_model(first=error, second="never")

    with pytest.raises(type(error)):
        await chunks_of(FallingBack(inner, ["second"]))


async def test_cancelling_ends_it_with_no_further_model():
    inner = by_model(first=Failure("stall"), second="never")
    task = asyncio.create_task(chunks_of(FallingBack(inner, ["second"])))
    while not inner.active:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (inner.active, len(inner.requests)) == (0, 1)


async def test_leaving_early_closes_the_stream():
    inner = by_model(first=Failure("crash"), second="one two")
    stream = FallingBack(inner, ["second"]).stream(ASK)
    while await anext(stream) != Delta("one"):
        pass
    await stream.aclose()
    assert inner.active == 0


async def test_an_engine_that_crashes_twice_is_an_engine_that_crashed():
    with pytest.raises(EngineCrashed):
        await chunks_of(FallingBack(by_model(first=Failure("crash"), second=Failure("crash")), ["second"]))
