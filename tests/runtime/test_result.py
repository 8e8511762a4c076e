"""A result in the hands of a program: its steps by name, its error, and how a notebook shows it."""

import asyncio
import json
import pickle

import pytest

from synaptic import ModelNotFound, RunResult, ScriptedBackend, Settings, run, run_sync
from synaptic.backends.scripted import Failure
from synaptic.runtime.run_document import run_document

SETTINGS = Settings(backend="scripted", retries=0)
ANSWER = "**Bold** <script>alert(1)</script> ![pixel](https://example.com/x.png) [x](javascript:alert(1))"


async def researched() -> RunResult:
    return await run("Why?", pipeline="research", settings=SETTINGS, backend=ScriptedBackend({"write": ANSWER}))


async def test_steps_are_a_sequence_and_found_by_their_paths():
    result = await researched()
    steps = result.steps

    assert steps["plan"].agent == "planner"
    assert steps["research[0]"] is next(step for step in steps if step.id == "research[0]")
    assert steps[-1].id == "write" and steps[:2] == tuple(steps)[:2]
    assert "plan" in steps and steps[0] in steps and "plam" not in steps
    assert steps.get("plam") is None
    assert isinstance(steps, tuple)
    with pytest.raises(KeyError, match="did you mean 'plan'"):
        steps["plam"]


async def test_steps_go_through_json_and_pickle_as_they_did():
    result = await researched()

    document = json.loads(json.dumps(run_document(result)))
    again = pickle.loads(pickle.dumps(result.steps))

    assert [step["id"] for step in document["steps"]] == [step.id for step in result.steps]
    assert again["plan"] == result.steps["plan"]


def test_a_model_that_is_not_there_is_an_error_and_no_empty_answer():
    with pytest.raises(ModelNotFound, match="not there"):
        run_sync("hi", pipeline="answer", settings=SETTINGS, backend=ScriptedBackend([Failure("not_found")]), model="x")


async def test_a_notebook_shows_the_answer_and_runs_nothing_of_it():
    shown = (await researched())._repr_html_()

    assert "<strong>Bold</strong>" in shown
    assert "<script>" not in shown and "<img" not in shown and 'href="javascript' not in shown
    assert "<td>research[0]</td>" in shown


def test_a_notebook_shows_what_went_wrong():
    failing = ScriptedBackend([Failure("server_error", text="<b>")])
    result = asyncio.run(run("hi", pipeline="answer", settings=SETTINGS, backend=failing))

    assert "<strong>failed:</strong>" in result._repr_html_()
