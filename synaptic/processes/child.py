"""Start a child process that cannot outlive us, hear what it says, notice its end, stop it.

A child that a signal has stopped (SIGSTOP) lives and does nothing: who waits for it would wait for ever. It is found by
the state that the system tells, and killed; from then on it is a child that was killed. Looks are counted, not seconds:
while we are stopped ourselves (Ctrl-Z, a machine that sleeps) nothing is counted, and a child that is continued
together with us has its time to go on. One that is stopped and continued all the time (cpulimit) gets on, and is left.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import signal
import sys
from collections import deque
from typing import TYPE_CHECKING, ClassVar, Final, cast

from synaptic.errors import BackendUnavailable
from synaptic.paths import PACKAGE
from synaptic.processes import lifeline
from synaptic.processes.environment import child_environment
from synaptic.processes.private_log import PrivateLog
from synaptic.processes.watch import session_of, stopped_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

TAIL_LINES = 100
LONGEST_LINE = 65_536  # bytes; a longer one is cut
LOG_BYTES = 1_000_000
STOP_GRACE = 1.0  # seconds from asking a child to end to killing it
REAP_TIMEOUT = 2.0  # seconds that the kernel gets to report the end of a killed child
PIPE_DRAIN = 0.2  # seconds that last words may take after the end; a grandchild could hold the pipe for ever
LOOK_SECONDS = 0.5  # between two looks whether it is stopped
STOPPED_LOOKS = 3  # in a row that find it stopped at one place
FAMILY_LOOKS = 8  # from one look at all that it has started to the next; one that is stopped at two of them counts
STARTS: Final = 3
"""How often a child is started in all, if each time something outside ends it before it has done what it was for."""

_OUTSIDE: Final = frozenset({-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP})

_BOOT = "import sys, importlib; sys.path.append(sys.argv[1]); importlib.import_module(sys.argv[2]).main(sys.argv[3:])"


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command that calls ``main(arguments)`` of one of our modules in a new interpreter.

    It works from a checkout and from any directory, and takes nothing from the current directory (``-P``).
    """
    return [sys.executable, "-P", "-c", _BOOT, str(PACKAGE.parent), module, *arguments]


def tied(command: Sequence[str], *, directory: Path | None = None) -> list[str]:
    """Return the command that runs ``command``, a program that knows nothing of us, so that it dies with us.

    The launcher needs the standard library only, so it is run as a file, without site-packages: it starts in two
    thirds of the time.

    Args:
        command: The program and its arguments.
        directory: Where it runs; the program is then an absolute path. ``None`` is the current one.
    """
    start = [sys.executable, "-I", "-S", lifeline.__file__, str(os.getpid()), str(directory or ".")]
    return [*start, *command]


def describe_exit(returncode: int, *, stopped: bool = False) -> str:
    """Say in words how a process ended; ``stopped`` if it was killed because it had been stopped."""
    if stopped:
        return "was stopped by a signal and did not go on, so that it was killed"
    if returncode >= 0:
        return f"exited with status {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    return f"was killed by {name}"


