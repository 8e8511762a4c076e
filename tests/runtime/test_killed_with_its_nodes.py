"""Everything is killed: the program, three real nodes and their engines. The run goes on where it was."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from ollama_nodes import MODEL, RealNode, real_nodes

from synaptic.runtime import StepContinued, StepFinished, StepRetried
from synaptic.runtime.journal import Journal, KeptRun

PARTS = 5
PIPELINE = f"""\
version: 1
name: rivers
inputs: {{query: {{required: true}}}}
agents:
  writer: {{prompt: "You write prose.", temperature: 0, max_tokens: 64}}
steps:
  parts:
    agent: writer
    foreach: "{[*range(PARTS)]}"
    as: number
    prompt: "Tell part {{{{ number }}}} of a long story about {{{{ inputs.query }}}}."
  end: {{agent: writer, prompt: "Give this story a title: {{{{ steps.parts[0] }}}}"}}
result: "{{{{ steps.end }}}}"
"""
WITHIN = 240.0  # seconds; the machine may be busy
LONG = 40  # characters of a text that is worth to go on with

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(600)]


def known() -> tuple[KeptRun | None, dict[str, object], dict[str, str]]:
    """Return the one run, the outputs of its calls that have ended, and the texts of those that are open."""
    with Journal() as journal:
        runs = journal.runs()
        if not runs:
            return None, {}, {}
        ended = (event.result for event in journal.events(runs[0]) if isinstance(event, StepFinished))
        return runs[0], {step.id: step.output for step in ended}, journal.open_texts(runs[0])


async def killed_in_the_middle(program: list[str], nodes: list[RealNode]) -> tuple[dict[str, object], dict[str, str]]:
    """Start a run, kill it and all nodes in the middle of calls, and return what the journal has of it."""
    run = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(WITHIN):
        while True:
            _, ended, texts = known()
            if ended and any(len(text) > LONG for text in texts.values()):
                break
            assert run.returncode is None, "it ended before it was killed"
            await asyncio.sleep(0.05)
    os.kill(run.pid, signal.SIGKILL)
    for node in nodes:
        node.kill()
    await asyncio.gather(run.wait(), *(node.gone() for node in nodes))
    _, ended, texts = known()
    return ended, texts


async def test_a_run_over_three_nodes_goes_on_after_all_of_them_were_killed(tmp_path: Path):
    (tmp_path / "rivers.yaml").write_text(PIPELINE)
    async with real_nodes(3) as nodes:
        addresses = json.dumps([node.url for node in nodes])
        settings = [f"nodes={addresses}", "task_distribution_enabled=true", f"model={MODEL}"]
        options = ["--json", *(word for setting in settings for word in ("--set", setting))]
        program = [sys.executable, "-m", "synaptic"]
        ended, texts = await killed_in_the_middle(
            [*program, "-p", str(tmp_path / "rivers.yaml"), *options, "a river"], nodes
        )
        assert "end" not in ended
        await asyncio.gather(*(node.start() for node in nodes))

        resumed = await asyncio.create_subprocess_exec(
            *program, "runs", "resume", *options, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await asyncio.wait_for(resumed.communicate(), WITHIN)

    assert resumed.returncode == 0
    document = json.loads(out)
    steps = {step["id"]: step for step in document["steps"]}
    assert document["status"] == "succeeded"
    assert {path for path, step in steps.items() if step["reused"]} == {path for path in ended if path in steps}
    assert all(steps[path]["output"] == output for path, output in ended.items())
    went_on = [path for path, text in texts.items() if len(text) > LONG]
    with Journal() as journal:
        events = list(journal.events(journal.run(document["run_id"])))
    continued = {event.path for event in events if isinstance(event, StepContinued)}
    assert continued >= set(went_on)
    assert not [event for event in events if isinstance(event, StepRetried) and event.path in went_on]
    for path in went_on:
        assert steps[path]["output"].startswith(texts[path].strip())
        assert steps[path]["attempts"] == 1
    assert len([path for path in steps if path.startswith("parts[")]) == PARTS
