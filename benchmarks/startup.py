"""How long the command line takes to start, as multiples of ``python -c pass``: the help, and the prompt.

Prints JSON. The runs are interleaved, so that a machine that is busy for a while slows all of them down alike.
"""

from __future__ import annotations

import json
import os
import platform
import pty
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MAIN = str(Path(__file__).resolve().parent.parent / "main.py")
PROMPT = b"\x1b[?2004h"  # the line editor switches bracketed paste on when it is ready for keys
ROUNDS = 21
PATIENCE_SECONDS = 30.0
TARGETS = {"help": 8.0, "prompt": 25.0}


def main() -> None:
    """Measure, and print one JSON document."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "HOME": home, "XDG_STATE_HOME": home, "TERM": "xterm-256color"}
        # As it is installed: compiled, whatever the environment says, and without a trace of that in the checkout.
        environment |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": home}
        runs: dict[str, Callable[[], float]] = {
            "interpreter": lambda: ended([sys.executable, "-c", "pass"], environment),
            "help": lambda: ended([sys.executable, MAIN, "--help"], environment),
            "prompt": lambda: prompt_ready([sys.executable, MAIN], environment),
        }
        measured: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(ROUNDS + 1):
            for name, measure in runs.items():
                seconds = measure()
                if turn:  # the first fills the caches
                    measured[name].append(seconds)
    print(json.dumps(document(measured), indent=2))


def document(measured: dict[str, list[float]]) -> dict[str, object]:
    """Return what is printed."""
    medians = {name: statistics.median(values) for name, values in measured.items()}
    base = medians["interpreter"]
    return {
        "benchmark": "startup",
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "rounds": ROUNDS,
        "median_milliseconds": {name: round(1000 * value, 1) for name, value in medians.items()},
        "ratio_to_interpreter": {name: round(medians[name] / base, 2) for name in TARGETS},
        "target_ratio": TARGETS,
        "met": {name: medians[name] / base <= target for name, target in TARGETS.items()},
    }


def ended(command: list[str], environment: dict[str, str]) -> float:
    """Return the seconds until a command has ended."""
    begin = time.perf_counter()
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


def prompt_ready(command: list[str], environment: dict[str, str]) -> float:
    """Return the seconds until the prompt takes keys, on a pseudo-terminal."""
    begin = time.perf_counter()
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(command[0], command, environment)
    seen = b""
    while PROMPT not in seen:
        if not select.select([terminal], [], [], PATIENCE_SECONDS)[0]:
            raise TimeoutError(f"no prompt within {PATIENCE_SECONDS:g} s; so far: {seen!r}")
        seen += os.read(terminal, 65536)
    seconds = time.perf_counter() - begin
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(terminal)
    return seconds


if __name__ == "__main__":
    main()
