"""A terminal for tests: a pseudo-terminal with a screen, on which the real program runs."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
import pyte
from pexpect.fdpexpect import fdspawn
from warm_python import Fork, warm_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT = Path(__file__).parents[2]
DRIVER = ROOT / "tests" / "support" / "repl_driver.py"
PATIENCE = 60.0
"""Seconds that are waited for anything before a test fails."""

CTRL_C, CTRL_D, CTRL_R, CTRL_Z, ENTER, TAB, UP, ALT_ENTER = (
    "\x03",
    "\x04",
    "\x12",
    "\x1a",
    "\r",
    "\t",
    "\x1b[A",
    "\x1b\r",
)
PASTE_BEGIN, PASTE_END = "\x1b[200~", "\x1b[201~"

BRACKETED_PASTE_ON = b"\x1b[?2004h"
"""What each prompt of the line editor begins with."""


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment in which the program finds nothing of the person who runs the tests."""
    names = {"PATH", "LANG", "PYTHONDONTWRITEBYTECODE", "COVERAGE_PROCESS_CONFIG"}
    kept = {name: value for name, value in os.environ.items() if name in names}
    return {**kept, "HOME": str(home), "LC_ALL": "C.UTF-8", "TERM": "xterm-256color", **more}


class ForkOnTerminal(fdspawn):
    """A fork of the warm Python on a terminal, in the words of pexpect."""

    def __init__(self, fork: Fork, descriptor: int) -> None:
        super().__init__(descriptor, timeout=PATIENCE)
        self._fork = fork
        self.pid = fork.pid

    def isalive(self) -> bool:
        return self._fork.poll() is None

    def kill(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int | None:
        code = self._fork.wait(PATIENCE)
        self.exitstatus = code if code >= 0 else None
        return self.exitstatus

    def close(self, force: bool = True) -> None:  # noqa: FBT001, FBT002  (as pexpect has it)
        """Take the terminal away, which sends SIGHUP to the program."""
        if not self.closed:
            os.close(self.child_fd)
            self.child_fd = -1
            self.closed = True


class Terminal:
    """The program, its screen, and the hands on the keyboard."""

    def __init__(
        self, program: pexpect.spawn[bytes] | ForkOnTerminal, rows: int, columns: int, prompt_mark: bytes
    ) -> None:
        self.program = program
        self._prompt_mark = prompt_mark
        self.raw = b""
        self._screen = pyte.Screen(columns, rows)
        self._screen.write_process_input = program.send  # answers to what the program asks of the terminal
        self._stream = pyte.ByteStream(self._screen)

    def type(self, *keys: str) -> None:
        """Press keys."""
        self.program.send("".join(keys))

    @property
    def text(self) -> str:
        """What is on the screen."""
        return "\n".join(line.rstrip() for line in self._screen.display)

    @property
    def line(self) -> str:
        """The line that the cursor is in."""
        return self._screen.display[self._screen.cursor.y].rstrip()

    @property
    def prompts(self) -> int:
        """How many prompts there were so far."""
        return self.raw.count(self._prompt_mark)

    def wait(self, *expected: str | Callable[[Terminal], bool]) -> str:
        """Wait until all of it is on the screen, or true; return the screen."""
        end = time.monotonic() + PATIENCE
        while not all(each in self.text if isinstance(each, str) else each(self) for each in expected):
            if time.monotonic() > end:
                raise AssertionError(f"waited for {expected!r}; on the screen:\n{self.text}")
            try:
                self._feed()
            except pexpect.EOF as exc:
                raise AssertionError(f"ended while waiting for {expected!r}; on the screen:\n{self.text}") from exc
        return self.text

    def wait_for_prompt(self) -> str:
        """Wait for an empty prompt."""
        return self.wait(lambda terminal: terminal.line == ">")

    def ask(self, line: str, *expected: str) -> str:
        """Type a line at an empty prompt, wait for what is expected and for the next prompt."""
        self.wait_for_prompt()
        before = self.prompts
        self.type(line, ENTER)
        self.wait(lambda terminal: terminal.prompts > before)
        self.wait_for_prompt()
        return self.wait(*expected)

    def wait_for_end(self) -> int | None:
        """Wait until the program has ended and return its exit code."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                self._feed()
            except pexpect.EOF:
                self.program.wait()
                return self.program.exitstatus
        raise AssertionError(f"it does not end; on the screen:\n{self.text}")

    def _feed(self) -> None:
        try:
            data = self.program.read_nonblocking(65536, timeout=0.2)
        except pexpect.TIMEOUT:
            return
        except pexpect.EOF:
            # pexpect looks for data, then whether the program runs: what was written between the two is still there.
            data = self._rest()
            if not data:
                raise
        self.raw += data
        self._stream.feed(data)

    def _rest(self) -> bytes:
        with suppress(OSError):
            if select.select([self.program.child_fd], [], [], 0)[0]:
                return os.read(self.program.child_fd, 65536)
        return b""


@contextmanager
def open_terminal(
    arguments: list[str], cwd: Path, env: Mapping[str, str], *, rows: int = 50, columns: int = 100, warm: bool = True
) -> Iterator[Terminal]:
    """Run Python with ``arguments`` on a terminal; it is ended at the end.

    A script is run by a fork of the warm Python unless ``warm`` is false: then it has an interpreter of its own.
    """
    program = (_forked if warm and arguments[0] != "-c" else _spawned)(arguments, cwd, env, rows, columns)
    program.delaybeforesend = None
    try:
        yield Terminal(program, rows, columns, b"> " if env["TERM"] == "dumb" else BRACKETED_PASTE_ON)
    finally:
        if program.isalive():
            program.kill(signal.SIGKILL)
            program.wait()
        program.close()


def _spawned(
    arguments: list[str], cwd: Path, env: Mapping[str, str], rows: int, columns: int
) -> pexpect.spawn[bytes] | ForkOnTerminal:
    return pexpect.spawn(sys.executable, arguments, cwd=str(cwd), env=env, dimensions=(rows, columns), timeout=PATIENCE)


def _forked(
    arguments: list[str], cwd: Path, env: Mapping[str, str], rows: int, columns: int
) -> pexpect.spawn[bytes] | ForkOnTerminal:
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    fork = warm_python().start(arguments, (its, its, its), cwd=cwd, env=env, terminal=True)
    os.close(its)
    return ForkOnTerminal(fork, ours)
