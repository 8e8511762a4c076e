"""The benchmark's own environment, and the processes of the sides in it."""

from __future__ import annotations

import hashlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import platformdirs

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = Path(__file__).resolve().parent.parent
REQUIREMENTS = HERE / "requirements-orchestration.txt"
PATIENCE_SECONDS = 180.0
FOREIGN = ("SYNAPTIC_", "LANGCHAIN_", "LANGSMITH_", "LOGFIRE_", "OTEL_", "OLLAMA_", "PYTHON")
"""Variables by which a side would do more, or other things, than it is asked for."""


def peers_python(requirements: Path = REQUIREMENTS) -> str:
    """Return the interpreter of the peers' environment; make the environment first where there is none.

    It lies in the user's cache, named by its requirements and by the interpreter that it was made from.

    Raises:
        subprocess.CalledProcessError: If the peers cannot be installed.

    """
    made_from = f"{requirements.read_text(encoding='utf-8')}\n{sys.version}\n{sys.base_prefix}"
    benchmark = requirements.stem.removeprefix("requirements-")
    name = f"{benchmark}-{hashlib.sha256(made_from.encode()).hexdigest()[:12]}"
    folder = Path(platformdirs.user_cache_dir("synapticllamas")) / "benchmarks" / name
    python, complete = str(folder / "bin" / "python"), folder / "complete"
    if not complete.exists():
        print(f"installing the peers into {folder} (once)", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--requirement", str(requirements)], check=True, stdout=sys.stderr)
        complete.touch()
    return python


class Side:
    """The process of one side; it sleeps while it is not asked.

    Args:
        module: The side's module in this folder.
        python: The interpreter that has what the side needs.
        home: An empty folder: no settings, no agents and no caches of this machine's user.

    """

    def __init__(self, module: str, python: str, home: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        places = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"), home)
        self.module = module
        self._process = subprocess.Popen(
            [python, "-m", "sides.worker", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE,
            env={**kept, **places, "LANGSMITH_TRACING": "false"},
        )
        self.versions: dict[str, str] = self._answer()

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def turn(self, case: str, parameters: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
        """Return seconds of the clock and of the processor, by layer.

        Raises:
            RuntimeError: If the side failed; what went wrong stands on standard error.
            TimeoutError: If it does not answer.

        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"case": case, "with": parameters}) + "\n")
        self._process.stdin.flush()
        return {layer: (wall, cpu) for layer, (wall, cpu) in self._answer().items()}

    def _answer(self) -> dict[str, Any]:
        replies = self._process.stdout
        assert replies is not None
        if not select.select([replies], [], [], PATIENCE_SECONDS)[0]:
            raise TimeoutError(f"{self.module} has not answered for {PATIENCE_SECONDS:g} s")
        line = replies.readline()
        if not line:
            raise RuntimeError(f"{self.module} ended with status {self._process.wait()}; see above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def empty_home() -> tempfile.TemporaryDirectory[str]:
    """Return a new empty folder."""
    return tempfile.TemporaryDirectory(prefix="synaptic-benchmark-")
