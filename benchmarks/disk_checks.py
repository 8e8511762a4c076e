"""What it costs at a start that files are what they were: the model, the engine, the tensor cache, as one start has it.

Prints JSON. Files that did not change are not read, so the size of a model does not matter: this one is 98 MB.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from synaptic import paths
from synaptic.backends.distributed.engine import chosen_files
from synaptic.backends.distributed.workers import TensorCache
from synaptic.messages import ignore_report
from synaptic.models import ModelStore, check_model, large_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 51
TARGET_MILLISECONDS = 10.0


def main() -> None:
    """Measure, and print one JSON document."""
    model = asyncio.run(ModelStore().ensure(ignore_report))
    with tempfile.TemporaryDirectory() as folder:
        tensors = TensorCache(Path(folder) / "tensors")
        tensors.prefill(large_tensors([model]))
        blob = Path(folder) / f"sha256-{ModelStore().artifact.sha256}"
        shutil.copyfile(model, blob)
        checks: dict[str, Callable[[], object]] = {
            "embedded model": lambda: ModelStore().check(),
            "model of a coordinator": lambda: asyncio.run(
                check_model("smollm2", [blob], ignore_report, backend="distributed")
            ),
            "tensor cache": lambda: TensorCache(tensors.root).trusted(),
        }
        if paths.engine_dir().is_dir():
            checks["engine"] = chosen_files
        measured = {name: milliseconds(check) for name, check in checks.items()}
    print(json.dumps(document(measured), indent=2))


def milliseconds(check: Callable[[], object]) -> float:
    """Return the median of some runs after the first, which may read the files."""
    time.sleep(0.2)  # what was written a moment ago is read again
    check()
    taken = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        check()
        taken.append(1000 * (time.perf_counter() - begin))
    return statistics.median(taken)


def document(measured: dict[str, float]) -> dict[str, object]:
    """Return what is printed."""
    return {
        "benchmark": "disk checks",
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "rounds": ROUNDS,
        "median_milliseconds": {name: round(value, 3) for name, value in measured.items()},
        "sum_milliseconds": round(sum(measured.values()), 3),
        "target_milliseconds": TARGET_MILLISECONDS,
        "met": sum(measured.values()) <= TARGET_MILLISECONDS,
    }


if __name__ == "__main__":
    main()
