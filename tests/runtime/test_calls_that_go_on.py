"""A call that was open when a run was cut off goes on with its text where that is known to work."""

import asyncio
import contextlib
import sqlite3
from dataclasses import replace

import pytest
from faulty_node import FaultyNode
from faulty_node_script import split_tokens
from past_support import Goes
from run_support import AGENTS, Run

from synaptic import paths
from synaptic.backends.scripted import Failure
from synaptic.messages import CUT_OFF
from synaptic.pipeline.loader import Pipeline
from synaptic.runtime.events import StepAsked, StepContinued, StepFinished, StepRetried, TokenDelta
from synaptic.runtime.executor import Executor
from synaptic.runtime.journal import Journal
from synaptic.runtime.past import NOTHING
from synaptic.runtime.recorded import FRESH, Recorded
from synaptic.runtime.runs_before import RunBefore
from synaptic.runtime.session import Session
from synaptic.settings import Settings

TEXT = """\
version: 1
name: demo
inputs: {query: {}}
steps:
  end: {agent: writer, prompt: "{{ inputs.query }}"%s}
result: "{{ steps.end }}"
"""


async def go(node: FaultyNode, past: object, more: str = "", *, pool: bool = True):
    """Run once before a node; return the result and the events."""
    events: list = []
    settings = Settings(nodes=[node.url], model="m", retries=0, task_distribution_enabled=pool, journal="off")
    async with Session(settings, agents=AGENTS) as session:
        plan = await session.plan("why", pipeline=Pipeline.parse(TEXT % more))
        stacks = await session._opened.stacks()
        defaults = session._planner.defaults(plan.route)
        executor = Executor(plan, stacks, defaults, run_id="r", emit=events.append, past=past)
        return await executor.run(), events


def cut(events: list, pieces: int) -> Recorded:
    """Return the past of a run that was killed after so many pieces of its reply."""
    said = [event.text for event in events if isinstance(event, TokenDelta)][:pieces]
    asked = [event for event in events if isinstance(event, StepAsked)]
    return Recorded(asked, {"end": "".join(said)}, {"end": len(said)})


@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize(
    ("turn", "more", "goes_on"),
    [("open", "", True), ("closed", "", False), ("open", ", output: {text: string}", False)],
)
async def test_a_call_goes_on_where_the_model_is_known_to(turn, more, goes_on, pool):
    async with FaultyNode(models=["m"], tokens=20, turn=turn) as node:
        first, events = await go(node, FRESH, more, pool=pool)
        whole = [event for event in events if isinstance(event, StepFinished)][-1].result
        again, said = await go(node, cut(events, 12), more, pool=pool)
        bodies = [call.messages for call in node.asked if not call.body.get("_debug_render_only") and call.messages]

    assert again.answer == first.answer
    continued = [event for event in said if isinstance(event, StepContinued)]
    ended = [event for event in said if isinstance(event, StepFinished)][-1].result
    assert [event.reason for event in continued] == (
        ["the run was cut off in the middle of this call"] if goes_on else []
    )
    assert (bodies[-1][-1]["role"] == "assistant") == goes_on
    spoken = [event.text for event in said if isinstance(event, TokenDelta)]
    if goes_on:
        assert "".join(spoken) == first.answer
        assert len(spoken) == 20, "what was said comes in as many pieces as it came in, and 8 more are generated"
        assert (ended.attempts, whole.attempts) == (1, 1)
    else:
        retried = [event for event in said if isinstance(event, StepRetried)]
        assert "not known to go on with" in retried[0].error


@pytest.mark.parametrize("pool", [True, False])
async def test_what_goes_on_twice_has_as_many_tokens_as_it_may(pool):
    more = ", max_tokens: 20"
    words = " ".join(f"incomprehensibility{number}" for number in range(40))  # far from four characters a token
    async with FaultyNode(models=["m"], text=words, turn="open") as node:
        first, events = await go(node, FRESH, more, pool=pool)
        _, events = await go(node, cut(events, 12), more, pool=pool)
        again, _ = await go(node, cut(events, 17), more, pool=pool)
    assert len(first.answer.split()) == 20
    assert again.answer == first.answer


@pytest.mark.parametrize("way", ["killed", "cancelled"])
async def test_the_record_tells_in_how_many_pieces_a_text_came(way, tmp_path):
    run = Run("  end: {agent: writer, prompt: x}", {"end": Failure("stall", after_tokens=100, text="so on " * 100)})
    task = asyncio.create_task(run())
    file, copy = paths.journal_file(), tmp_path / "copy.sqlite3"
    kept, said = 0, 0
    while not kept or said < 100:
        await asyncio.sleep(0.02)
        said = sum(isinstance(event, TokenDelta) for event in run.events)
        if not file.exists():
            continue
        copy.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(file)) as connection:
            connection.execute("VACUUM INTO ?", (str(copy),))
        with Journal(copy) as journal:
            kept = sum(journal.open_pieces(journal.runs()[0]).values()) if journal.runs() else 0
    task.cancel()
    await asyncio.wait([task])
    with Journal(copy if way == "killed" else file) as journal:
        (run_id,) = [run.id for run in journal.runs()]
        before = RunBefore.read(run_id, journal)
        (asked,) = [event for event in before.events if isinstance(event, StepAsked)]
        begun = Recorded(before.events, before.open_texts, before.pieces).begun("end", asked.key)
    assert begun.pieces == len(split_tokens(begun.said)) > 60


async def test_a_call_that_was_cancelled_goes_on_too():
    async with FaultyNode(models=["m"], tokens=20, turn="open") as node:
        first, events = await go(node, FRESH, pool=False)
        *_, ended = [event.result for event in events if isinstance(event, StepFinished)]
        said = "".join(event.text for event in events if isinstance(event, TokenDelta))[:60]
        cancelled = StepFinished(replace(ended, status="cancelled", output=said))
        past = Recorded([*(event for event in events if isinstance(event, StepAsked)), cancelled])
        again, events = await go(node, past, pool=False)
    assert again.answer == first.answer
    assert [event.reason for event in events if isinstance(event, StepContinued)] == [CUT_OFF]


async def test_a_backend_that_cannot_go_on_says_that_the_call_is_made_anew():
    goes = Goes(TEXT % "")
    first = await goes()
    asked = [event for event in goes.events if isinstance(event, StepAsked)]
    again = await goes(Recorded(asked, {"end": "wh"}))
    assert (again.answer, again.steps[0].attempts) == (first.answer, 1)
    (retried,) = [event for event in goes.events if isinstance(event, StepRetried)]
    assert "it is made anew" in retried.error


def test_another_model_of_the_same_name_does_not_go_on_with_the_text():
    asked = StepAsked("end", "k", digest="sha256:1")
    past = Recorded([asked], {"end": "once upon"})
    said = [past.begun("end", "k", digest).said for digest in ("sha256:1", None, "sha256:2")]
    assert said == ["once upon"] * 2 + [""]
    assert past.begun("end", "other", "sha256:1") == NOTHING
