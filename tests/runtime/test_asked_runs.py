"""A question is recorded when it is asked, not when the backend is ready for it: so no kill loses it."""

import asyncio
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from warm_python import ROOT

from synaptic import BackendUnavailable, ScriptedBackend, Session, Settings, paths
from synaptic.backends.base import Capabilities
from synaptic.messages import ChatRequest, Chunk
from synaptic.runtime import Journal, RunFinished, RunStarted, find_session, turns_of
from synaptic.runtime.events import Event
from synaptic.runtime.journal import new_run_id

SETTINGS = Settings(pipeline="answer", retries=0)
DRIVER = ROOT / "tests" / "support" / "slow_start_driver.py"


class Starting(ScriptedBackend):
    """A backend that takes its time, or does not come up at all.

    Attributes:
        began: Set once it starts.
    """

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.began = asyncio.Event()
        self._error = error
        self.capabilities = Capabilities(start=self.start)

    async def start(self) -> None:
        """Fail, or go on for ever."""
        self.began.set()
        if self._error is not None:
            raise self._error
        await asyncio.Event().wait()


async def asked(program: Session, backend: Starting, events: list[Event], **options: object) -> asyncio.Task:
    """Return a run whose backend starts."""
    task = asyncio.create_task(program.run("Why?", on_event=events.append, **options))
    await backend.began.wait()
    await program.recorded()
    return task


async def test_a_question_is_recorded_before_the_backend_is_ready():
    backend, events, talk = Starting(), [], new_run_id()
    async with Session(SETTINGS, backend=backend) as session:
        task = await asked(session, backend, events, session=talk)
        with Journal() as journal:
            (run,) = journal.runs()
            assert (run.query, run.status, run.session) == ("Why?", "running", talk)
        assert events == [], "who listens hears of it when it begins"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [type(event) for event in events] == [RunStarted, RunFinished]
    assert (events[1].result.status, events[1].result.run_id) == ("cancelled", run.id)

    async with Session(SETTINGS, backend=ScriptedBackend(["because"])) as session:
        result = await session.resume(run.id)
    assert (result.answer, result.run_id) == ("because", run.id)


class Looking(ScriptedBackend):
    """A backend that looks, when it is called, at what is recorded by then.

    Attributes:
        recorded: The question of the last run that is.
    """

    recorded: str | None = None

    async def stream(self, request: ChatRequest) -> AsyncIterator[Chunk]:
        """Answer, after a look."""
        with Journal() as journal:
            self.recorded = next((run.query for run in journal.runs()), None)
        async for chunk in super().stream(request):
            yield chunk


async def test_a_turn_is_in_the_file_before_a_model_is_asked():
    backend = Looking()
    async with Session(SETTINGS, backend=backend) as session:
        assert (await session.run("Why?", session=new_run_id())).text
    assert backend.recorded == "Why?"


async def test_a_file_that_hangs_does_not_keep_a_turn_for_long(own_home: Path):
    async with Session(SETTINGS, backend=ScriptedBackend()) as session:
        await session.run("First?", session=new_run_id())
        with closing(sqlite3.connect(paths.journal_file(), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert (await session.run("Why?", session=new_run_id())).text
            other.execute("ROLLBACK")
    with Journal() as journal:
        assert [run.query for run in journal.runs()] == ["Why?", "First?"]


async def test_what_cannot_begin_has_failed_and_can_go_on():
    error, events = BackendUnavailable("the download broke off"), []
    backend = Starting(error)
    async with Session(SETTINGS, backend=backend) as session:
        with pytest.raises(BackendUnavailable):
            await session.run("Why?", on_event=events.append)
    with Journal() as journal:
        (run,) = journal.runs()
        assert (run.status, run.error, run.can_go_on) == ("failed", "the download broke off", True)
        assert list(journal.events(run))[-1].result.answer == ""
    assert events[-1].result.error is error

    backend = Starting(error)
    async with Session(SETTINGS, backend=backend) as session:
        with pytest.raises(BackendUnavailable):
            await session.resume(run.id)  # it stays as it was
    async with Session(SETTINGS, backend=ScriptedBackend(["because"])) as session:
        assert (await session.resume(run.id)).answer == "because"


@pytest.mark.parametrize("error", [None, BackendUnavailable("not there")])
async def test_without_a_journal_those_who_listen_hear_the_same(error: Exception | None, own_home: Path):
    backend, events = Starting(error), []
    async with Session(SETTINGS.model_copy(update={"journal": "off"}), backend=backend) as session:
        task = await asked(session, backend, events)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [type(event) for event in events] == [RunStarted, RunFinished]
    assert not paths.journal_file().exists()


async def test_a_rerun_is_recorded_before_the_backend_is_ready():
    async with Session(SETTINGS, backend=ScriptedBackend(["because"])) as session:
        first = await session.run("Why?")
    backend = Starting()
    async with Session(SETTINGS, backend=backend) as session:
        task = asyncio.create_task(session.rerun(first.run_id, inputs={"query": "Why not?"}))
        await backend.began.wait()
        await session.recorded()
        with Journal() as journal:
            assert [run.query for run in journal.runs()] == ["Why not?", "Why?"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_question_that_was_killed_while_a_model_was_loading_is_not_lost():
    talk = new_run_id()
    killed = await asyncio.create_subprocess_exec(sys.executable, str(DRIVER), talk)
    assert await killed.wait() == -signal.SIGKILL

    with Journal() as journal:
        (turn,) = turns_of(journal, find_session(journal))
    assert (turn.question, turn.answer, turn.status) == ("And in winter?", "", "interrupted")
    backend = ScriptedBackend(["In winter, too."])
    async with Session(SETTINGS, backend=backend) as session:
        result = await session.resume(turn.run_id)
    assert result.answer == "In winter, too."
    assert "Person: My name is Ada." in backend.requests[0].messages[-1].content
    with Journal() as journal:
        assert [turn.answer for turn in turns_of(journal, find_session(journal))] == ["In winter, too."]
