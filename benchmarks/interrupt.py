"""How fast everything is gone after Ctrl-C, and how much memory the orchestrating process takes. Prints JSON.

A real run of the command line on a pseudo-terminal-less pipe is sent SIGINT in the middle of its calls. Streams
count as closed when the engine's connections to the process are gone, children when their process ids are.
Goals: streams 0.1 s, children 2 s, resident memory of the orchestrating process in a research run 120 MB.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
ROUNDS = 5
CALLS_AT_ONCE = 2  # of the three researchers; the run is then in its middle
COMMAND = [sys.executable, str(ROOT / "main.py"), "--set", "backend=embedded", "-p", "research", "Why is the sky blue?"]


def established(process: psutil.Process) -> int:
    """Return how many TCP connections the process holds."""
    try:
        return sum(item.status == psutil.CONN_ESTABLISHED for item in process.net_connections("tcp"))
    except psutil.NoSuchProcess:
        return 0


def wait_until(condition: object, limit: float = 60.0) -> float:
    """Return the seconds until the condition holds."""
    started = time.perf_counter()
    while not condition():
        if time.perf_counter() - started > limit:
            raise TimeoutError("the condition was never met")
        time.sleep(0.001)
    return time.perf_counter() - started


def interrupted() -> tuple[float, float, int]:
    """Run, interrupt in the middle, and return seconds to streams closed, seconds to children gone, exit code."""
    run = subprocess.Popen(COMMAND, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process = psutil.Process(run.pid)
    wait_until(lambda: established(process) >= CALLS_AT_ONCE)
    children = process.children(recursive=True)
    run.send_signal(signal.SIGINT)
    streams = wait_until(lambda: established(process) == 0)
    gone = streams + wait_until(lambda: not any(child.is_running() for child in children))
    return streams, gone, run.wait()


def resident_memory() -> int:
    """Return the peak resident bytes of the orchestrating process over one research run."""
    run = subprocess.Popen(COMMAND, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process, peak = psutil.Process(run.pid), 0
    while run.poll() is None:
        try:
            peak = max(peak, process.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.02)
    return peak


def main() -> dict[str, object]:
    """Return the figures; the runs are recorded, but not where the person's own are."""
    with tempfile.TemporaryDirectory(prefix="synaptic-benchmark-") as state:
        os.environ["XDG_STATE_HOME"] = state
        return figures()


def figures() -> dict[str, object]:
    """Run and interrupt, and return what was measured."""
    rounds = [interrupted() for _ in range(ROUNDS)]
    streams, children, codes = zip(*rounds, strict=True)
    return {
        "benchmark": "Ctrl-C in a research run, and its memory",
        "rounds": ROUNDS,
        "streams_closed_seconds": {"median": round(statistics.median(streams), 3), "worst": round(max(streams), 3)},
        "goal_streams_seconds": 0.1,
        "children_gone_seconds": {"median": round(statistics.median(children), 3), "worst": round(max(children), 3)},
        "goal_children_seconds": 2.0,
        "exit_codes": sorted(set(codes)),
        "resident_megabytes": round(resident_memory() / 1e6, 1),
        "goal_resident_megabytes": 120,
    }


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
