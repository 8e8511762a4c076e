"""The program itself is stopped during a call (Ctrl-Z, or a batch system that stops everything) and goes on later."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

MAIN = Path(__file__).parents[2] / "main.py"
PATIENCE = 120.0
STOPPED = 3.0
"""Seconds; of a child alone that would be held against it."""
PIPELINE = """
version: 1
name: short
inputs: {query: {type: string, required: true}}
steps: {answer: {agent: editor, max_tokens: 32, prompt: "{{ inputs.query }}"}}
result: "{{ steps.answer }}"
"""


@pytest.mark.real_model
@pytest.mark.parametrize("whom", ["the program", "its children, too"])
def test_a_program_that_was_stopped_goes_on_with_its_children_and_its_call(tmp_path: Path, whom: str):
    children_too = whom != "the program"
    said = tmp_path / "stderr"
    pipeline = tmp_path / "short.yaml"
    pipeline.write_text(PIPELINE)
    command = [sys.executable, str(MAIN), "-v", "-p", str(pipeline), "--set", "backend=embedded", "--set", "retries=0"]
    with (
        said.open("w") as errors,
        subprocess.Popen(
            [*command, "Tell a story."], stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        ) as program,
    ):
        end = time.monotonic() + PATIENCE
        while "answer: started" not in said.read_text():
            assert program.poll() is None and time.monotonic() < end, said.read_text()
            time.sleep(0.02)
        os.killpg(program.pid, signal.SIGSTOP)
        (engine,) = psutil.Process(program.pid).children()
        if children_too:
            engine.suspend()
        time.sleep(STOPPED)
        os.killpg(program.pid, signal.SIGCONT)
        if children_too:
            time.sleep(0.2)  # one after the other, as batch systems do it
            engine.resume()
        answer, _ = program.communicate(timeout=PATIENCE)
    assert program.returncode == 0, said.read_text()
    assert answer.strip()
    assert "stopped by a signal" not in said.read_text()
    assert "again" not in said.read_text()
