"""Runs one tool of a build and ends all that it started, compilers included. Standard library, and psutil at the end.

ninja puts each compiler into a process group of its own: killing ninja's group leaves them running. So the tool runs
under this process, which adopts what loses its parent (Linux), asks the tool to end when it is to end, and kills
what is left. It ends when its standard input does, whose other end only the installer holds.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import psutil

from synaptic.processes import tied

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
GRACE = 3.0  # seconds that the tool gets to end its compilers
POLITENESS = 10  # added to the niceness: a build is no reason for a machine to feel slow
ENDED = 128 + signal.SIGTERM
POLL = 0.05  # seconds


class _EndAskedFor(BaseException):
    """Raised in the main thread by SIGTERM."""


def main(arguments: Sequence[str]) -> None:
    """Run a tool to its end, or to ours, and exit with its status.

    Args:
        arguments: A file to lock, so that two tools never work in one directory, not even for the moment that the
            last of a killed installation takes to end; the directory to work in; the program and its arguments.
    """
    lock, directory, *command = arguments
    os.dup2(1, 2)
    _adopt_orphans()
    with suppress(OSError):
        os.nice(POLITENESS)
    signal.signal(signal.SIGTERM, _raise_end)
    threading.Thread(target=_watch_input, name="lifeline", daemon=True).start()
    status = ENDED
    try:
        with open(lock, "wb") as file:  # noqa: PTH123 - pathlib is not loaded yet
            fcntl.flock(file, fcntl.LOCK_EX)
            status = _run(command, directory)
    except _EndAskedFor:
        pass
    if status < 0:  # our end tells the installer what ended the tool
        with suppress(OSError):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    # Not a plain return: the thread may be in a read that never ends.
    os._exit(status if status >= 0 else 128 - status)


def _run(command: Sequence[str], directory: str) -> int:
    tool: subprocess.Popen[bytes] | None = None
    try:
        tool = subprocess.Popen(tied(command), cwd=directory, stdin=subprocess.DEVNULL)  # noqa: S603 - built by us
        return tool.wait()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if tool is not None and tool.poll() is None:
            tool.terminate()
            with suppress(subprocess.TimeoutExpired):
                tool.wait(GRACE)
        _kill_descendants()


def _raise_end(_signum: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _EndAskedFor


def _watch_input() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _adopt_orphans() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _kill_descendants() -> None:
    """Kill and reap until nothing is left; a compiler driver starts others while it is being looked at."""
    end = time.monotonic() + GRACE
    while time.monotonic() < end and (left := psutil.Process().children(recursive=True)):
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=POLL)
