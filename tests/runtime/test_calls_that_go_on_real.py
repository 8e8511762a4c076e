"""The program is killed in the middle of a long answer of the embedded model: the call goes on with its text."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from synaptic.runtime import StepContinued, TokenDelta
from synaptic.runtime.journal import Journal

PROGRAM = [sys.executable, "-m", "synaptic"]
SETTINGS = [
    "--set",
    "backend=embedded",
    "--set",
    "temperature=0",
    "--set",
    "max_tokens=96",
    "--set",
    "embedded_threads=1",
]
LONG = 60
"""Characters of the answer at which the program is killed."""


def open_text() -> tuple[str, str]:
    """Return the id of the one run, and what its call has said so far; "" where it is not in the file."""
    with Journal() as journal:
        runs = journal.runs()
        texts = journal.open_texts(runs[0]) if runs else {}
        return (runs[0].id, next(iter(texts.values()), "")) if runs else ("", "")


@pytest.mark.real_model
def test_a_killed_program_goes_on_in_the_middle_of_its_answer():
    question = ["-p", "answer", "--json", "Tell me the story of a river, from its spring to the sea."]
    with subprocess.Popen([*PROGRAM, *SETTINGS, *question], stdout=subprocess.DEVNULL) as cut_off:
        while len((found := open_text())[1]) < LONG:
            assert cut_off.poll() is None, "it ended before it was killed"
            time.sleep(0.05)
        os.kill(cut_off.pid, signal.SIGKILL)
    run_id, kept = open_text()
    assert run_id == found[0]

    went_on = subprocess.run(
        [*PROGRAM, "runs", "resume", "--json", "-v", *SETTINGS], capture_output=True, check=True, text=True
    )

    document = json.loads(went_on.stdout)
    assert document["run_id"] == run_id
    assert document["answer"].startswith(kept.strip())
    assert len(document["answer"]) > len(kept)
    assert "the run was cut off in the middle of this call" in went_on.stderr
    with Journal() as journal:
        events = list(journal.events(journal.run(run_id)))
        assert [event.node for event in events if isinstance(event, StepContinued)] == ["embedded"]
        spoken = [event.text for event in events if isinstance(event, TokenDelta)]
    assert "".join(spoken).startswith(kept)
    assert document["steps"][0]["attempts"] == 1
