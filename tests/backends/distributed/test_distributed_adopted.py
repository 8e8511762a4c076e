"""A coordinator that another process keeps is used while it serves, and waited for while it is built again."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress

import pytest
from real_distributed import (  # noqa: F401 - two are fixtures
    MODEL,
    Answer,
    Local,
    Watched,
    ask,
    distributed,
    engine_in_home,
    kill,
    local_answers,
    spread,
    until,
)

from synaptic.backends.distributed.service.adopted import AdoptedBackend
from synaptic.backends.distributed.service.record import ServiceRecord, new_record, remove, with_status, write
from synaptic.errors import BackendUnavailable
from synaptic.runtime.session import Session
from synaptic.settings import Settings

pytestmark = [pytest.mark.real_model, pytest.mark.usefixtures("engine_here")]


@asynccontextmanager
async def published(watched: Watched) -> AsyncIterator[ServiceRecord]:
    """Publish a backend of this process as its service would: how it stands, five times a second and more."""
    first = new_record(MODEL, os.getpid())

    def now() -> ServiceRecord:
        credentials = watched.backend.credentials(MODEL)
        return with_status(first, watched.status, credentials[1] if credentials else None)

    async def publish() -> None:
        while True:
            write(now())
            await asyncio.sleep(0.05)

    await watched.backend.start()
    write(now())
    publishing = asyncio.create_task(publish())
    try:
        yield now()
    finally:
        publishing.cancel()
        with suppress(asyncio.CancelledError):
            await publishing
        remove(first)


async def test_a_call_of_another_program_goes_on_when_a_worker_of_the_service_dies(local: Local):
    prompt = "Tell of a bridge over a wide river."
    async with distributed(**await spread(2)) as watched, published(watched) as record:
        backend = AdoptedBackend(record)
        answer = Answer()
        async for chunk in backend.stream(ask(prompt)):
            answer.chunks.append(chunk)
            if len(answer.chunks) == 10:
                kill(watched.worker())
        (model,) = await backend.models()
        context = await backend.context_length(ask(prompt))
        await backend.aclose()

    assert answer.text == local.says(prompt)
    assert answer.breaks == 1
    assert answer.ends
    assert (model.name, model.loaded) == (MODEL, True)
    assert context is not None


async def test_the_calls_of_other_programs_are_shown():
    async with distributed(**await spread(1)) as watched, published(watched) as record:
        backend = AdoptedBackend(record)
        assert watched.status.calls == 0
        async with aclosing(backend.stream(ask("Count to a thousand.", tokens=1500))) as chunks:
            async for _ in chunks:
                if watched.status.calls == 1:
                    break
            else:
                pytest.fail("its service did not see it")
        await until(lambda: watched.status.calls == 0)
        await backend.aclose()


async def test_a_run_finds_the_service_and_starts_nothing():
    settings = Settings(
        model=MODEL, task_distribution_enabled=False, distributed_inference_enabled=True, pipeline="answer"
    )
    async with distributed(**await spread(1)) as watched, published(watched):
        before = {child.pid for child in watched.children()}
        async with Session(settings) as session:
            route = await session.route()
            result = await session.run("What is a lock?")
        after = {child.pid for child in watched.children()}

    assert "a service has it loaded" in route.reason
    assert result.status == "succeeded"
    assert before == after


async def test_a_service_that_has_ended_is_told():
    async with distributed(**await spread(1)) as watched:
        async with published(watched) as record:
            backend = AdoptedBackend(record)
        with pytest.raises(BackendUnavailable, match="no service has"):
            async for _ in backend.stream(ask("What is a key?")):
                pass
        await backend.aclose()
