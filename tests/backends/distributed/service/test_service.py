"""The service itself: what it writes down while its model loads, serves, is lost, comes back, cannot be had."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from distributed_support import LOADING, READY

from synaptic.backends.distributed.coordinator.states import CoordinatorState, CoordinatorStatus
from synaptic.backends.distributed.service import control as service_control
from synaptic.backends.distributed.service import service as service_module
from synaptic.backends.distributed.service.control import Launch, follow, launch, stop
from synaptic.backends.distributed.service.record import (
    ServiceRecord,
    last_words,
    new_record,
    read_records,
    services_dir,
    wait_until_ready,
    write,
)
from synaptic.backends.distributed.service.service import Service, run_here
from synaptic.errors import EngineUnavailable, SynapticError, UsageError
from synaptic.messages import BackendNotice, BackendProgress
from synaptic.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from synaptic.messages import Reporter

MODEL = "big:latest"
FAILED = replace(READY, state=CoordinatorState.FAILED, reason="worker 10.0.0.4:50053 is gone", url=None)


class Keeper:
    """Stands where the tests put it: a coordinator whose fate is in their hands."""

    def __init__(self) -> None:
        self.status: CoordinatorStatus | None = None
        self.loads: asyncio.Queue[CoordinatorStatus | Exception] = asyncio.Queue()
        self.settings = Settings()
        self.closed = False

    def __call__(self, settings: Settings, report: Reporter) -> Keeper:
        self.settings, self.report = settings, report
        return self

    async def load(self, model: str) -> CoordinatorStatus:
        assert model == MODEL
        became = await self.loads.get()
        if isinstance(became, Exception):
            if self.status is not None:
                self.status = replace(FAILED, reason=str(became))
            raise became
        self.status = became
        return became

    def coordinators(self) -> list[CoordinatorStatus]:
        return [] if self.status is None else [self.status]

    def credentials(self, model: str) -> tuple[str, str] | None:
        assert model == MODEL
        return None if self.status is None or self.status.url is None else (self.status.url, "secret")

    async def aclose(self) -> None:
        self.closed = True


class Running:
    """A service in a task of ours."""

    def __init__(self) -> None:
        self.keeper, self.ended, self.said, self.shown = Keeper(), asyncio.Event(), [], []
        self.record = new_record(MODEL, os.getpid())
        services_dir().mkdir(parents=True)
        write(self.record)
        settings = Settings(model="another", prewarm=["a third"])
        self.service = Service(self.record, settings, say=self.said.append, shown=self.shown.append, opened=self.keeper)
        self.task = asyncio.create_task(self.service.run(self.ended))

    async def until(self, found: Callable[[ServiceRecord], bool]) -> ServiceRecord:
        async with asyncio.timeout(60):
            while not ((record := last_words(MODEL)) is not None and found(record)):
                assert not self.task.done()
                await asyncio.sleep(0.01)
        return record

    async def end(self) -> None:
        self.ended.set()
        async with asyncio.timeout(60):
            await self.task


@pytest.fixture
async def running() -> Running:
    return Running()


async def test_what_is_written_from_the_start_to_the_end(running: Running):
    running.keeper.status = LOADING
    record = await running.until(lambda record: record.status is not None)
    assert (record.status, record.api_key, record.ready) == (LOADING, None, False)
    running.keeper.loads.put_nowait(READY)
    record = await wait_until_ready(MODEL, 60)
    assert (record.status, record.api_key) == (READY, "secret")
    running.keeper.report(BackendNotice("distributed", "a worker was restarted", "warning"))
    running.keeper.report(BackendProgress("distributed", "loading", 1, 2))
    await running.end()
    assert running.keeper.closed
    assert read_records() == []
    assert running.said == [
        "loading big:latest",
        "ready at http://127.0.0.1:4321",
        "warning: a worker was restarted",
        "stopped",
    ]
    assert running.shown[-1].status == READY


async def test_it_keeps_the_model_that_it_was_started_for_and_never_sleeps(running: Running):
    await running.until(lambda _: bool(running.said))
    settings = running.keeper.settings
    assert (settings.model, settings.prewarm, settings.coordinator_idle) == (MODEL, [], None)
    await running.end()


async def test_a_model_that_cannot_be_loaded(running: Running):
    running.keeper.loads.put_nowait(UsageError("this is no model", hint="name another"))
    with pytest.raises(UsageError, match="this is no model"):
        await running.task
    record = last_words(MODEL)
    assert running.keeper.closed
    assert record is not None and record.failure is not None
    assert (record.failure.message, record.failure.hint, record.url) == ("this is no model", "name another", None)


async def test_a_coordinator_that_was_given_up_is_tried_again(running: Running, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(service_module, "RETRY_SECONDS", 0.05)
    running.keeper.loads.put_nowait(READY)
    await wait_until_ready(MODEL, 60)
    running.keeper.status = FAILED
    record = await running.until(lambda record: record.failure is not None)
    assert record.failure is not None and record.failure.message == "worker 10.0.0.4:50053 is gone"
    with pytest.raises(EngineUnavailable, match="is gone"):
        await wait_until_ready(MODEL, 60)
    running.keeper.loads.put_nowait(EngineUnavailable("still gone"))
    await running.until(lambda record: record.failure is not None and record.failure.message == "still gone")
    running.keeper.loads.put_nowait(replace(READY, url="http://127.0.0.1:5555"))
    record = await running.until(lambda record: record.ready)
    assert record.url == "http://127.0.0.1:5555"
    assert running.said[-1] == "ready again"
    await running.end()


async def test_a_bug_in_looking_at_it_is_not_lost(running: Running):
    await running.until(lambda _: bool(running.said))
    running.keeper.coordinators = None
    with pytest.raises(TypeError):
        await running.task
    assert running.keeper.closed


async def test_a_record_that_cannot_be_written_does_not_end_it(running: Running):
    await running.until(lambda _: bool(running.said))
    running.record.file.unlink()
    running.record.file.mkdir()
    running.keeper.loads.put_nowait(READY)
    async with asyncio.timeout(60):
        while not any(text.startswith("the record was not written") for text in running.said):
            await asyncio.sleep(0.01)
    assert not running.task.done()
    running.record.file.rmdir()
    await running.end()


async def test_run_here_until_sigterm(monkeypatch: pytest.MonkeyPatch):
    keeper, shown = Keeper(), []
    monkeypatch.setattr(service_module, "_distributed", keeper)
    keeper.loads.put_nowait(READY)
    before = signal.getsignal(signal.SIGTERM)
    task = asyncio.create_task(run_here("big", Settings(), shown=shown.append))
    record = None
    async with asyncio.timeout(60):
        while record is None or not record.ready:
            await asyncio.sleep(0.02)
            record = last_words("big")
    assert record.foreground and record.pid == os.getpid()
    assert (await run_here("big", Settings(), shown=shown.append)) == record
    os.kill(os.getpid(), signal.SIGTERM)
    assert await task is None
    assert signal.getsignal(signal.SIGTERM) is before
    assert last_words("big") is None
    log = record.log_file.read_text(encoding="utf-8")
    assert f"[{os.getpid()}] ready at {READY.url}" in log


async def test_run_here_that_fails_leaves_no_record(monkeypatch: pytest.MonkeyPatch):
    keeper = Keeper()
    monkeypatch.setattr(service_module, "_distributed", keeper)
    keeper.loads.put_nowait(EngineUnavailable("no engine"))
    with pytest.raises(EngineUnavailable, match="no engine"):
        await run_here("big", Settings(), shown=lambda _: None)
    assert last_words("big") is None


# -- starting and ending processes -------------------------------------------------------------------------------------


async def test_the_start_of_a_model_that_is_not_there(tmp_path: Path):
    launched = launch(str(tmp_path / "none.gguf"), Settings())
    assert not launched.was_running
    seen: list[ServiceRecord] = []
    with pytest.raises(SynapticError, match=r"none\.gguf"):
        await follow(launched, seen.append)
    assert seen[0] == launched.record
    assert not launched.record.alive
    assert not launched.record.file.exists()


async def test_an_interrupted_start_ends_what_it_started(tmp_path: Path):
    launched = launch(str(tmp_path / "none.gguf"), Settings())
    task = asyncio.create_task(follow(launched, lambda _: None))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not launched.record.alive
    assert not launched.record.file.exists()


async def test_a_service_that_is_stopped_while_it_starts_is_not_waited_for(tmp_path: Path):
    launched = launch(str(tmp_path / "none.gguf"), Settings())
    os.kill(launched.record.pid, signal.SIGSTOP)
    with pytest.raises(EngineUnavailable, match="was stopped by a signal"):
        await follow(launched, lambda _: None)
    assert not launched.record.alive
    assert not launched.record.file.exists()


async def test_who_only_looks_on_ends_nothing():
    record = new_record(MODEL, os.getpid())
    services_dir().mkdir(parents=True)
    write(record)
    task = asyncio.create_task(follow(Launch(record, was_running=True), lambda _: None))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert read_records() == [record]
    again = launch(MODEL, Settings())
    assert again == Launch(record, was_running=True)


def test_one_that_does_not_end_by_itself_is_killed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(service_control, "STOP_SECONDS", 0.2)
    deaf = (
        "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", deaf], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"deaf\n"
        record = new_record(MODEL, process.pid)
        services_dir().mkdir(parents=True)
        write(record)
        assert asyncio.run(stop(record)) is False
        assert process.wait() == -signal.SIGKILL
    assert asyncio.run(stop(record)) is True
    assert read_records() == []


async def test_what_belongs_to_somebody_else_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    record = new_record(MODEL, os.getpid())

    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    with pytest.raises(EngineUnavailable, match="belongs to another user"):
        await stop(record)


def test_a_log_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    state = tmp_path / "state"
    (state / "synapticllamas").mkdir(parents=True)
    (state / "synapticllamas" / "logs").write_text("a file", encoding="utf-8")
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    with pytest.raises(EngineUnavailable, match="cannot be started"):
        launch(MODEL, Settings())
    assert read_records() == []
