"""What is left of a coordinator and its workers when the program that runs them is killed at a random moment.

    python benchmarks/process_survival.py [--kills 100]

Each time a program loads SmolLM2-135M over two workers and asks it; at a random moment of its start-up, of the load or
of its answers, it gets SIGKILL, SIGTERM or SIGINT, mostly the first, which nothing can catch. Afterwards nothing of it
may be there: no process that it started, directly or not, running or a zombie, and none that carries its mark in the
environment. Prints JSON; the goal is that both counts are 0. Nothing is asserted about time: what is still there after
a bound counts as left. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from synaptic.messages import ignore_report
from synaptic.models.download import ModelStore

MARK = "XDG_SYNAPTIC_BENCHMARK_MARK"  # children get what begins so, and little else
BOUND_SECONDS = 15.0
"""A program that is asked to end (SIGTERM, Ctrl-C) ends its processes in turn; one that is killed cannot."""
LOOK_SECONDS = 0.1
STAGES = {"starting": "", "loading": "begins", "asking": "ready"}
"""When the moment is looked for, and what the program has written by then."""
LATEST_KILL = 1.5
"""Seconds after that, at most."""
STAGE_PATIENCE = 120.0
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
WORKERS = 2
HERE = Path(__file__).resolve().parent
SEED = 100


def one_kill(model: Path, stage: str, after: float, number: signal.Signals, state: str) -> dict[str, Any]:
    """Start the program, end it some seconds after it has come to a stage, and return what was left of it."""
    mark = uuid.uuid4().hex
    with tempfile.NamedTemporaryFile("w+") as told:
        parent = subprocess.Popen(
            [sys.executable, "-m", "sides.distributed_parent", str(model), str(WORKERS)],
            cwd=HERE,
            env={**os.environ, "XDG_STATE_HOME": state, MARK: mark, "PYTHONPATH": str(HERE.parent)},
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for(STAGES[stage], told.name, parent)
        time.sleep(after)
        early = parent.poll()
        known = descendants(parent.pid)
        parent.send_signal(number)
        left = what_is_left(parent, known, mark)
    return {
        "signal": number.name,
        "after": round(after, 2),
        "stage": stage,
        "processes": len(known),
        "ended by itself": early is not None,
        **left,
    }


def wait_for(word: str, told: str, parent: subprocess.Popen[bytes]) -> None:
    """Wait until the program has written ``word``, has ended, or takes too long."""
    deadline = time.monotonic() + STAGE_PATIENCE
    while word not in Path(told).read_text(encoding="ascii"):
        if parent.poll() is not None or time.monotonic() > deadline:
            return
        time.sleep(LOOK_SECONDS / 10)


def descendants(pid: int) -> list[psutil.Process]:
    """Return the processes that one has started, directly or not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def what_is_left(parent: subprocess.Popen[bytes], known: list[psutil.Process], mark: str) -> dict[str, Any]:
    """Return what is still there of a program once all of it is gone, or after a bound; end that, too."""
    deadline = time.monotonic() + BOUND_SECONDS
    began = time.monotonic()
    while True:
        parent.poll()
        there = [one for one in known if one.is_running()]
        marked = [pid for pid in with_mark(mark) if pid not in {one.pid for one in there}]
        gone = parent.returncode is not None and not there and not marked
        if gone or time.monotonic() > deadline:
            break
        time.sleep(LOOK_SECONDS)
    seconds = time.monotonic() - began
    zombies = sum(is_zombie(one) for one in there)
    for pid in [*(one.pid for one in there), *marked]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    ended = parent.returncode is not None
    parent.kill()
    parent.wait()
    return {
        "orphans": len(there) - zombies + len(marked),
        "zombies": zombies,
        "parent ended": ended,
        "seconds until all were gone": round(seconds, 1),
    }


def with_mark(mark: str) -> list[int]:
    """Return the processes whose environment has the mark; a zombie has none any more."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def is_zombie(process: psutil.Process) -> bool:
    """Say whether a process has ended and nobody has asked how."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def main() -> None:
    """Kill, count and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    kills = parser.parse_args().kills
    model = asyncio.run(ModelStore().ensure(ignore_report))
    rng = random.Random(SEED)
    each = []
    with tempfile.TemporaryDirectory() as state:
        for turn in range(kills):
            each.append(
                one_kill(model, rng.choice(list(STAGES)), rng.uniform(0, LATEST_KILL), rng.choice(SIGNALS), state)
            )
            print(f"{turn + 1}/{kills}: {each[-1]}", file=sys.stderr)
    total: Counter[str] = Counter()
    for one in each:
        total.update({"orphans": one["orphans"], "zombies": one["zombies"], "parents left": not one["parent ended"]})
    summary = {
        "kills": len(each),
        "orphans": total["orphans"],
        "zombies": total["zombies"],
        "parents that did not end": total["parents left"],
        "stages": dict(Counter(one["stage"] for one in each)),
        "most seconds until all were gone": max((one["seconds until all were gone"] for one in each), default=0.0),
    }
    print(json.dumps({"benchmark": "process_survival", **summary, "each": each}, indent=1))


if __name__ == "__main__":
    main()
