"""What the tests of RPC workers share: stand-ins and real ones as processes, a client that knows no manners."""

import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine_support import real_files

from synaptic.backends.distributed.workers.probe import ProbeLimits
from synaptic.backends.distributed.workers.protocol import Endpoint

QUICK = ProbeLimits(resolve=5.0, connect=5.0, answer=0.3, whole=5.0)
PATIENCE = 60.0
HELLO = b"\x0e" + struct.pack("<Q", 24) + bytes(24)
HELLO_REPLY_BYTES = 36
NO_BACKTRACE = {"GGML_NO_BACKTRACE": "1"}


def local(port: int) -> Endpoint:
    return Endpoint("127.0.0.1", port)


class Running:
    """A worker that is a process, which dies of SIGPIPE as a worker does that was started by hand."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def wait_for_line(self, text: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if text in line:
                return
        raise AssertionError(f"ended without {text!r}")

    def returncode_within(self, seconds: float) -> int | None:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


@contextmanager
def stand_in_process(*arguments: str) -> Iterator[Running]:
    program = Path(__file__).with_name("rpc_worker.py")
    with _running([sys.executable, "-u", str(program), *arguments]) as process:
        assert process.stdout is not None
        yield Running(process, int(process.stdout.readline()))


@contextmanager
def real_process() -> Iterator[Running]:
    """The RPC server of the installed engine; the test is skipped where there is none."""
    files = real_files()
    port = free_port()
    command = [str(files.rpc_server), "-H", "127.0.0.1", "-p", str(port), "-t", "1"]
    with _running(command, cwd=files.directory) as process:
        running = Running(process, port)
        wait_until_listening(port)
        running.wait_for_line("Client connection closed")
        yield running


@contextmanager
def _running(command: list[str], cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, cwd=cwd
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def holding(port: int) -> Iterator[socket.socket]:
    """Be a coordinator: greet the worker and stay."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        client.sendall(HELLO)
        got = b""
        while len(got) < HELLO_REPLY_BYTES:
            got += client.recv(HELLO_REPLY_BYTES - len(got))
        yield client


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_listening(port: int) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.02)
        else:
            return
