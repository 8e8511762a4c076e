"""However the program ends, nothing of it is left; and nobody touches a worker that is held."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field

import psutil
import pytest
from cli_support import MAIN, run_process
from real_distributed import MODEL, PATIENCE, Local, distributed, engine_in_home, externals, local_answers, spread  # noqa: F401 - two are fixtures
from warm_python import warm_python

pytestmark = [pytest.mark.real_model, pytest.mark.usefixtures("engine_here")]

MARK = "XDG_MARK_OF_A_TEST"  # children get what begins so, and little else
SEED = 20
ENDINGS = [
    signal.SIGKILL,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGSEGV,  # a crash
    signal.SIGKILL,
    signal.SIGABRT,
    signal.SIGHUP,
    signal.SIGKILL,
]
LATEST = 3.0
"""Seconds after its start in which the program reads settings, starts workers, loads, and answers."""


@dataclass
class Family:
    """A program and all that it started, found by what it has in its environment."""

    parent: subprocess.Popen[bytes]
    mark: str
    ports: set[int] = field(default_factory=set)

    def living(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if self._ours(process)]

    def note_ports(self) -> None:
        for process in self.living():
            try:
                found = process.net_connections(kind="tcp4")
            except (psutil.Error, OSError):
                continue
            self.ports.update(one.laddr.port for one in found if one.status == psutil.CONN_LISTEN)

    def _ours(self, process: psutil.Process) -> bool:
        try:
            return process.pid != self.parent.pid and process.environ().get(MARK) == self.mark
        except (psutil.Error, OSError):
            return False


async def options_of(workers: int) -> list[str]:
    """The settings of so many workers, as arguments of the program."""
    options = {
        "distributed_inference_enabled": "true",
        "task_distribution_enabled": "false",
        "distributed_context": "512",
        "distributed_parallel": "1",
        "local_worker_threads": "1",
        "model": MODEL,
        **{name: str(value) for name, value in (await spread(workers)).items() if value is not None},
    }
    return [part for name, value in options.items() for part in ("--set", f"{name}={value}")]


def start(options: list[str]) -> Family:
    mark = uuid.uuid4().hex
    parent = subprocess.Popen(
        [sys.executable, MAIN, "Tell me everything that you know about the sea.", "-p", "answer", *options],
        env={**os.environ, MARK: mark},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return Family(parent, mark)


@pytest.mark.parametrize("turn", range(len(ENDINGS)))
async def test_whenever_and_however_the_program_ends_nothing_is_left(turn: int):
    moment = random.Random(SEED + turn).uniform(0.2, LATEST)
    sys.stdout.write(f"[{ENDINGS[turn].name} after {moment:.2f} s, seed {SEED + turn}]\n")
    family = start(await options_of(2))
    try:
        await asyncio.sleep(moment)
        family.note_ports()
        started = {process.pid for process in family.living()}
        family.parent.send_signal(ENDINGS[turn])
        family.parent.wait(PATIENCE)
        end = time.monotonic() + 15.0
        while (left := family.living()) or any(map(psutil.pid_exists, started)):
            assert time.monotonic() < end, [(one.pid, one.name()) for one in left]
            await asyncio.sleep(0.02)
        for port in family.ports:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
    finally:
        if family.parent.poll() is None:
            family.parent.kill()
            family.parent.wait()
        for process in family.living():
            process.kill()


async def test_the_moments_are_such_that_workers_and_a_coordinator_run():
    """What the test above looks for is there, if the program is left alone."""
    family = start(await options_of(2))
    try:
        end = time.monotonic() + PATIENCE
        names: set[str] = set()
        while not ({"llama-server"} <= names and any("rpc" in name for name in names)):
            assert time.monotonic() < end, names
            names = {process.name() for process in family.living()}
        while not family.ports:  # a process listens some time after it is there
            assert time.monotonic() < end
            family.note_ports()
    finally:
        family.parent.kill()
        family.parent.wait()


async def test_a_held_worker_is_not_contacted_by_another_program(local: Local):
    prompt = "Tell a story of a locked door."
    warm_python()  # it stays open, and is no leak
    with externals(1) as (worker,):
        async with distributed(rpc_backends=[worker.settings()]) as watched:
            said: list[str] = []

            def check() -> None:
                outcome = run_process("workers", "check", str(worker.endpoint))
                said.append(outcome.out + outcome.err)

            answer = await watched.answer(prompt, check)
            check()
            listed = run_process("workers", "list", "--set", f'rpc_backends=["{worker.endpoint}"]')

            assert watched.status.restarts == 0
            assert f"process {os.getpid()}" in said[0]
        # A worker that was probed while it was held dies of SIGPIPE when its coordinator leaves.
        assert worker.returncode is None
        after = run_process("workers", "check", str(worker.endpoint))
    assert all("held" in text for text in said)
    assert f"process {os.getpid()}" in listed.out
    assert after.code == 0
    assert answer.text == local.says(prompt)
    assert answer.breaks == 0
