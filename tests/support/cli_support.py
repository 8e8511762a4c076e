"""What the tests of the command line share: processes, and a small Ollama to ask."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from fault_server import FaultServer, Script, json_reply
from repl_terminal import ROOT
from warm_python import warm_python

from synaptic.ui import cli

MAIN = str(ROOT / "main.py")
SCRIPTED = ("--set", "backend=scripted")
ECHO = ("-p", "answer", *SCRIPTED)
NOTHING_THERE = "http://127.0.0.1:9"
PATIENCE = 60.0

TINY = {"models": [{"name": "tiny:latest", "size": 1000, "details": {}}]}


@dataclass(frozen=True)
class Outcome:
    """How a command line ended."""

    code: int
    out: str
    err: str


def run_process(*arguments: str, stdin: str | None = None, cwd: Path | None = None) -> Outcome:
    """Run ``main.py`` in a process of its own to its end; without ``stdin``, it is /dev/null."""
    with TemporaryFile("w+", encoding="utf-8") as out, TemporaryFile("w+", encoding="utf-8") as err:
        with _input(stdin) as given:
            fork = warm_python().start([MAIN, *arguments], (given, out.fileno(), err.fileno()), cwd=cwd)
            code = fork.wait(PATIENCE)
        out.seek(0)
        err.seek(0)
        return Outcome(code, out.read(), err.read())


def run_here(*arguments: str, stdin: str | None = None, cwd: Path | None = None) -> Outcome:
    """Do as :func:`run_process` does, in this process: it is cheaper where neither a signal nor an end is tested."""
    with TemporaryFile("w+", encoding="utf-8") as out, TemporaryFile("w+", encoding="utf-8") as err:
        with _input(stdin) as given, _streams(given, out.fileno(), err.fileno()), chdir(cwd or Path.cwd()):
            code = cli.run(arguments)
        out.seek(0)
        err.seek(0)
        return Outcome(code, out.read(), err.read())


@contextmanager
def _input(text: str | None) -> Iterator[int]:
    """Give a descriptor to read: a pipe that holds the text, or /dev/null."""
    if text is None:
        descriptor = os.open(os.devnull, os.O_RDONLY)
    else:
        descriptor, far_end = os.pipe()
        with os.fdopen(far_end, "w", encoding="utf-8") as writer:
            writer.write(text)  # a pipe holds 64 KiB
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _streams(*descriptors: int) -> Iterator[None]:
    """Make these the standard streams, of the interpreter and of what it starts."""
    before = sys.argv, sys.stdin, sys.stdout, sys.stderr
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in range(3)]
    try:
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        sys.argv = [MAIN]
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(number, mode, encoding="utf-8", closefd=False) for number, mode in enumerate("rww")
        )
        yield
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        sys.argv, sys.stdin, sys.stdout, sys.stderr = before
        for number, descriptor in enumerate(kept):
            os.dup2(descriptor, number)
            os.close(descriptor)


@contextmanager
def ollama(chat: Script, **others: Script) -> Iterator[FaultServer]:
    """Serve a small Ollama from a thread, so that tests may wait for processes."""
    more = {f"/api/{name}": script for name, script in others.items()}
    server = FaultServer(
        {
            "/api/version": json_reply({"version": "0.12.6"}),
            "/api/tags": json_reply(TINY),
            "/api/ps": json_reply({"models": []}),
            "/api/chat": chat,
            **more,
        }
    )
    loop = asyncio.new_event_loop()
    ready, done = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with server:
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert ready.wait(PATIENCE)
        yield server
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(PATIENCE)
        loop.close()


def node(server: FaultServer) -> tuple[str, ...]:
    return ("--set", f'nodes=["{server.url}"]', "--set", "retries=0")


def wait_until(condition, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.01)