class ChildProcess(asyncio.SubprocessProtocol):
    """A running child. Made by :meth:`start`, in a session of its own, ended by :meth:`stop`.

    A Ctrl-C in the terminal does not reach it: the caller that started it decides when it ends. A child that is still
    there when the interpreter exits is killed then; that it also dies when we are killed is its own work, see
    :mod:`synaptic.processes.lifeline`.

    Attributes:
        returncode: Its exit status, negative for a signal; ``None`` while it runs.
        stopped: Whether it was killed because a signal had stopped it, or something that it had started.
    """

    _alive: ClassVar[set[int]] = set()

    def __init__(
        self,
        log: logging.Handler,
        on_exit: Callable[[ChildProcess], None] | None,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        self.pid = 0
        self.returncode: int | None = None
        self.stopped = False
        self._log = log
        self._on_exit = on_exit
        self._on_line = on_line
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._partial = {1: b"", 2: b""}
        self._transport: asyncio.SubprocessTransport | None = None
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._exited = asyncio.Event()
        self._drained = asyncio.Event()
        self._ending = False
        self._looks = self._still = 0
        self._stopped_at: float | None = None
        self._stopped_family: set[tuple[int, float]] = set()
        self._next_look: asyncio.TimerHandle | None = None

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        first_line: str | None = None,
        env: Mapping[str, str] | None = None,
        log_file: Path | None = None,
        on_exit: Callable[[ChildProcess], None] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> ChildProcess:
        """Start ``command``.

        Args:
            command: The program and its arguments.
            first_line: Written to its standard input, which then stays open until the child is to end.
            env: Its whole environment; ``None`` for :func:`~synaptic.processes.environment.child_environment`.
            log_file: Where its standard error goes, besides the tail in memory; it never grows beyond a bound.
            on_exit: Called once, in the event loop, when the child has ended.
            on_line: Called with every line that it writes to its standard error.

        Raises:
            BackendUnavailable: If the program cannot be started.
        """
        child = cls(_open_log(log_file), on_exit, on_line)
        try:
            await asyncio.get_running_loop().subprocess_exec(
                lambda: child,
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=child_environment() if env is None else dict(env),
                start_new_session=True,
            )
        except BaseException as error:
            child._log.close()
            if isinstance(error, OSError):
                raise BackendUnavailable(f"cannot start {command[0]!r}: {error.strerror or error}") from error
            raise
        if first_line is not None:
            child._write(first_line)
        return child

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines it wrote to standard error, oldest first."""
        return tuple(self._tail)

    @property
    def running(self) -> bool:
        """Whether its end has not been noticed yet."""
        return self.returncode is None

    @property
    def lost(self) -> bool:
        """Whether something outside has ended it, and neither we nor an error of its own: another may do better."""
        return self.stopped or (self.returncode in _OUTSIDE and not self._ending)

    @property
    def ending(self) -> str:
        """How it ended, in words that continue its name."""
        return describe_exit(self.returncode or 0, stopped=self.stopped)

    async def read_line(self) -> str | None:
        """Return the next line of its standard output, or ``None`` once there will be no more."""
        line = await self._lines.get()
        if line is None:
            self._lines.put_nowait(None)
        return line

    async def wait(self) -> int:
        """Wait for its end and its last words; return the exit status, negative for a signal."""
        await self._exited.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PIPE_DRAIN):
                await self._drained.wait()
        assert self.returncode is not None
        return self.returncode

    async def exited_within(self, seconds: float) -> bool:
        """Return whether it has ended by now or does so within ``seconds``, its last words included."""
        try:
            async with asyncio.timeout(seconds):
                await self._exited.wait()
        except TimeoutError:
            return False
        await self.wait()
        return True

    def kill(self) -> None:
        """Kill it and what it has started, now, without waiting for the end."""
        if self.returncode is None:
            self._ending = True
            _kill_group(self.pid)
            self._kill_family()

    async def stop(self, grace: float = STOP_GRACE) -> None:
        """Ask it to end, kill it after ``grace`` seconds, and reap it; also when called twice or cancelled."""
        transport = self._transport
        assert transport is not None
        self._on_exit = None
        try:
            if self.returncode is None:
                self._ending = True
                cast("asyncio.WriteTransport", transport.get_pipe_transport(0)).close()
                # Not transport.terminate(): that reaps a child that has just died, and asyncio's watcher misses it.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGTERM)
                await self.exited_within(grace)
        finally:
            self.kill()
            reaping = asyncio.create_task(self._reap(transport))
            try:
                await asyncio.shield(reaping)
            except asyncio.CancelledError:
                await asyncio.wait([reaping])  # a killed child is gone in a moment; left to itself it is a zombie
                raise

    async def _reap(self, transport: asyncio.SubprocessTransport) -> None:
        await self.exited_within(REAP_TIMEOUT)
        transport.close()
        self._log.close()

    def _write(self, line: str) -> None:
        assert self._transport is not None
        pipe = cast("asyncio.WriteTransport", self._transport.get_pipe_transport(0))
        pipe.write(line.encode() + b"\n")

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note of the child's id."""
        self._transport = cast("asyncio.SubprocessTransport", transport)
        self.pid = self._transport.get_pid()
        self._alive.add(self.pid)
        self._look_later()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Cut what came into lines."""
        *lines, self._partial[fd] = (self._partial[fd] + data).split(b"\n")
        if len(self._partial[fd]) > LONGEST_LINE:
            lines.append(self._partial[fd])
            self._partial[fd] = b""
        for line in lines:
            self._take(fd, line)

    def pipe_connection_lost(self, fd: int, _exc: Exception | None) -> None:
        """Take the last line, which may lack its end."""
        if rest := self._partial.pop(fd, b""):
            self._take(fd, rest)
        if fd == 1:
            self._lines.put_nowait(None)

    def process_exited(self) -> None:
        """Tell everyone who waits."""
        assert self._transport is not None
        self.returncode = self._transport.get_returncode()
        self._alive.discard(self.pid)
        if self.lost:
            self._kill_family()  # nobody else ends what it has started
        if self._next_look is not None:
            self._next_look.cancel()
        self._exited.set()
        if self._on_exit is not None:
            self._on_exit(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Note that nothing more will come through the pipes."""
        self._drained.set()

    def _look_later(self) -> None:
        self._next_look = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Kill it if it is stopped, or something that it has started: it would never end by itself."""
        if self.returncode is not None:
            return
        self._looks += 1
        before, self._stopped_at = self._stopped_at, stopped_at(self.pid)
        self._still = 0 if self._stopped_at is None else self._still + 1 if self._stopped_at == before else 1
        hangs = self._still >= STOPPED_LOOKS
        if self._looks % FAMILY_LOOKS == 0:
            stopped = {(pid, at) for pid in session_of(self.pid) if (at := stopped_at(pid)) is not None}
            hangs = hangs or not self._stopped_family.isdisjoint(stopped)
            self._stopped_family = stopped
        if hangs and not self._ending:
            self.stopped = True
            self.kill()
        self._look_later()

    def _kill_family(self) -> None:
        """Kill all that it has started, also in process groups of their own, as the compilers of a build are."""
        for pid in session_of(self.pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def _take(self, fd: int, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        if fd == 1:
            self._lines.put_nowait(text)
            return
        self._tail.append(text)
        if self._on_line is not None:
            self._on_line(text)
        self._log.handle(logging.LogRecord("child", logging.INFO, "", 0, f"[{self.pid}] {text}", None, None))


class _LogFile(PrivateLog):
    """A log of what a child says."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the signature is inherited
        """Do nothing: what is on the terminal stays, even if the disk is full."""

    def close(self) -> None:
        """Close the file; what a full disk did not take is lost."""
        with contextlib.suppress(OSError):
            super().close()


def _open_log(path: Path | None) -> logging.Handler:
    if path is None:
        return logging.NullHandler()
    try:
        return _LogFile(path, LOG_BYTES)
    except OSError:  # a read-only home: the tail in memory has to do
        return logging.NullHandler()


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


@atexit.register
def _kill_what_is_left() -> None:
    for pid in ChildProcess._alive:  # noqa: SLF001 - the class keeps the list for this function
        with contextlib.suppress(ChildProcessError):  # not ours any more: another process may have the number by now
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                _kill_group(pid)
