"""``synaptic workers`` as a person runs it: list, check, start and stop."""

import asyncio
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import psutil
import pytest
from cli_support import MAIN, PATIENCE, run_here, run_process, wait_until
from engine_support import real_files
from managed_worker_support import installed_engine, managed, until  # noqa: F401 - a fixture
from rpc_support import free_port, holding, stand_in_process

from synaptic import paths
from synaptic.backends.distributed.engine.engine import Engine
from synaptic.backends.distributed.workers import served as served_workers
from synaptic.backends.distributed.workers.protocol import Endpoint
from synaptic.backends.distributed.workers.registry import Worker, WorkerRegistry
from synaptic.backends.distributed.workers.served import Served, end, recorded
from synaptic.backends.distributed.workers.tensor_cache import TensorCache
from synaptic.errors import BackendUnavailable, ExitCode, ModelNotFound, UsageError
from synaptic.messages import ignore_report
from synaptic.models.download import ModelStore
from synaptic.processes import process_mark, read_json, replace_json
from synaptic.ui.actions.serve_worker import Serving, public_warning, serve_worker, settings_line
from synaptic.ui.cli import run
from synaptic.waiting import Rules


def adopt_the_real_engine() -> None:
    """Home is moved, but the engine in the user's cache can be used from there."""
    file = paths.engine_choice_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"directory": str(real_files().directory)}))


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """``workers start`` in the background, once the worker listens."""
    adopt_the_real_engine()
    command = [sys.executable, MAIN, "workers", "start", "--threads", "1", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "config set rpc_backends" in line:
                    break
            yield process
        finally:
            process.kill()


def rpc_server_of(process: subprocess.Popen[str]) -> psutil.Process:
    (child,) = psutil.Process(process.pid).children()
    return child


def test_a_worker_is_started_listed_and_stopped():
    port = free_port()
    with started("--port", str(port)) as process:
        server = rpc_server_of(process)
        assert ["--port", str(port)] == server.cmdline()[3:5]
        listed = run_here("workers", "list")
        assert f"127.0.0.1:{port}" in listed.out
        assert f"127.0.0.1:{port} runs here, kept by process {process.pid}" in listed.err
        (row,) = json.loads(run_here("workers", "list", "--json").out)
        assert row["served_here"]["pid"] == process.pid
        assert row["in_settings"] is False
        assert row["held_by"] is None
        checked = run_here("workers", "check", f"127.0.0.1:{port}")
        assert checked.code == 0
        assert f"127.0.0.1:{port}: RPC 7.0.0, 1 device" in checked.out
        other = run_here("workers", "stop", "127.0.0.1:1")
        assert other.code == 2
        assert f"there is 127.0.0.1:{port}" in other.err
        outcome = run_process("workers", "stop", f"127.0.0.1:{port}")
        assert outcome.code == 0
        assert f"127.0.0.1:{port} was ended" in outcome.err
        assert process.wait(PATIENCE) == 0
        wait_until(lambda: not server.is_running(), "the server's end")
    nothing = run_here("workers", "stop")
    assert nothing.code == 0
    assert "no worker was started here" in nothing.err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGKILL, -9)]
)
def test_no_server_is_left_however_the_command_ends(number: signal.Signals, code: int):
    with started("--port", str(free_port()), "--no-cache") as process:
        server = rpc_server_of(process)
        assert "--cache" not in server.cmdline()
        process.send_signal(number)
        assert process.wait(PATIENCE) == code
        wait_until(lambda: not server.is_running(), "the server's end")
    assert served_workers.served_workers() == []


def test_a_port_that_is_taken_is_told():
    adopt_the_real_engine()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        outcome = run_process("workers", "start", "--port", str(port))
    assert outcome.code == 3
    assert f"error: port {port} at 127.0.0.1 is taken by another program" in outcome.err
    assert "hint: end that one, or name another port" in outcome.err


def test_without_an_engine_start_says_what_to_do(capsys: pytest.CaptureFixture[str]):
    assert run(["workers", "start"]) == ExitCode.NO_BACKEND
    said = capsys.readouterr().err
    assert "no engine is installed" in said
    assert "synaptic engine install" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "desk.lan"], "--host 'desk.lan' is no IPv4 address"),
        (["--host", "::1"], "--host '::1' is no IPv4 address"),
        (
            ["--host", "203.0.113.7"],
            "203.0.113.7 is in no private network, and whoever reaches a worker can run code as you",
        ),
        (["--host", "0.0.0.0"], "0.0.0.0 stands for all networks of this machine"),
        (
            ["--host", "203.0.113.7", "--set", 'public_workers=["203.0.113.7"]'],
            "203.0.113.7 is not an IPv4 address of this machine",
        ),
        (["--host", "10.255.255.7"], "10.255.255.7 is not an IPv4 address of this machine"),
        (["--user", "no-such-account"], "this machine has no account 'no-such-account'"),
        (["--user", "root"], "root is the administrator"),
        (["--port", "0"], "0 is not in the range"),
        (["--memory", "0"], "0"),
        (["--prefill", "m.gguf", "--no-cache"], "--prefill needs the tensor cache"),
        (["--prefill", "m.gguf", "--set", "tensor_cache_gib=0"], "--prefill needs the tensor cache"),
    ],
)
def test_what_cannot_be_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    adopt_the_real_engine()
    assert run(["workers", "start", *arguments]) == ExitCode.USAGE
    assert message in capsys.readouterr().err


