"""Calls that a fault meets: with a schema, several at once, waiting ones, cancelled ones, and the end of it all."""

import asyncio
import json

import pytest
from real_distributed import (  # noqa: F401 - two are fixtures
    Local,
    ask,
    distributed,
    engine_in_home,
    externals,
    freeze,
    kill,
    local_answers,
    memory_for,
    real_shape,
    spread,
    until,
    within,
)

from synaptic import paths
from synaptic.backends.distributed.coordinator.states import CoordinatorState as State
from synaptic.errors import BackendError, BackendUnavailable

pytestmark = [pytest.mark.real_model, pytest.mark.usefixtures("engine_here")]

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 30},
        "colour": {"enum": ["red", "green", "blue"]},
        "legs": {"type": "integer", "minimum": 0, "maximum": 99},
        "story": {"type": "string", "minLength": 20, "maxLength": 80},
    },
    "required": ["name", "colour", "legs", "story"],
    "additionalProperties": False,
}


async def test_an_answer_with_a_schema_that_breaks_is_still_valid_json(local: Local):
    prompt = "Invent an animal, as JSON."
    async with distributed(**await spread(2)) as watched:
        answer = await watched.answer(prompt, lambda: kill(watched.worker()), tokens=150, schema=SCHEMA)

    animal = json.loads(answer.text)
    assert set(animal) == set(SCHEMA["required"])
    assert animal["colour"] in {"red", "green", "blue"}
    assert 20 <= len(animal["story"]) <= 80
    assert answer.breaks == 1
    assert answer.text == local.says(prompt, tokens=150, schema=SCHEMA)


async def test_an_answer_with_a_schema_that_breaks_twice_is_still_valid_json():
    async with distributed(**await spread(1)) as watched:

        def hurt() -> None:
            kill(watched.pid)
            watched.later(1.5, lambda: kill(watched.worker()))

        answer = await watched.answer("Invent a bird, as JSON.", hurt, after=14, tokens=150, schema=SCHEMA)

    assert set(json.loads(answer.text)) == set(SCHEMA["required"])


@pytest.mark.parametrize("calls", [2, 4])
async def test_calls_at_once_each_end_once_and_complete(calls: int):
    async with distributed(**await spread(2, distributed_parallel=2)) as watched:
        hurts = [lambda: kill(watched.worker()), *[None] * (calls - 1)]
        prompts = [f"Tell me a story about the number {number}." for number in range(3, 3 + calls)]
        answers = await asyncio.gather(
            *(watched.answer(prompt, hurt, tokens=30) for prompt, hurt in zip(prompts, hurts, strict=True))
        )

        assert watched.status.restarts == 1
        assert (watched.status.calls, watched.status.waiting) == (0, 0)
    for answer in answers:
        assert answer.ends in (["length"], ["stop"])
        last = answer.chunks[-1]
        assert last.usage is not None
        if answer.ends == ["length"]:
            assert last.usage.completion_tokens == 30
        assert len(answer.text) > 30


async def test_calls_that_come_while_it_recovers_wait_for_it():
    prompts = [f"Write a line about the month of {month}." for month in ("May", "June")]
    async with distributed(**await spread(1)) as watched:
        await watched.backend.load("smollm2:135m")
        kill(watched.worker())
        await watched.until(State.RESTARTING, State.PREFLIGHT, State.LOADING)
        first, second = [asyncio.create_task(watched.answer(prompt)) for prompt in prompts]
        await until(lambda: watched.status.waiting == 2)
        answers = [await first, await second]

        assert watched.status.waiting == 0
    assert [answer.breaks for answer in answers] == [0, 0]
    assert all(answer.ends in (["length"], ["stop"]) and len(answer.text) > 20 for answer in answers)


async def test_a_call_cancelled_while_it_is_continued_frees_everything(local: Local):
    async with distributed(**await spread(2)) as watched:
        call = asyncio.create_task(
            watched.answer("Write a very long poem.", lambda: kill(watched.worker()), tokens=200)
        )
        await watched.until_lost()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

        assert (watched.status.calls, watched.status.waiting) == (0, 0)
        await watched.until(State.READY)  # it comes back for the next one
        answer = await watched.answer("What is a poem?")
    assert answer.text == local.says("What is a poem?")


async def test_a_cancelled_call_stops_the_server_from_generating():
    async with distributed(**await spread(1)) as watched:
        chunks = watched.backend.stream(ask("Count from one to a thousand in words.", tokens=400))
        for _ in range(5):
            await anext(chunks)

        assert watched.status.calls == 1
        await chunks.aclose()
        assert watched.status.calls == 0
        answer = await within(watched.answer("Say yes.", tokens=5), 30)  # the one slot is free
    assert answer.ends


async def test_closing_before_anything_is_known_leaves_nothing():
    """The first start of all compiles what verifies the tensor cache."""
    for file in paths.tensor_cache_dir().glob("fnv-*"):
        file.unlink()
    async with distributed(**await spread(2)) as watched:
        call = asyncio.create_task(watched.answer("Who was Marie Curie?"))
        await watched.until(State.PREFLIGHT)
        await until(lambda: len(watched.children()) > 0)
        await within(watched.backend.aclose(), 20)
        with pytest.raises(BackendUnavailable):
            await call


@pytest.mark.parametrize("state", [State.PREFLIGHT, State.LOADING])
async def test_closing_while_it_is_brought_up_leaves_nothing(state: State):
    async with distributed(**await spread(2)) as watched:
        call = asyncio.create_task(watched.answer("Who was Ada Lovelace?"))
        await watched.until(state)
        await within(watched.backend.aclose(), 20)
        with pytest.raises(BackendUnavailable):
            await call
        with pytest.raises(BackendUnavailable, match="closed"):
            await watched.answer("Who was Alan Turing?")


async def test_closing_while_it_recovers_leaves_nothing():
    async with distributed(**await spread(2)) as watched:
        call = asyncio.create_task(watched.answer("Who was Grace Hopper?", lambda: freeze(watched.worker())))
        await watched.until_lost()
        await within(watched.backend.aclose(), 20)
        with pytest.raises(BackendError):
            await call


async def test_closing_while_it_waits_for_a_worker_leaves_nothing():
    shape = await real_shape()
    with externals(2) as workers:
        gib = memory_for(shape, 2)
        async with distributed(
            rpc_backends=[worker.settings(gib) for worker in workers], worker_return_wait=60.0
        ) as watched:
            call = asyncio.create_task(watched.answer("Who was Emmy Noether?", workers[0].end))
            await watched.until_lost()
            await watched.until(State.PREFLIGHT)
            await within(watched.backend.aclose(), 20)
            with pytest.raises(BackendError):
                await call


async def test_closing_while_calls_run_ends_them():
    async with distributed(**await spread(1)) as watched:
        call = asyncio.create_task(watched.answer("Write all that you know about rivers.", tokens=400))
        await until(lambda: bool(watched.backend.coordinators()) and watched.status.calls == 1)
        await within(watched.backend.aclose(), 20)
        with pytest.raises(BackendError):
            await call
