"""A file of 200 kB through each built-in pipeline on the embedded model, as a person gives it: ``-f FILE "question"``.

Prints JSON: of each pipeline how it ended, in how many seconds and calls, and how long the answer is. On two cores one
pipeline takes minutes; ``--pipelines answer vote`` asks some, ``--kilobytes 50`` reads less. One that takes longer than
``--seconds`` is interrupted, and what it had done by then is told; where other programs run as well,
``processor_seconds`` is what counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from synaptic.pipeline.loader import builtin_pipelines

ROOT = Path(__file__).parents[1]
QUESTION = "What happens to a call when its node fails?"
MOST_SECONDS = 3600.0
"""Of one pipeline, on two cores that other programs use as well."""
SECONDS_TO_END = 60.0


def main() -> None:
    """Ask every pipeline and print what came."""
    names = sorted(builtin_pipelines())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipelines", nargs="+", default=names, choices=names, metavar="NAME")
    parser.add_argument("--kilobytes", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=MOST_SECONDS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "documents.md"
        file.write_bytes(documents(given.kilobytes * 1000))
        rows = {}
        for name in given.pipelines:
            rows[name] = asked(name, file, given.seconds)
            sys.stderr.write(f"{name}: {json.dumps(rows[name])}\n")
    report = {
        "benchmark": "long_input",
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "kilobytes": given.kilobytes,
        "pipelines": rows,
        "met": all(row["status"] == "succeeded" and row["answer_characters"] > 0 for row in rows.values()),
    }
    sys.stdout.write(json.dumps(report, indent=2) + "\n")


def documents(size: int) -> bytes:
    """Return the project's own pages, one after the other, cut at ``size`` bytes."""
    pages = b"\n\n".join(page.read_bytes() for page in sorted((ROOT / "docs").rglob("*.md")))
    return (pages * (size // len(pages) + 1))[:size]


def asked(name: str, file: Path, most_seconds: float) -> dict[str, Any]:
    """Return how a run of the pipeline over the file ended."""
    settings = ["--set", "backend=embedded", "--set", "journal=off"]
    command = [sys.executable, str(ROOT / "main.py"), "--json", "-p", name, *settings, "-f", str(file), "--", QUESTION]
    begin, before = time.perf_counter(), processor_seconds()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        try:
            out, err = program.communicate(timeout=most_seconds)
        except subprocess.TimeoutExpired:
            program.send_signal(signal.SIGINT)
            try:
                out, err = program.communicate(timeout=SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                program.kill()
                out, err = program.communicate()
    took = {
        "seconds": round(time.perf_counter() - begin),
        "processor_seconds": round(processor_seconds() - before),
    }
    try:
        result = json.loads(out)
    except ValueError:
        return {"status": "failed", "answer_characters": 0, **took, "said": err[-500:]}
    return {
        "status": result["status"],
        **took,
        "steps": len(result["steps"]),
        "prompt_tokens": result["usage"]["prompt_tokens"],
        "completion_tokens": result["usage"]["completion_tokens"],
        "answer_characters": len(str(result["answer"])),
        "said": [line for line in err.splitlines() if " is read in " in line or line.startswith("error")],
    }


def processor_seconds() -> float:
    """Return what the programs that have ended here took of the processors."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
