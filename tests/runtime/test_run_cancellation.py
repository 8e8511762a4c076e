"""A whole run, cancelled anywhere: no task, no socket and no process is left behind."""

import asyncio
import os
from collections.abc import Callable

import psutil
import pytest
from fault_server import FaultServer, json_reply, ollama_reply

from synaptic import RunFinished, RunStarted, Session, Settings, StepRetried, StepStarted, TokenDelta
from synaptic.runtime.events import Event

PIPELINE = "parallel"
STRUCTURED = ['{"key_facts": [', '"iron is a metal that rusts",', '"iron is heavy and it is hard"]}']


def ollama() -> FaultServer:
    """Return a server that answers every chat of the pipeline, in several pieces."""
    chat = [ollama_reply(STRUCTURED), ollama_reply(["a", " b", " c"])]
    return FaultServer(
        {
            "/api/tags": json_reply({"models": [{"name": "m:latest", "size": 1}]}),
            "/api/ps": json_reply({"models": []}),
            "/api/chat": chat,
        }
    )


@pytest.mark.parametrize("turns", range(0, 400, 9))
async def test_cancelling_a_run_over_sockets_after_any_turn(turns: int):
    """From routing to the last token: whatever was under way is closed."""
    before = asyncio.all_tasks()
    async with ollama() as server:
        settings = Settings(nodes=[{"url": server.url, "parallel": 4}], retries=0)
        async with Session(settings) as session:
            task = asyncio.create_task(session.run("What is iron?", pipeline=PIPELINE))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            # The watch of the nodes belongs to the session, which is still open; so does what the watch asks just now.
            watching = {each for each in left_since(before) if "pool/node/node_watch.py" in repr(each)}
            assert not left_since(before) - watching - {asked for each in watching for asked in awaited_by(each)}
        assert not left_since(before)
        await server.wait_until_idle()


THE_SERVERS = ("fault_server", "_accept_connection2")
"""The server runs in the same loop: its handlers, and asyncio's task that accepts a connection for it."""


def left_since(before: set[asyncio.Task]) -> set[asyncio.Task]:
    return {each for each in asyncio.all_tasks() - before if not any(name in repr(each) for name in THE_SERVERS)}


def awaited_by(task: asyncio.Task) -> list[asyncio.Task]:
    """Return the tasks that a task has gathered and waits for."""
    return list(getattr(task._fut_waiter, "_children", ()))


def children() -> list[psutil.Process]:
    return psutil.Process(os.getpid()).children(recursive=True)


@pytest.mark.real_model
@pytest.mark.usefixtures("brief_writers")
@pytest.mark.parametrize(
    "moment",
    [
        lambda event: not isinstance(event, RunStarted),
        lambda event: isinstance(event, RunStarted),
        lambda event: isinstance(event, StepStarted),
        lambda event: isinstance(event, TokenDelta),
        lambda event: isinstance(event, TokenDelta) and event.path == "merge",
    ],
    ids=["while the engine starts", "at the start", "at the first call", "in the first calls", "in the answer"],
)
async def test_cancelling_a_run_of_the_real_engine(moment: Callable[[Event], bool]):
    seen = asyncio.Event()
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        if moment(event):
            seen.set()

    async with Session(Settings(backend="embedded", embedded_threads=1), on_event=listen) as session:
        task = asyncio.create_task(session.run("What is iron?", pipeline=PIPELINE))
        async with asyncio.timeout(100):
            await seen.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    assert children() == []
    assert any(isinstance(event, RunFinished) for event in events) == any(isinstance(e, RunStarted) for e in events)


@pytest.mark.real_model
@pytest.mark.usefixtures("brief_writers")
async def test_a_run_outlives_its_engine():
    """The engine is killed in the middle of a call: the call is made again on a new one, and the run answers."""
    events: list[Event] = []
    killed: list[int] = []

    def listen(event: Event) -> None:
        events.append(event)
        if isinstance(event, TokenDelta) and not killed:
            (child,) = children()
            killed.append(child.pid)
            child.kill()

    async with Session(Settings(backend="embedded", embedded_threads=1), on_event=listen) as session:
        result = await session.run("What is iron?", pipeline=PIPELINE)

    assert result.status == "succeeded", result.error
    assert any(isinstance(event, StepRetried) for event in events)
    assert max(step.attempts for step in result.steps) >= 2
    assert children() == []
