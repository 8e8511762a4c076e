"""What it costs that runs are recorded: bytes on the disk, time a step, time to read ten thousand runs back.

Prints one JSON document; nothing here is asserted. Each figure comes from processes of their own, with empty homes.
``stored`` counts every file that is left once the program has ended; ``data`` is what the steps and the caller gave.
Beside ours stand LangGraph with its ``SqliteSaver``, as it is when nothing is set and with its ``DeltaChannel``, and
DBOS with SQLite (``requirements-durable.txt``).
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sides.processes import FOREIGN, peers_python
from startup import ended, prompt_ready

HERE = Path(__file__).resolve().parent
MAIN = str(HERE.parent / "main.py")
SIZES = {
    "100 steps of 4 kB, each read by the next": {"steps": 100, "answer": 4096, "document": 0},
    "the same, and 100 kB that each step reads": {"steps": 100, "answer": 4096, "document": 100_000},
    "100 kB that each of 100 steps of 64 bytes reads": {"steps": 100, "answer": 64, "document": 100_000},
}
STEPS = 1000
RUNS = 10_000
STARTS = 9
GOALS = {"stored_by_data": 1.5, "us_a_step": {"off": 50, "normal": 150, "full": 500}, "list_ms": 150, "grep_ms": 300}


def main() -> None:
    """Measure, and print one JSON document."""
    busy = os.getloadavg()[0]
    peers = peers_python(HERE / "requirements-durable.txt")
    others: dict[str, tuple[str, dict[str, Any]]] = {
        "langgraph": ("durable_langgraph", {}),
        "langgraph, DeltaChannel": ("durable_langgraph", {"delta": True}),
        "dbos": ("durable_dbos", {}),
    }
    sizes = {
        f"{name}; {kind}": {
            "ours": with_ratio(asked(sys.executable, "durable_ours", "size", {**parameters, "kind": kind})),
            **{
                side: with_ratio(asked(peers, module, "size", {**parameters, **more, "kind": kind}))
                for side, (module, more) in others.items()
            },
        }
        for name, parameters in SIZES.items()
        for kind in ("words", "random")
    }
    steps = {
        f"ours, {mode}": asked(sys.executable, "durable_ours", "step", {"steps": STEPS, "mode": mode})
        for mode in ("off", "normal", "full")
    }
    steps |= {side: asked(peers, module, "step", {"steps": STEPS, **more}) for side, (module, more) in others.items()}
    with tempfile.TemporaryDirectory(prefix="synaptic-benchmark-") as home:
        reading = asked(sys.executable, "durable_ours", "many", {"runs": RUNS}, home)
        starts = {"with the runs": started(home)}
    with tempfile.TemporaryDirectory(prefix="synaptic-benchmark-") as home:
        starts["without"] = started(home)
    document = {
        "benchmark": "durable",
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "load_average_before": round(busy, 2),
        "goals": GOALS,
        "size": sizes,
        f"us_a_step_of_{STEPS}": steps,
        f"ms_with_{RUNS}_runs": reading,
        "start_ms": starts,
    }
    print(json.dumps(document, indent=2))


def with_ratio(found: dict[str, Any]) -> dict[str, Any]:
    """Return a size with what is stored for each byte of data."""
    return {**found, "stored_by_data": round(found["stored"] / found["data"], 2)}


def asked(python: str, module: str, case: str, parameters: dict[str, Any], home: str | None = None) -> dict[str, Any]:
    """Return what a side measured, in a process with a home of its own."""
    with tempfile.TemporaryDirectory(prefix="synaptic-benchmark-") as empty:
        done = subprocess.run(
            [python, "-m", f"sides.{module}", case, json.dumps(parameters)],
            cwd=HERE,
            env=environment(home or empty),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    answer: dict[str, Any] = json.loads(done.stdout)
    print(f"{module} {case} {parameters}: {answer}", file=sys.stderr)
    return answer


def environment(home: str) -> dict[str, str]:
    """Return variables by which a process finds nothing of this machine's user."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return {**kept, **dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"), home)}


def started(home: str) -> dict[str, float]:
    """Return the milliseconds of the fastest start of several: the help, the prompt, and the commands that read."""
    variables = {**environment(home), "TERM": "xterm-256color"}
    program = [sys.executable, MAIN]
    starts = {
        "help": lambda: ended([*program, "--help"], variables),
        "prompt": lambda: prompt_ready(program, variables),
        "runs list": lambda: ended([*program, "runs", "list"], variables),
        "runs --help": lambda: ended([*program, "runs", "--help"], variables),
    }
    return {name: round(min(start() for _ in range(STARTS)) * 1e3, 1) for name, start in starts.items()}


if __name__ == "__main__":
    main()
