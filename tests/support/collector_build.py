"""A collector of OpenTelemetry for the tests: the project's own Go modules, built once a machine (``make collector``).

Run as a program, it builds what is not there yet. It takes Go and, the first time, minutes and its module proxy.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import platformdirs

SOURCE: Final = Path(__file__).with_name("collector")
CACHE: Final = Path(platformdirs.user_cache_dir("synapticllamas")) / "test-collector"
"""Of the person, as this module is imported before a test moves home."""
MOST_SECONDS: Final = 1200.0
"""For the build, with its downloads; six minutes on two busy cores."""


def collector() -> Path:
    """Return where the program is that these sources make, built or not."""
    digest = hashlib.sha256()
    for file in sorted(SOURCE.iterdir()):
        digest.update(file.read_bytes())
    return CACHE / digest.hexdigest()[:16] / "collector"


def build() -> str:
    """Build it if that is not done yet; return why that is not possible, "" where it is there."""
    made = collector()
    if made.exists():
        return ""
    if shutil.which("go") is None:
        return "Go is not installed"
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=made.parent) as name:
        unfinished = Path(name) / "collector"
        order = ["go", "build", "-o", unfinished, "."]
        try:
            done = subprocess.run(order, cwd=SOURCE, capture_output=True, text=True, check=False, timeout=MOST_SECONDS)
        except subprocess.TimeoutExpired:
            return f"go build has not ended within {MOST_SECONDS / 60:.0f} min"
        if done.returncode:
            return f"go build fails: {done.stderr.strip()[-300:]}"
        os.replace(unfinished, made)  # noqa: PTH105 - whole or not at all
    return ""


if __name__ == "__main__":
    if why := build():
        sys.stderr.write(f"WARNING: no collector of OpenTelemetry: {why}; its tests will be skipped\n")
