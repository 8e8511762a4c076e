"""Who holds which worker: claims of several processes, crashed holders, damaged files, and connections as evidence."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rpc_support import PATIENCE, free_port, local

from synaptic import paths
from synaptic.backends.distributed.workers.protocol import Endpoint
from synaptic.backends.distributed.workers.registry import CHECK, Worker, WorkerHeld, WorkerRegistry
from synaptic.backends.distributed.workers.who_talks import Link, open_links, talking, who_talks
from synaptic.errors import UsageError
from synaptic.processes.mark import process_mark
from synaptic.processes.state_file import only_one, read_json, replace_json

COORDINATOR = "the coordinator of llama3.1:70b"
A, B, C = (Worker(Endpoint(f"10.0.0.{number}", 50052), (f"10.0.0.{number}",)) for number in (1, 2, 3))


@pytest.fixture
def registry() -> WorkerRegistry:
    return WorkerRegistry()


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


# -- claims ------------------------------------------------------------------------------------------------------------


def test_nobody_holds_anything_at_first(registry: WorkerRegistry):
    assert registry.holders() == []
    assert registry.holder_of(A) is None
    assert not paths.worker_registry_file().exists()


def test_a_claim_is_exclusive_and_ends_with_its_release(registry: WorkerRegistry):
    claim = registry.claim([A, B], COORDINATOR)
    with pytest.raises(WorkerHeld) as refused:
        registry.claim([C, B], "the coordinator of another")
    assert f"10.0.0.2:50052 is held by {COORDINATOR} (process {os.getpid()})" in refused.value.message
    assert refused.value.holder.by == COORDINATOR
    assert registry.holder_of(C) is None, "all or none"
    registry.release("no such claim")
    assert registry.holder_of(A) is not None
    registry.release(claim)
    registry.release(claim)
    assert registry.holders() == []


def test_one_process_may_hold_different_workers_by_different_claims(registry: WorkerRegistry):
    first, second = registry.claim([A], "one"), registry.claim([B], "two")
    registry.release(first)
    assert [holder.by for holder in registry.holders()] == ["two"]
    registry.release(second)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (Worker(Endpoint("desk", 50052), ("10.0.0.1",)), True),
        (Worker(Endpoint("10.0.0.1", 50052)), True),
        (Worker(Endpoint("10.0.0.1", 50053), ("10.0.0.1",)), False),
        (Worker(Endpoint("desk", 50052), ("10.0.0.9", "10.0.0.1")), True),
        (Worker(Endpoint("desk", 50052)), False),
    ],
)
def test_two_names_may_mean_one_worker(registry: WorkerRegistry, other: Worker, *, same: bool):
    registry.claim([A], COORDINATOR)
    assert (registry.holder_of(other) is not None) == same


def test_the_entry_of_a_process_that_ended_is_void(registry: WorkerRegistry):
    process = sleeper()
    try:
        registry.claim([A], COORDINATOR, pid=process.pid)
        held = registry.holder_of(A)
        assert held is not None
        assert held.pid == process.pid
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, but stays as a zombie
        assert registry.holder_of(A) is None
    finally:
        end(process)
    assert registry.holders() == []
    registry.claim([A], "another")
    assert [holder["by"] for holder in json.loads(paths.worker_registry_file().read_text())["holders"]] == ["another"]


def test_the_number_of_a_process_alone_proves_nothing(registry: WorkerRegistry):
    """A number is given to another process sooner or later; that one holds nothing."""
    registry.claim([A], COORDINATOR)
    file = paths.worker_registry_file()
    document = read_json(file, missing=None)
    document["holders"][0]["mark"] += "1"
    replace_json(file, document)
    assert registry.holder_of(A) is None


def test_a_claim_for_a_process_that_has_ended_already_is_void(registry: WorkerRegistry):
    process = sleeper()
    end(process)
    registry.claim([A], COORDINATOR, pid=process.pid)
    assert registry.holder_of(A) is None


def test_a_holder_on_another_machine_is_believed(registry: WorkerRegistry):
    registry.claim([A], COORDINATOR)
    file = paths.worker_registry_file()
    document = read_json(file, missing=None)
    document["holders"][0].update(machine="elsewhere", pid=1, numbers="another")
    replace_json(file, document)
    with pytest.raises(WorkerHeld, match=r"process 1 on elsewhere") as refused:
        registry.claim([A], "mine")
    assert f"remove {file}" in (refused.value.hint or "")


def test_a_holder_is_known_whatever_its_machine_is_called_by_now(registry: WorkerRegistry):
    registry.claim([A], COORDINATOR)
    file = paths.worker_registry_file()
    document = read_json(file, missing=None)
    document["holders"][0]["machine"] = "the name in another network"
    replace_json(file, document)
    assert registry.holders()[0].here
    document["holders"][0]["mark"] += "1"
    replace_json(file, document)
    assert registry.holders() == [], "its process has ended, and that can be known"


def test_an_entry_that_does_not_say_where_numbers_count_goes_by_the_name_of_its_machine(registry: WorkerRegistry):
    """As every entry was written before."""
    registry.claim([A, B], COORDINATOR)
    file = paths.worker_registry_file()
    document = read_json(file, missing=None)
    for entry in document["holders"]:
        del entry["numbers"]
    document["holders"][1]["mark"] += "1"
    replace_json(file, document)
    (holder,) = registry.holders()
    assert (holder.here, holder.alive, holder.port) == (True, True, A.endpoint.port)


def test_marks():
    process = sleeper()
    try:
        mark = process_mark(process.pid)
        assert mark is not None
        assert mark == process_mark(process.pid)
        assert mark != process_mark(os.getpid())
    finally:
        end(process)
    assert process_mark(process.pid) is None


def test_many_processes_claim_one_worker_and_one_gets_it(registry: WorkerRegistry):
    program = (
        "import sys\n"
        "from synaptic.backends.distributed.workers.registry import *\n"
        "from synaptic.backends.distributed.workers.protocol import Endpoint\n"
        "input()\n"
        "registry = WorkerRegistry()\n"
        "registry.claim([Worker(Endpoint('own', int(sys.argv[1])))], 'own')\n"
        "try:\n"
        "    registry.claim([Worker(Endpoint('shared', 1))], sys.argv[1])\n"
        "    print('mine', flush=True)\n"
        "except WorkerHeld as held:\n"
        "    print('held', flush=True)\n"
        "input()\n"
    )
    command = [sys.executable, "-c", program]
    processes = [
        subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(1, 6)
    ]
    try:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        said = [process.stdout.readline().strip() for process in processes if process.stdout is not None]
        assert sorted(said) == ["held"] * 4 + ["mine"]
        holders = registry.holders()
        assert sorted(holder.port for holder in holders if holder.host == "own") == [1, 2, 3, 4, 5], "none is lost"
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert registry.holders() == []


# -- holding for a block -----------------------------------------------------------------------------------------------


async def test_held_for_a_block(registry: WorkerRegistry):
    with pytest.raises(ZeroDivisionError):
        async with registry.held([A], COORDINATOR):
            assert registry.holder_of(A) is not None
            raise ZeroDivisionError
    assert registry.holders() == []


async def test_a_check_is_waited_for_and_a_coordinator_is_not(registry: WorkerRegistry):
    claim = registry.claim([A], CHECK)
    waiting = asyncio.create_task(_hold(registry))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    registry.release(claim)
    async with asyncio.timeout(PATIENCE):
        await waiting
    registry.claim([A], COORDINATOR)
    with pytest.raises(WorkerHeld):
        await _hold(registry)


async def test_the_wait_for_a_check_has_an_end(registry: WorkerRegistry):
    registry.claim([A], CHECK)
    with pytest.raises(WorkerHeld, match=CHECK):
        async with registry.held([A], COORDINATOR, patience=0.2):
            raise AssertionError


async def _hold(registry: WorkerRegistry) -> None:
    async with registry.held([A], COORDINATOR, patience=PATIENCE):
        pass


# -- files that are not as they should be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", "null", '{"holders": 7}', '{"holders": [{}]}', '{"holders": [{"host": 1}]}', "[" * 9999],
)
def test_a_file_that_says_nothing_is_not_taken_for_nobody(registry: WorkerRegistry, text: str):
    file = paths.worker_registry_file()
    file.parent.mkdir(parents=True)
    file.write_text(text)
    for attempt in (registry.holders, lambda: registry.claim([A], COORDINATOR)):
        with pytest.raises(UsageError, match="does not say who holds which worker") as wrong:
            attempt()
        assert str(file) in wrong.value.message
        assert "remove the file" in (wrong.value.hint or "")
    assert file.read_text() == text


def test_a_place_that_cannot_be_written(registry: WorkerRegistry):
    directory = paths.state_dir()
    directory.parent.mkdir(parents=True)
    directory.write_text("a file where the directory belongs")
    with pytest.raises(UsageError, match="cannot be written") as wrong:
        registry.claim([A], COORDINATOR)
    assert "XDG_STATE_HOME" in (wrong.value.hint or "")


def test_a_document_is_replaced_whole_or_not_at_all(tmp_path: Path):
    file = tmp_path / "deep" / "file.json"
    assert read_json(file, missing=7) == 7
    replace_json(file, {"a": 1})
    with pytest.raises(TypeError):
        replace_json(file, {"a": object()})
    assert read_json(file, missing=None) == {"a": 1}
    assert [path.name for path in file.parent.iterdir()] == ["file.json"]


def test_a_lock_that_is_never_given_back_is_waited_for_only_so_long(tmp_path: Path):
    file = tmp_path / "file"
    with only_one(file), pytest.raises(TimeoutError, match="locked by another process"), only_one(file, patience=0.1):
        raise AssertionError


# -- connections as evidence -------------------------------------------------------------------------------------------

OWN = frozenset({"192.168.1.5"})
HERE = Worker(Endpoint("127.0.0.1", 50052), ("127.0.0.1",))


@pytest.mark.parametrize(
    ("worker", "local_end", "remote_end", "found"),
    [
        (A, ("192.168.1.5", 40000), ("10.0.0.1", 50052), True),
        (A, ("192.168.1.5", 40000), ("10.0.0.2", 50052), False),
        (A, ("192.168.1.5", 40000), ("10.0.0.1", 22), False),
        (A, ("192.168.1.5", 50052), ("10.0.0.9", 40000), False),
        (HERE, ("127.0.0.1", 40000), ("127.0.0.1", 50052), True),
        (HERE, ("127.0.0.1", 50052), ("127.0.0.1", 40000), True),
        (HERE, ("192.168.1.5", 50052), ("192.168.1.9", 40000), True),
        (HERE, ("192.168.1.5", 40000), ("192.168.1.5", 50052), True),
        (HERE, ("192.168.1.5", 40000), ("192.168.1.9", 50052), False),
        (HERE, ("127.0.0.1", 40000), ("127.0.0.1", 50053), False),
    ],
)
def test_whose_connection_it_is(
    worker: Worker, local_end: tuple[str, int], remote_end: tuple[str, int], *, found: bool
):
    link = Link(local_end, remote_end, 7)
    assert (talking(worker, [link], OWN) == link) == found


def test_the_client_is_named_where_both_ends_are_here():
    at_worker = Link(("127.0.0.1", 50052), ("127.0.0.1", 40000), 1)
    at_client = Link(("127.0.0.1", 40000), ("127.0.0.1", 50052), 2)
    assert talking(HERE, [at_worker, at_client], OWN) == at_client
    assert talking(HERE, [at_client, at_worker], OWN) == at_client


def test_a_real_connection_is_seen_and_its_end_too():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        worker = Worker(local(port), ("127.0.0.1",))
        assert who_talks(worker) is None
        with socket.create_connection(("127.0.0.1", port)):
            if not list(open_links()):
                pytest.skip("this system shows connections to root only")
            said = who_talks(worker)
            assert said is not None
            assert f"(process {os.getpid()})" in said
        assert who_talks(worker) is None
        assert who_talks(replace(worker, endpoint=local(free_port()))) is None
