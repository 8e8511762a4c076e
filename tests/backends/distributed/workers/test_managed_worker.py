"""Managed workers, with the real RPC server: they listen, are kept running, and leave nothing behind."""

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from engine_support import SIGILL, stand_in
from hurt_support import ALWAYS, Hurt
from managed_worker_support import PATIENCE, installed_engine, managed, until, within  # noqa: F401 - a fixture
from rpc_support import HELLO, free_port, holding

from synaptic.backends.distributed.engine.engine import Engine, locate
from synaptic.backends.distributed.workers import managed as managed_worker
from synaptic.backends.distributed.workers.managed import ManagedWorker, WorkerPhase
from synaptic.backends.distributed.workers.probe import conversation
from synaptic.backends.distributed.workers.protocol import decode_pair
from synaptic.errors import BackendUnavailable, UsageError
from synaptic.messages import BackendNotice
from synaptic.processes import STARTS, child
from synaptic.processes.ports import is_free
from synaptic.processes.watch import is_listening
from synaptic.waiting import Rules

DRIVER = Path(__file__).parents[3] / "support" / "managed_worker_driver.py"


def scripted(engine: Engine, directory: Path, rpc: str) -> Engine:
    """The engine with another RPC server."""
    return replace(engine, files=locate(stand_in(directory, rpc=rpc)))


async def test_it_listens_when_it_has_started_and_is_gone_when_it_was_stopped(engine: Engine):
    async with managed(engine, threads=2) as worker:
        assert worker.running
        assert worker.phase is WorkerPhase.RUNNING
        assert worker.generation == 1
        pid = worker.pid
        command = psutil.Process(pid).cmdline()
        assert command[1:] == ["--host", "127.0.0.1", "--port", str(worker.endpoint.port), "--threads", "2"]
        await worker.start()
        assert worker.pid == pid
        facts = worker.facts()
        assert facts.alive
        assert is_listening(pid, worker.endpoint.port)
        assert not facts.serving
        assert facts.restarts == 0
        assert facts.threads == 2
        assert facts.device
        assert 1 << 20 < facts.resident_bytes < 1 << 28
        assert facts.resident_bytes < facts.memory_bytes <= psutil.virtual_memory().total
    assert worker.phase is WorkerPhase.STOPPED
    assert not worker.running
    assert worker.pid is None
    assert not psutil.pid_exists(pid)
    await worker.stop()
    after = worker.facts()
    assert (after.alive, after.resident_bytes) == (False, 0)
    with pytest.raises(BackendUnavailable, match="local worker test is stopped"):
        await worker.wait_running()


async def test_nobody_has_connected_to_it_when_it_is_ready(engine: Engine):
    async with managed(engine) as worker:
        async with conversation(worker.endpoint) as talk:
            assert str(talk.version) == engine.facts.rpc_version
            await until(lambda: worker.serving)
            assert worker.clients() == (f"127.0.0.1:{talk._socket.getsockname()[1]}",)
            assert worker.facts().serving
        await until(lambda: not worker.serving)
        assert worker.clients() == ()
        assert [line for line in worker.tail if "connection" in line] == [
            "Accepted client connection",
            "Client connection closed",
        ]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGSTOP])
async def test_it_is_started_again_at_its_port_however_it_ended(engine: Engine, number: signal.Signals):
    said: list[object] = []
    async with managed(engine, report=said.append) as worker:
        endpoint, pid = worker.endpoint, worker.pid
        os.kill(pid, number)
        await within(worker.wait_change(1))
        assert not worker.running or worker.generation > 1
        await within(worker.wait_running())
        assert worker.generation == 2
        assert worker.endpoint == endpoint
        assert worker.pid != pid
        assert not psutil.pid_exists(pid)
        assert worker.facts().restarts == 1
        await until(lambda: said)
        notice = said[0]
        assert isinstance(notice, BackendNotice)
        assert ("stopped by a signal" if number is signal.SIGSTOP else number.name) in notice.message
        assert notice.message.endswith("it runs again")


async def test_it_comes_back_while_a_client_holds_it(engine: Engine):
    """What is left of the client's connection at the port must not keep the new one from listening."""
    async with managed(engine) as worker:
        with holding(worker.endpoint.port) as client:
            os.kill(worker.pid, signal.SIGKILL)
            await within(worker.wait_change(1))
            await within(worker.wait_running())
            assert client.recv(1) == b""
        async with conversation(worker.endpoint) as talk:
            assert str(talk.version) == engine.facts.rpc_version


async def test_a_client_that_hangs_up_before_its_answer_does_not_end_it(engine: Engine):
    """Without SIGPIPE ignored the server would die here."""
    async with managed(engine) as worker:
        with holding(worker.endpoint.port), socket.create_connection(worker.endpoint) as rude:
            rude.sendall(HELLO)
        await until(lambda: not worker.serving)
        async with conversation(worker.endpoint):
            pass
        assert worker.generation == 1


