"""A Python that has imported the program, and runs a script in each fork: a process of its own, for a tenth of the CPU.

A fork has its own streams, environment, folder, terminal, signals and exit code, and ends as any interpreter ends. What
it lacks is the start: a test of that, or of what is imported when, starts an interpreter.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[2]
LARGEST = 1 << 17
"""Bytes of a request: arguments and an environment."""
STREAMS = 3
ENCODING = "utf-8"


@dataclass
class Fork:
    """A script that runs in a process of its own."""

    pid: int
    _end: int
    _code: int | None = field(default=None, init=False)

    def poll(self, timeout: float | None = 0) -> int | None:
        """Return how it ended, as ``Popen.returncode`` says it; ``None`` where it runs on."""
        if self._code is None and select.select([self._end], [], [], timeout)[0]:
            text = os.read(self._end, 16)
            os.close(self._end)
            assert text, "the warm Python is gone"
            self._code = int(text)
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended; one that does not in time is killed."""
        code = self.poll(timeout)
        if code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.poll(None)
            raise TimeoutError(f"it did not end in {timeout} s")
        return code


class WarmPython:
    """Starts forks; it ends with the process that made it, and is no child of it: some tests count theirs."""

    def __init__(self) -> None:
        self._control, far_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._turn = threading.Lock()
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}
        subprocess.run(
            [sys.executable, __file__, str(far_end.fileno())],
            pass_fds=[far_end.fileno()],
            env=environ,
            stdin=subprocess.DEVNULL,
            check=True,
        )
        far_end.close()

    def start(
        self,
        arguments: Sequence[str | Path],
        streams: tuple[int, int, int],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        terminal: bool = False,
    ) -> Fork:
        """Run a script with its arguments on these descriptors; with ``terminal``, the first is what it is led from."""
        asked = {
            "arguments": [str(argument) for argument in arguments],
            "cwd": str(cwd or Path.cwd()),
            "environ": dict(os.environ if env is None else env),
            "terminal": terminal,
        }
        end, told = os.pipe()
        with self._turn:
            socket.send_fds(self._control, [json.dumps(asked).encode()], [*streams, told])
            os.close(told)
            answer = self._control.recv(16)
        assert answer, "the warm Python is gone"
        return Fork(int(answer), end)


_started: list[WarmPython] = []


def warm_python() -> WarmPython:
    """The one of this process."""
    if not _started:
        _started.append(WarmPython())
    return _started[0]


def start_program(arguments: Sequence[str], out: Path, *, cwd: Path, env: Mapping[str, str]) -> Fork:
    """Run ``main.py``; what it prints goes to ``out``, and beside it to ``.err``."""
    with Path(os.devnull).open() as nothing, out.open("w") as said, Path(f"{out}.err").open("w") as errors:
        streams = (nothing.fileno(), said.fileno(), errors.fileno())
        return warm_python().start([ROOT / "main.py", *arguments], streams, cwd=cwd, env=env)


# -- in the warm process --------------------------------------------------------------------------------------------


def serve(control: socket.socket) -> dict[str, Any]:
    """Fork for each request; return in a fork, with what it is asked for."""
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            tell_ends(running)
        if control not in ready:
            continue
        request, descriptors, _, _ = socket.recv_fds(control, LARGEST, STREAMS + 1)
        if not request:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
            os._exit(0)
        *streams, told = descriptors
        if (pid := os.fork()) == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
            for descriptor in (woken, wake, told, *running.values()):
                os.close(descriptor)
            asked: dict[str, Any] = json.loads(request)
            become(asked, streams)
            return asked
        running[pid] = told
        for stream in streams:
            os.close(stream)
        control.send(str(pid).encode())


def tell_ends(running: dict[int, int]) -> None:
    """Write the code of each fork that has ended to the one who waits for it."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = ended
            with suppress(BrokenPipeError):
                os.write(running[pid], str(os.waitstatus_to_exitcode(status)).encode())
            os.close(running.pop(pid))


def become(asked: dict[str, Any], streams: list[int]) -> None:
    """Give this process what an interpreter has at its start."""
    if asked["terminal"]:
        os.setsid()
        fcntl.ioctl(streams[0], termios.TIOCSCTTY, 0)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for stream in streams:
        if stream >= STREAMS:
            os.close(stream)
    sys.stdin = sys.__stdin__ = standard(0, "r")
    sys.stdout = sys.__stdout__ = standard(1, "w")
    sys.stderr = sys.__stderr__ = standard(2, "w")
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environ"])
    sys.argv = asked["arguments"]
    sys.path[0] = str(Path(sys.argv[0]).parent)


def standard(number: int, mode: str) -> TextIO:
    """Make a standard stream as ``create_stdio`` of CPython's pylifecycle.c does."""
    line_by_line = 1 if number == 2 or os.isatty(number) else -1
    errors = "backslashreplace" if number == 2 else "surrogateescape"
    return os.fdopen(number, mode, line_by_line, ENCODING, errors, closefd=False)  # type: ignore[return-value]


def import_everything() -> None:
    """Import the program, and save what coverage has seen of that, so that no fork saves it again."""
    from synaptic import backends, runtime, ui

    for package in (ui, runtime, backends):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            import_module(module.name)
    import_module("networkx")  # the package imports it late
    if (coverage := sys.modules.get("coverage")) and (measured := coverage.Coverage.current()):
        measured.save()


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    if os.fork():
        os._exit(0)
    os.setsid()
    import_everything()
    assert threading.active_count() == 1, "a process with threads is not forked"
    gc.collect()
    gc.freeze()  # else a collection would touch, and so copy, all that the forks share
    asked = serve(control)
    runpy.run_path(asked["arguments"][0], run_name="__main__")


if __name__ == "__main__":
    main()
