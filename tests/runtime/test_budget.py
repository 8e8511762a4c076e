"""Budgets: counted while they are used, ended the moment they are used up."""

import pytest
from chunk_support import finished, of_kind

from synaptic.backends.base import Backend
from synaptic.backends.scripted import Failure, Reply, ScriptedBackend
from synaptic.errors import BudgetExceeded
from synaptic.messages import ChatRequest, Chunk, Delta, Message, Restarted
from synaptic.pipeline.spec.parts import BudgetSpec
from synaptic.runtime.policies import Retrying
from synaptic.runtime.policies.budget import BudgetMeter, Metered
from synaptic.runtime.policies.fallback import FallingBack
from synaptic.waiting import Backoff

NO_WAIT = Backoff((0.0,))


def ask(text: str = "one two three") -> ChatRequest:
    return ChatRequest(messages=(Message("user", text),))


async def chunks_until_error(backend: Backend, request: ChatRequest) -> tuple[list[Chunk], BudgetExceeded | None]:
    chunks: list[Chunk] = []
    try:
        async for chunk in backend.stream(request):
            chunks.append(chunk)  # noqa: PERF401 - kept although the loop fails
    except BudgetExceeded as exc:
        return chunks, exc
    return chunks, None


async def test_a_complete_reply_counts_its_prompt_and_its_tokens():
    meter = BudgetMeter(BudgetSpec(tokens=100))
    await chunks_until_error(Metered(ScriptedBackend(["a b c d"]), meter), ask())

    assert (meter.tokens, meter.calls) == (7, 1)


async def test_a_stream_is_closed_at_the_token_that_is_too_many():
    inner = ScriptedBackend([Reply(text="a b c d e f", thinking="Hm.")])
    meter = BudgetMeter(BudgetSpec(tokens=4))

    chunks, error = await chunks_until_error(Metered(inner, meter), ask())

    assert [chunk.text or chunk.thinking for chunk in of_kind(Delta, chunks)] == ["Hm.", "a", " b", " c"]
    assert error is not None
    assert (error.what, error.message) == ("tokens", "the budget of 4 tokens is used up")
    assert inner.active == 0


async def test_a_complete_reply_is_kept_although_its_prompt_was_too_long_for_the_budget():
    inner = ScriptedBackend()
    backend = Metered(inner, meter := BudgetMeter(BudgetSpec(tokens=4)))

    chunks, error = await chunks_until_error(backend, ask("a b c"))

    assert (finished(chunks).finish_reason, error, meter.tokens) == ("stop", None, 6)
    with pytest.raises(BudgetExceeded, match="4 tokens"):
        await anext(backend.stream(ask()))
    assert len(inner.requests) == 1


async def test_calls_are_counted_when_they_begin():
    inner = ScriptedBackend(["a"] * 3)
    backend = Metered(inner, BudgetMeter(BudgetSpec(calls=2)))
    for _ in range(2):
        assert (await chunks_until_error(backend, ask()))[1] is None

    _, error = await chunks_until_error(backend, ask())

    assert error is not None
    assert (error.what, error.message) == ("calls", "the budget of 2 calls is used up")
    assert len(inner.requests) == 2


async def test_what_a_broken_stream_has_sent_counts():
    meter = BudgetMeter(BudgetSpec(tokens=100))
    backend = Metered(ScriptedBackend([Failure("crash", after_tokens=3)]), meter)

    with pytest.raises(Exception, match="died"):
        await chunks_until_error(backend, ask())

    assert meter.tokens == 3


async def test_what_a_sub_pipeline_uses_is_used_by_the_one_around_it():
    run = BudgetMeter(BudgetSpec(tokens=8))
    inner = BudgetMeter(BudgetSpec(tokens=1000, seconds=3.0), run)
    free = BudgetMeter(None, inner)

    assert (run.root, inner.root, free.root) == (run, run, run)
    assert (run.is_limited, free.is_limited, BudgetMeter().is_limited) == (True, True, False)
    _, error = await chunks_until_error(Metered(ScriptedBackend(["a b c d e f g h i j"]), free), ask())

    assert error is not None
    assert "8 tokens" in error.message
    assert (free.tokens, inner.tokens, run.tokens) == (9, 9, 9)
    assert "the budget of 3 seconds is used up" in str(inner.time_is_up())


async def test_the_smaller_budget_inside_a_larger_one_ends_its_own_pipeline_only():
    run = BudgetMeter(BudgetSpec(calls=10))
    part = BudgetMeter(BudgetSpec(calls=1), run)
    backend = ScriptedBackend(["a"] * 3)
    await chunks_until_error(Metered(backend, part), ask())

    assert (await chunks_until_error(Metered(backend, part), ask()))[1] is not None
    assert (await chunks_until_error(Metered(backend, run), ask()))[1] is None
    assert (part.calls, run.calls) == (1, 2)


async def test_a_budget_that_is_used_up_is_neither_retried_nor_taken_to_another_model():
    inner = ScriptedBackend(["a b c d"] * 5)
    stack = FallingBack(Retrying(Metered(inner, BudgetMeter(BudgetSpec(tokens=2))), 3, NO_WAIT), ["other"])

    chunks, error = await chunks_until_error(stack, ask())

    assert error is not None
    assert len(inner.requests) == 1
    assert not of_kind(Restarted, chunks)


async def test_every_attempt_counts_as_a_call():
    inner = ScriptedBackend([Failure("crash")] * 5)
    meter = BudgetMeter(BudgetSpec(calls=3))

    _, error = await chunks_until_error(Retrying(Metered(inner, meter), 4, NO_WAIT), ask())

    assert error is not None
    assert len(inner.requests) == 3


async def test_a_large_budget_is_named_in_full():
    meter = BudgetMeter(BudgetSpec(tokens=1_000_000))

    with pytest.raises(BudgetExceeded, match="the budget of 1000000 tokens"):
        meter.add_tokens(1_000_001)