async def test_restart_on_purpose_also_while_it_hangs_or_is_down(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(child, "LOOK_SECONDS", 600.0)
    said: list[object] = []
    async with managed(engine, report=said.append) as worker:
        await within(worker.restart("the coordinator asked"))
        assert worker.generation == 2
        assert "was ended: the coordinator asked" in said[-1].message
        os.kill(worker.pid, signal.SIGSTOP)
        await until(lambda: not worker.facts().alive)
        await within(worker.restart("it hangs"))
        assert worker.facts().alive
        for _ in range(3):
            os.kill(worker.pid, signal.SIGKILL)
            await within(worker.wait_change(worker.generation))
            await within(worker.restart("it is down"))
        assert worker.running
        os.kill(worker.pid, signal.SIGKILL)
        both = asyncio.gather(worker.restart("one"), worker.restart("the other"))
        await within(both)
        assert worker.running
    await worker.restart("it was stopped")
    assert worker.running
    await worker.stop()


@pytest.mark.parametrize(("number", "how"), [("KILL", "was killed by SIGKILL"), ("STOP", "was stopped by a signal")])
async def test_one_that_is_lost_while_it_starts_is_started_again_up_to_a_bound(
    engine: Engine, number: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(child, "LOOK_SECONDS", 0.05)
    once, ever = Hurt(tmp_path / "once", number, 1), Hurt(tmp_path / "ever", number, ALWAYS)
    lucky = scripted(engine, tmp_path / "once", once.script(engine.files.rpc_server))
    async with managed(lucky) as worker:
        assert (once.starts, worker.generation) == (2, 1)
        async with conversation(worker.endpoint) as talk:
            assert str(talk.version) == engine.facts.rpc_version
    never = scripted(engine, tmp_path / "ever", ever.script(engine.files.rpc_server))
    with pytest.raises(BackendUnavailable, match=f"the local worker test at .* {how}"):
        async with managed(never):
            pass
    assert ever.starts == STARTS


async def test_an_engine_that_cannot_run_is_told_with_its_last_words(engine: Engine, tmp_path: Path):
    broken = scripted(engine, tmp_path, "#!/bin/sh\necho 'no such instruction' >&2\nexit 4\n")
    worker = ManagedWorker(broken, threads=1, memory_bytes=None, cache_dir=None, name="broken")
    with pytest.raises(BackendUnavailable, match=r"exited with status 4: no such instruction") as caught:
        await worker.start()
    assert str(worker.log_file) in (caught.value.hint or "")
    assert "no such instruction" in worker.log_file.read_text()
    assert worker.phase is WorkerPhase.STOPPED
    killed = ManagedWorker(
        scripted(engine, tmp_path / "ill", SIGILL), threads=1, memory_bytes=None, cache_dir=None, name="ill"
    )
    with pytest.raises(BackendUnavailable, match="was killed by SIGILL"):
        await killed.start()


async def test_one_that_never_listens_is_given_up(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(managed_worker, "LISTEN_SECONDS", 0.3)
    sleeper = scripted(engine, tmp_path, f"#!{sys.executable}\nimport time\ntime.sleep(600)\n")
    worker = ManagedWorker(sleeper, threads=1, memory_bytes=None, cache_dir=None, name="sleeper")
    with pytest.raises(BackendUnavailable, match=r"does not listen after 0.3 s"):
        await worker.start()
    assert psutil.Process().children() == []


ONCE = """#!{python}
import os, socket, sys, time
mark = {mark!r}
if os.path.exists(mark):
    print("Failed to accept client connection", file=sys.stderr)
    sys.exit(0)
open(mark, "w").close()
server = socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])))
server.accept()
"""


async def test_one_that_ends_again_and_again_is_given_up(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It exits with status 0, as the RPC server does when it cannot take a connection."""
    monkeypatch.setattr(Rules, "WORKER", replace(Rules.WORKER, delays=(0.0, 0.01)))
    mark = str(tmp_path / "mark")
    said: list[object] = []
    async with managed(
        scripted(engine, tmp_path, ONCE.format(python=sys.executable, mark=mark)), report=said.append
    ) as worker:
        socket.create_connection(worker.endpoint).close()
        with pytest.raises(BackendUnavailable, match=r"again and again.*exited with status 0") as caught:
            while True:
                await within(worker.wait_change(worker.generation))
                await within(worker.wait_running())
        assert "Failed to accept client connection" in caught.value.message
        assert worker.phase is WorkerPhase.FAILED
        assert worker.failure is caught.value
        assert said[-1] == BackendNotice("distributed", caught.value.message, "warning")
        with pytest.raises(BackendUnavailable, match="again and again"):
            await worker.wait_running()
        Path(mark).unlink()
        await within(worker.restart("a person has mended it"))
        assert worker.running
        assert worker.failure is None


async def test_a_port_that_is_taken_is_told(engine: Engine):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        worker = ManagedWorker(engine, port=port, threads=1, memory_bytes=None, cache_dir=None, name="second")
        with pytest.raises(BackendUnavailable, match=f"port {port} at 127.0.0.1 is taken by another program"):
            await worker.start()


async def test_a_port_of_our_own_choice_that_was_taken_meanwhile_is_replaced(engine: Engine):
    worker = ManagedWorker(engine, threads=1, memory_bytes=None, cache_dir=None, name="mover")
    before = worker.endpoint
    with socket.create_server(before):
        await worker.start()
        assert worker.endpoint != before
    await worker.stop()


async def test_a_port_that_is_taken_between_the_look_and_the_start_is_replaced(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    looks: list[bool] = []

    def look(host: str, port: int) -> bool:
        looks.append(len(looks) == 0 or is_free(host, port))
        return looks[-1]

    monkeypatch.setattr(managed_worker, "is_free", look)
    worker = ManagedWorker(engine, threads=1, memory_bytes=None, cache_dir=None, name="raced")
    before = worker.endpoint
    with socket.create_server(before):
        await worker.start()
        assert worker.endpoint != before
        assert looks[:2] == [True, False]
        assert is_listening(worker.pid, worker.endpoint.port)
    await worker.stop()


async def test_a_port_that_is_taken_while_it_is_down_is_waited_for(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    """Others rely on the port by now."""
    monkeypatch.setattr(Rules, "WORKER", replace(Rules.WORKER, delays=(0.5, *[0.05] * 50)))
    async with managed(engine) as worker:
        endpoint = worker.endpoint
        os.kill(worker.pid, signal.SIGKILL)
        await within(worker.wait_change(1))
        with socket.create_server(endpoint):
            for _ in range(3):
                await within(worker.changed())
            assert worker.generation == 1
        await within(worker.wait_running())
        assert worker.endpoint == endpoint
        assert worker.generation == 2


async def test_one_whose_port_stays_taken_is_given_up(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Rules, "WORKER", replace(Rules.WORKER, delays=(0.5, 0.05)))
    async with managed(engine) as worker:
        os.kill(worker.pid, signal.SIGKILL)
        await within(worker.wait_change(1))
        with (
            socket.create_server(worker.endpoint),
            pytest.raises(BackendUnavailable, match=r"it does not start: port .* is taken by another program"),
        ):
            await within(worker.wait_running())


def test_an_address_of_another_machine_is_refused(engine: Engine):
    with pytest.raises(UsageError, match=r"203\.0\.113\.7 is not an IPv4 address of this machine"):
        ManagedWorker(engine, host="203.0.113.7", threads=1, memory_bytes=None, cache_dir=None, name="far")


@pytest.mark.skipif(sys.platform != "linux", reason="bounds are Linux's")
async def test_its_memory_is_bounded(engine: Engine):
    bound = 256 << 20
    async with managed(engine, memory_bytes=bound) as worker:
        assert worker.facts().memory_bytes == bound
        limit = resource.prlimit(worker.pid, resource.RLIMIT_DATA)[0]
        assert bound < limit < bound + (4 << 30)
        async with conversation(worker.endpoint) as talk:
            assert decode_pair(await talk.ask(talk.dialect.alloc_buffer(0, bound)))[0] != 0
            assert decode_pair(await talk.ask(talk.dialect.alloc_buffer(0, limit)))[0] == 0
        assert worker.generation == 1


async def test_a_start_that_is_cancelled_leaves_nothing(engine: Engine):
    worker = ManagedWorker(engine, port=free_port(), threads=1, memory_bytes=None, cache_dir=None, name="cancelled")
    for patience in (0.0, 0.02, 0.05, 0.1):
        try:
            async with asyncio.timeout(patience):
                await worker.start()
        except TimeoutError:
            assert psutil.Process().children() == []
        await worker.stop()
    assert psutil.Process().children() == []


async def test_a_stop_while_it_is_down_leaves_nothing(engine: Engine):
    async with managed(engine) as worker:
        os.kill(worker.pid, signal.SIGKILL)
        waiting = asyncio.create_task(worker.restart("somebody waits for it"))
        await worker.wait_change(1)
        await worker.stop()
        with pytest.raises(BackendUnavailable, match="is stopped"):
            await within(waiting)
    assert psutil.Process().children() == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_its_parent(engine: Engine, number: signal.Signals):
    command = [sys.executable, str(DRIVER), str(engine.files.directory), "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(psutil.pid_exists(pid) for pid in pids)
        parent.send_signal(number)
        parent.wait(PATIENCE)
    gone, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], PATIENCE)
    assert alive == [], gone
