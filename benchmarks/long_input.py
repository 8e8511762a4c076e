"""A file of 200 kB through each built-in pipeline on the embedded model, as a person gives it: ``-f FILE "question"``.

Prints JSON: of each pipeline how it ended, in how many seconds and calls, and how long the answer is. On two cores one
pipeline takes minutes; ``--pipelines answer vote`` asks some, ``--kilobytes 50`` reads less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
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


def main() -> None:
    """Ask every pipeline and print what came."""
    names = sorted(builtin_pipelines())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipelines", nargs="+", default=names, choices=names, metavar="NAME")
    parser.add_argument("--kilobytes", type=int, default=200)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "documents.md"
        file.write_bytes(documents(given.kilobytes * 1000))
        rows = {}
        for name in given.pipelines:
            rows[name] = asked(name, file)
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


def asked(name: str, file: Path) -> dict[str, Any]:
    """Return how a run of the pipeline over the file ended."""
    command = [
        sys.executable,
        str(ROOT / "main.py"),
        "--json",
        "-p",
        name,
        "--set",
        "backend=embedded",
        "--set",
        "journal=off",
    ]
    begin = time.perf_counter()
    try:
        done = subprocess.run(
            [*command, "-f", str(file), "--", QUESTION],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=MOST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"status": "timed out", "answer_characters": 0, "seconds": round(MOST_SECONDS)}
    seconds = round(time.perf_counter() - begin)
    try:
        result = json.loads(done.stdout)
    except ValueError:
        return {"status": "failed", "answer_characters": 0, "seconds": seconds, "said": done.stderr[-500:]}
    return {
        "status": result["status"],
        "seconds": seconds,
        "steps": len(result["steps"]),
        "prompt_tokens": result["usage"]["prompt_tokens"],
        "completion_tokens": result["usage"]["completion_tokens"],
        "answer_characters": len(str(result["answer"])),
        "said": [line for line in done.stderr.splitlines() if " is read in " in line or line.startswith("error")],
    }


if __name__ == "__main__":
    main()