def serving(**options: object) -> Serving:
    given = {"host": "127.0.0.1", "port": free_port(), "threads": 1, "memory_bytes": None, "cache_dir": None}
    return Serving(**{**given, "cache_bytes": 1 << 40, **options})  # type: ignore[arg-type]  # as given


def servers() -> list[psutil.Process]:
    """The RPC servers that this process has started."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it may end while it is looked at
            found += [child] if any("rpc-server" in word for word in child.cmdline()) else []
    return found


class InProcess:
    """A worker that is served by this process, and what it said."""

    def __init__(self, how: Serving) -> None:
        self.how = how
        self.said: list[str] = []
        self.task = asyncio.create_task(serve_worker(how, self.said.append))

    async def until_said(self, text: str) -> None:
        await until(lambda: self.task.done() or any(text in line for line in self.said))
        assert any(text in line for line in self.said), self.said

    async def end(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            await self.task
        assert servers() == []


async def test_it_says_where_it_is_who_uses_it_and_that_it_was_started_again(engine: Engine):
    adopt_the_real_engine()
    worker = InProcess(serving(memory_bytes=1 << 30))
    port = worker.how.port
    await worker.until_said("config set rpc_backends")
    assert f"a worker listens at 127.0.0.1:{port}: RPC 7.0.0" in worker.said[0]
    assert "1 thread, 1.0 GiB for layers" in worker.said[0]
    assert f"ssh -N -L {port}:127.0.0.1:{port}" in worker.said[1]
    with holding(port) as client:
        await worker.until_said(f"in use by 127.0.0.1:{client.getsockname()[1]}")
    await worker.until_said("free again")
    for _ in range(3):
        socket.create_connection(("127.0.0.1", port)).close()
    (server,) = servers()
    server.kill()
    await worker.until_said("it runs again")
    await worker.end()
    assert len([line for line in worker.said if "in use" in line]) == 1
    assert served_workers.served_workers() == []


async def test_it_ends_with_an_error_when_the_worker_cannot_be_kept(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    adopt_the_real_engine()
    monkeypatch.setattr(Rules, "WORKER", replace(Rules.WORKER, delays=()))
    worker = InProcess(serving())
    await worker.until_said("config set rpc_backends")
    (server,) = servers()
    server.kill()
    with pytest.raises(BackendUnavailable, match="is not started any more"):
        async with asyncio.timeout(PATIENCE):
            await worker.task
    assert servers() == []


async def test_it_can_be_ended_while_it_starts(engine: Engine):
    adopt_the_real_engine()
    worker = InProcess(serving())
    await until(servers)
    await worker.end()


async def test_the_tensors_of_a_model_are_put_into_the_cache_first(engine: Engine):
    adopt_the_real_engine()
    model = await ModelStore().ensure(ignore_report)
    worker = InProcess(serving(cache_dir=paths.tensor_cache_dir(), model=str(model)))
    await worker.until_said("config set rpc_backends")
    assert "MB were added to the tensor cache" in worker.said[1]
    assert len(TensorCache(paths.tensor_cache_dir()).names()) == 1
    await worker.end()


async def test_a_model_that_cannot_be_prefilled_is_told(engine: Engine):
    adopt_the_real_engine()
    with pytest.raises(ModelNotFound):
        await serve_worker(serving(cache_dir=paths.tensor_cache_dir(), model="no-such-model"), print)
    model = await ModelStore().ensure(ignore_report)
    paths.tensor_cache_dir().write_text("a file is in the way")
    with pytest.raises(BackendUnavailable, match="cannot be kept in"):
        await serve_worker(serving(cache_dir=paths.tensor_cache_dir(), model=str(model)), print)


def test_an_address_that_others_reach_is_warned_of():
    assert public_warning("127.0.0.1") is None
    assert public_warning("127.8.8.8") is None
    assert "whoever reaches 10.0.0.4" in (public_warning("10.0.0.4") or "")
    everywhere = public_warning("0.0.0.0") or ""
    assert "every network of this machine" in everywhere
    assert "can run code as you" in everywhere


def test_the_line_for_the_other_machine_is_one_that_can_be_typed():
    line = settings_line("10.0.0.4", 50052, int(7.96 * (1 << 30)))
    (document,) = re.findall("'(.*)'", line)
    assert json.loads(document) == [{"host": "10.0.0.4", "port": 50052, "memory_gib": 7.9}]
    assert '"memory_gib": 0.1}' in settings_line("x", 1, 5)


STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('ready', flush=True)
time.sleep(600)
"""


