"""The records of services: written, read, told from those of dead processes, waited for."""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from distributed_support import LOADING, READY
from hypothesis import given
from hypothesis import strategies as st

from synaptic import errors
from synaptic.backends.distributed.coordinator.states import CoordinatorState
from synaptic.backends.distributed.service.record import (
    ServiceFailure,
    ServiceRecord,
    current,
    last_words,
    model_key,
    new_record,
    read_records,
    record_of,
    remove,
    services_dir,
    slug,
    starting,
    wait_until_ready,
    with_status,
    write,
)
from synaptic.errors import BackendUnavailable, ModelNotFound, SynapticError, UsageError
from synaptic.models import name_key
from synaptic.processes import read_json, replace_json

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = "big:latest"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing until it is ended."""
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def written(pid: int | None = None, **changes: object) -> ServiceRecord:
    record = replace(new_record(MODEL, os.getpid() if pid is None else pid), **changes)
    write(record)
    return record


# -- written and read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [None, LOADING, READY, replace(READY, placement=None, workers=(), log_file=None)])
def test_a_record_is_read_as_it_was_written(status):
    record = written(
        status=status, api_key="secret", failure=ServiceFailure(kind="ModelNotFound", message="no", hint=None)
    )
    assert record_of(MODEL) == record
    assert read_records() == [record]
    assert "secret" not in repr(record)


def test_only_its_user_may_read_it():
    record = written(api_key="secret")
    assert record.file.stat().st_mode & 0o777 == 0o600


def test_only_a_ready_one_with_an_address_can_be_called():
    assert written(status=READY).ready
    assert not written(status=replace(READY, url=None)).ready
    assert not written(status=LOADING).ready
    bare = written()
    assert (bare.ready, bare.state, bare.url) == (False, CoordinatorState.STOPPED, None)


def test_without_a_name_the_only_service_is_meant():
    assert record_of(None) is None
    record = written()
    assert record_of(None) == record
    write(replace(new_record("other", os.getpid()), started_at=record.started_at - 5))
    assert record_of(None) is None
    assert [one.model for one in read_records()] == ["other:latest", MODEL]


def test_one_name_for_each_way_to_write_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert model_key("llama3.1") == "llama3.1:latest"
    assert model_key("./m.gguf") == model_key("m.GGUF").replace("GGUF", "gguf") == str(tmp_path / "m.gguf")
    assert model_key("~/m.gguf") == str(Path.home() / "m.gguf")
    assert model_key("hf.co/a/b:Q4") == "hf.co/a/b:Q4"
    assert slug("library/Llama3.1:latest") == slug("llama3.1")


@given(one=st.text(min_size=1, max_size=100), other=st.text(min_size=1, max_size=100))
def test_slugs_are_file_names_and_differ(one: str, other: str):
    names = [slug(f"x{text}".replace("\0", "")) for text in (one, other)]
    assert all("/" not in name and not name.startswith(".") and len(name) < 100 for name in names)
    keys = [name_key(model_key(f"x{text}".replace("\0", ""))) for text in (one, other)]
    assert (names[0] == names[1]) == (keys[0] == keys[1])


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '"x"', '{"model": 1}', "\x00\xff"])
def test_what_is_not_understood_is_like_none(text: str):
    file = new_record(MODEL, os.getpid()).file
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf-8")
    assert record_of(MODEL) is None
    assert read_records() == []
    with starting(MODEL) as running:
        assert running is None


def test_what_cannot_be_read_is_said():
    new_record(MODEL, os.getpid()).file.mkdir(parents=True)
    with pytest.raises(UsageError, match="cannot be read"):
        read_records()
    with pytest.raises(UsageError, match="cannot be written"):
        written()


# -- the living and the dead -------------------------------------------------------------------------------------------


def test_the_record_of_a_dead_process_counts_for_nothing_and_is_removed(sleeper: subprocess.Popen[bytes]):
    record = written(sleeper.pid)
    assert record_of(MODEL) == record
    sleeper.kill()
    sleeper.wait()
    with starting(MODEL) as running:
        assert running is None
    assert last_words(MODEL) == record
    assert read_records() == []
    assert not record.file.exists()


def test_a_zombie_is_dead(sleeper: subprocess.Popen[bytes]):
    written(sleeper.pid)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert record_of(MODEL) is None


def test_a_number_that_was_given_to_another_process_is_not_the_service():
    record = written(mark="another boot+1")
    assert record_of(MODEL) is None
    assert not record.file.exists()


def test_records_of_another_machine_are_not_ours():
    record = written(machine=f"not {platform.node()}", pid=1, numbers="another")
    assert read_records() == []
    assert record_of(MODEL) is None
    assert record.file.exists()


def test_a_service_is_found_whatever_its_machine_was_called_when_it_started():
    record = written(machine="the name in another network")
    assert record_of(MODEL) == record
    assert read_records() == [record]
    with starting(MODEL) as running:
        assert running == record
    remove(record)
    assert not record.file.exists()


def test_a_record_of_before_is_read():
    """It does not say where numbers count."""
    record = written()
    document = read_json(record.file, missing=None)
    del document["numbers"]
    replace_json(record.file, document)
    assert record_of(MODEL) == replace(record, numbers="")


def test_a_record_that_was_replaced_is_not_removed(sleeper: subprocess.Popen[bytes]):
    old = written(sleeper.pid)
    new = written()
    remove(old)
    assert record_of(MODEL) == new
    remove(new)
    remove(new)
    assert record_of(MODEL) is None


def test_a_start_sees_what_runs():
    record = written()
    with starting(MODEL) as running:
        assert running == record


def test_errors_of_the_caller_are_the_callers():
    with pytest.raises(FileNotFoundError), starting(MODEL):
        raise FileNotFoundError("mine")


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in vars(errors) if name.endswith("Error")] + ["EngineCrashed", "Odd"])
def test_a_failure_keeps_the_family_of_its_error(name: str):
    kind = getattr(errors, name, None)
    error = ServiceFailure(kind=name, message="m", hint="h").error()
    assert (error.message, error.hint) == ("m", "h")
    usage = isinstance(kind, type) and issubclass(kind, UsageError)
    assert isinstance(error, UsageError) == usage
    assert error.exit_code == (2 if usage else 3)


def test_a_failure_of_an_error():
    error = ModelNotFound("no such model", hint="pull it")
    again = ServiceFailure.of(error).error()
    assert isinstance(again, ModelNotFound)
    assert str(again) == str(error)


def test_a_failure_is_over_when_the_coordinator_is_built_again():
    failed = with_status(written(), replace(READY, state=CoordinatorState.FAILED), None)
    failed = replace(failed, failure=ServiceFailure(kind="BackendError", message="lost"))
    assert with_status(failed, replace(READY, state=CoordinatorState.FAILED), None).failure is not None
    assert with_status(failed, LOADING, None).failure is None


# -- waiting -----------------------------------------------------------------------------------------------------------


async def test_wait_until_ready():
    record = written(status=LOADING)

    async def load() -> None:
        await asyncio.sleep(0.15)
        write(replace(record, status=READY))

    async with asyncio.TaskGroup() as group:
        group.create_task(load())
        found = await wait_until_ready(MODEL, 30)
    assert found.url == READY.url


async def test_wait_for_nothing():
    with pytest.raises(BackendUnavailable, match="no service has big:latest loaded"):
        await wait_until_ready(MODEL, 30)
    with pytest.raises(BackendUnavailable, match="no service has a model loaded"):
        await wait_until_ready(None, 30)


async def test_wait_for_too_long():
    written(status=LOADING)
    with pytest.raises(BackendUnavailable, match=r"not ready after 0 s: its service is loading"):
        await wait_until_ready(MODEL, 0)


async def test_wait_for_what_has_failed():
    written(failure=ServiceFailure(kind="ModelNotFound", message="there is no such model"))
    with pytest.raises(ModelNotFound, match="no such model"):
        await wait_until_ready(MODEL, 30)


async def test_wait_for_what_ends_meanwhile(sleeper: subprocess.Popen[bytes]):
    record = written(sleeper.pid, status=LOADING)

    async def end() -> None:
        await asyncio.sleep(0.15)
        sleeper.kill()
        sleeper.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(end())
        with pytest.raises(BackendUnavailable, match="has ended") as caught:
            await wait_until_ready(MODEL, 30)
    assert str(record.log_file) in (caught.value.hint or "")


def test_last_words_are_heard(sleeper: subprocess.Popen[bytes]):
    record = written(sleeper.pid)
    sleeper.kill()
    sleeper.wait()
    write(replace(record, failure=ServiceFailure(kind="BackendError", message="the worker said no")))
    with pytest.raises(SynapticError, match="the worker said no"):
        current(record)


def test_a_record_that_is_gone_while_its_process_is_not():
    record = written()
    record.file.unlink()
    assert current(record) == record
    assert services_dir().is_dir()
