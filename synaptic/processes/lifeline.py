"""What a child process does so that it never outlives its parent. Standard library only: children run this file.

Two ropes, because each is missing somewhere: on Linux the kernel kills the child when its parent dies
(``PR_SET_PDEATHSIG``, which survives ``exec``); everywhere the child sees the end of its standard input, whose
other end only the parent holds.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies; where the kernel cannot, do nothing.

    Args:
        parent_pid: Who started this process. If that is no longer the parent it died before the kernel was
            asked, and this process ends at once.
    """
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - needed on one platform only

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


def exit_at_end_of_input() -> None:
    """Start a thread that ends this process when its standard input is closed; whatever comes is thrown away."""
    threading.Thread(target=_drain_input, name="lifeline", daemon=True).start()


def _drain_input() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


def run_instead(command: list[str], environment: Mapping[str, str]) -> None:
    """Become another program.

    Raises:
        OSError: If it cannot be started.
    """
    os.execvpe(command[0], command, environment)  # noqa: S606 - the command is ours; no shell is wanted


def main(arguments: Sequence[str]) -> None:
    """Become another program, in a directory, that dies with the parent.

    Args:
        arguments: The parent's process id, the directory, the program and its arguments.
    """
    parent, directory, program, *rest = arguments
    die_with_parent(int(parent))
    # llama.cpp aborts when it loses a worker: a core of several GiB beside the engine would be of no use.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    try:
        os.chdir(directory)
        run_instead([program, *rest], os.environ)
    except OSError as error:
        # A wrong architecture, a missing loader: the reason goes to the parent, which reads this process's output.
        os.write(2, os.fsencode(f"{program}: {error.strerror or error}\n"))
        os._exit(126)


if __name__ == "__main__":
    main(sys.argv[1:])