def test_one_that_does_not_end_by_itself_is_killed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(served_workers, "END_SECONDS", 0.2)
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        mark = process_mark(process.pid) or ""
        served = Served(host="127.0.0.1", port=1, machine=platform.node(), pid=process.pid, mark=mark, since=0.0)
        assert end([served]) == [served]
        assert process.wait(PATIENCE) == -signal.SIGKILL
        assert end([served]) == []


def test_a_process_of_somebody_else_is_not_ended(monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "kill", refuse)
    own = Served(
        host="127.0.0.1",
        port=1,
        machine=platform.node(),
        pid=os.getpid(),
        mark=process_mark(os.getpid()) or "",
        since=0.0,
    )
    with pytest.raises(UsageError, match="belongs to another user"):
        end([own])


def test_a_record_that_cannot_be_read_or_written_is_told(capsys: pytest.CaptureFixture[str]):
    file = paths.served_workers_file()
    file.parent.mkdir(parents=True)
    file.write_text("[]")
    assert run(["workers", "list"]) == ExitCode.USAGE
    assert "does not say what workers run here" in capsys.readouterr().err
    file.unlink()
    file.mkdir()
    with pytest.raises(UsageError, match="cannot be written"), recorded(Endpoint("127.0.0.1", 1)):
        pass


def test_an_entry_of_a_process_that_has_ended_counts_for_nothing():
    with recorded(Endpoint("127.0.0.1", 5)):
        (own,) = served_workers.served_workers()
        assert own.endpoint == Endpoint("127.0.0.1", 5)
        document = read_json(paths.served_workers_file(), missing=None)
        document["workers"].append({**document["workers"][0], "mark": "another time"})
        document["workers"].append(
            {**document["workers"][0], "machine": "elsewhere", "numbers": "another", "mark": "x"}
        )
        replace_json(paths.served_workers_file(), document)
        assert served_workers.served_workers() == [own]
        with recorded(Endpoint("127.0.0.1", 6)):
            assert [worker.port for worker in served_workers.served_workers()] == [5, 6]
            assert len(json.loads(paths.served_workers_file().read_text())["workers"]) == 3
    assert served_workers.served_workers() == []


# List and check, which contact nobody they should not.


def test_without_workers_list_says_how_to_name_one(capsys: pytest.CaptureFixture[str]):
    assert run(["workers", "list"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "the settings name no workers" in said.err
    assert run(["workers", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert run(["workers", "check"]) == ExitCode.USAGE
    assert "there is no worker to check" in capsys.readouterr().err


def test_a_worker_is_checked_and_then_known(capsys: pytest.CaptureFixture[str]):
    with stand_in_process() as worker:
        named = ["--set", f'rpc_backends=["127.0.0.1:{worker.port}"]']
        assert run(["workers", "list", *named]) == 0
        assert "never" in capsys.readouterr().out
        assert run(["workers", "check", *named]) == 0
        said = capsys.readouterr()
        assert f"127.0.0.1:{worker.port}: RPC 7.0.0" in said.out
        assert "no engine works on this machine" in said.err
        assert run(["workers", "check", "--json", *named]) == 0
        (document,) = json.loads(capsys.readouterr().out)
        assert document["ok"] is True
        assert run(["workers", "list", *named]) == 0
        assert "7.0.0" in capsys.readouterr().out
        WorkerRegistry().claim([Worker(Endpoint("127.0.0.1", worker.port), ("127.0.0.1",))], "the coordinator of m")
        assert run(["workers", "list", "--json", *named]) == 0
        (document,) = json.loads(capsys.readouterr().out)
        assert document["held_by"]["by"] == "the coordinator of m"
        assert document["in_settings"] is True
        assert run(["workers", "check", *named]) == ExitCode.NO_BACKEND
        assert "is held by the coordinator of m" in capsys.readouterr().out


async def test_a_measured_worker_shows_what_it_can_do(engine: Engine, capsys: pytest.CaptureFixture[str]):
    adopt_the_real_engine()
    async with managed(engine) as worker:
        assert await asyncio.to_thread(run, ["workers", "check", "--measure", str(worker.endpoint)]) == 0
        said = capsys.readouterr()
        assert "reads weights at" in said.out
        assert "round trip" in said.out
        assert "memory: a CPU tells the whole memory" in said.err
    named = ["--set", f'rpc_backends=["{worker.endpoint}"]']
    assert await asyncio.to_thread(run, ["workers", "check", *named]) == ExitCode.NO_BACKEND
    assert "refuses the connection" in capsys.readouterr().out


def test_what_is_no_address_is_told(capsys: pytest.CaptureFixture[str]):
    assert run(["workers", "check", "http://x:1"]) == ExitCode.USAGE
    assert "'http://x:1' has a scheme" in capsys.readouterr().err
