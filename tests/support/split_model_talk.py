"""A split model on a host of a network: a program that is asked one question, heard line by line."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import pytest
from real_distributed import MODEL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from network_hosts import Hosts

ROOT: Final = Path(__file__).parents[2]
DRIVER: Final = ROOT / "tests" / "support" / "split_model_driver.py"
PATIENCE: Final = 120.0
PROMPT: Final = "Tell me a story of a lighthouse."


def ask(
    hosts: Hosts, backends: list[dict[str, Any]], *, env: Mapping[str, str], **settings: Any
) -> subprocess.Popen[str]:
    """Have the prompt answered on host 1 by a model that is split over workers."""
    usual = {"model": MODEL, "distributed_inference_enabled": True, "task_distribution_enabled": False}
    usual |= {"distributed_context": 512, "distributed_parallel": 1, "rpc_backends": backends}
    process = hosts.start(
        1,
        *(sys.executable, str(DRIVER), json.dumps(usual | settings)),
        env={**env, "PYTHONPATH": f"{ROOT}:{DRIVER.parent}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"prompt": PROMPT, "tokens": 40}) + "\n")
    process.stdin.flush()
    return process


class Talk:
    """A program on a host, line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self.heard: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def until(self, wanted: Callable[[str], bool]) -> str:
        """Return the first line that is wanted."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                line = self._lines.get(timeout=max(end - time.monotonic(), 0))
            except Empty:
                pytest.fail("nothing came any more after " + "".join(self.heard[-20:]))
            assert line is not None, "".join(self.heard[-20:])
            self.heard.append(line)
            if wanted(line):
                return line

    def answer(self) -> dict[str, Any]:
        """Return how the call ended."""
        ended: dict[str, Any] = json.loads(self.until(lambda line: '"answer"' in line or '"failed"' in line))
        return ended
