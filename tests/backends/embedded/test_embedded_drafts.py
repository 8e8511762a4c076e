"""The embedded engine drafts as long as that pays, and starts again without for a call that wants log-probabilities."""

from __future__ import annotations

import asyncio

import pytest
from chunk_support import collected, finished

from synaptic.backends.drafts import ENOUGH, DraftRecord, DraftTally
from synaptic.backends.embedded.backend import EmbeddedBackend
from synaptic.messages import ChatRequest, Chunk, Delta, Message
from synaptic.settings import Settings

pytestmark = pytest.mark.real_model

TEXT = (
    "The lighthouse on the northern cliff was built in 1871 by two brothers who had lost their father to the sea. "
    "For sixty years they kept its lamp burning, first with whale oil and later with kerosene."
)


def repeat(**options: object) -> ChatRequest:
    message = Message("user", f"Repeat the following text word for word.\n\n{TEXT}")
    usual = {"temperature": 0.0, "max_tokens": 40, "repetition_guard": False}
    return ChatRequest(messages=(message,), **{**usual, **options})


async def chunks_of(backend: EmbeddedBackend, request: ChatRequest) -> list[Chunk]:
    return [chunk async for chunk in backend.stream(request)]


async def drafted(backend: EmbeddedBackend) -> int | None:
    timings = finished(await chunks_of(backend, repeat())).timings
    assert timings is not None
    return timings.drafted_tokens


async def test_a_text_that_repeats_another_is_drafted_and_stays_what_it_was() -> None:
    drafts, plain = EmbeddedBackend(Settings()), EmbeddedBackend(Settings(drafts=False))
    try:
        ours, theirs = [await chunks_of(backend, repeat()) for backend in (drafts, plain)]
    finally:
        await drafts.aclose()
        await plain.aclose()
    timings, without = finished(ours).timings, finished(theirs).timings
    assert timings is not None
    assert timings.accepted_tokens is not None
    assert timings.accepted_tokens >= 8
    assert without is not None
    assert without.drafted_tokens is None
    assert collected(ours) == collected(theirs)
    assert DraftRecord("embedded smollm2:135m").total.accepted == timings.accepted_tokens


async def test_a_call_that_wants_log_probabilities_gets_those_of_every_token() -> None:
    """The one before it, under way with drafts, is answered first; the engine of after it has none."""
    backend = EmbeddedBackend(Settings())
    try:
        before = asyncio.create_task(chunks_of(backend, repeat()))
        await backend.start()
        first = backend.pid
        chunks = await chunks_of(backend, repeat(logprobs=2))
        told = [one for chunk in chunks if isinstance(chunk, Delta) for one in chunk.logprobs]
        assert len(told) >= 20
        assert all(len(one.top) == 2 and one.logprob < 0 for one in told)
        assert finished(await before).finish_reason in {"stop", "length"}
        second = backend.pid
        assert second not in {None, first}
        assert await drafted(backend) is None
        assert backend.pid == second
    finally:
        await backend.aclose()


async def test_drafts_that_were_wrong_are_left() -> None:
    DraftRecord("embedded smollm2:135m").take("text", DraftTally(tokens=900, drafted=ENOUGH, accepted=1))
    backend = EmbeddedBackend(Settings())
    try:
        assert await drafted(backend) is None
    finally:
        await backend.aclose()


async def test_drafts_that_turn_out_wrong_are_left_before_the_next_call() -> None:
    backend = EmbeddedBackend(Settings())
    try:
        assert await drafted(backend) is not None
        first = backend.pid
        assert backend._drafts is not None
        backend._drafts.take("text", DraftTally(tokens=900, drafted=4 * ENOUGH, accepted=1))
        assert await drafted(backend) is None
        second = backend.pid
        assert second not in {None, first}
        assert await drafted(backend) is None
        assert backend.pid == second
    finally:
        await backend.aclose()
