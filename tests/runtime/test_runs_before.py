"""Resume, fork and rerun, from the journal: what is taken, what is done again, and what is said."""

import asyncio
import os
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from faulty_node import FaultyNode
from run_support import AGENTS, SETTINGS

from synaptic import paths
from synaptic.backends.scripted import Failure, Reply, ScriptedBackend
from synaptic.errors import JournalError, RunOwned, UsageError
from synaptic.pipeline.loader import Pipeline
from synaptic.processes import process_mark
from synaptic.runtime import runs_before
from synaptic.runtime.events import BackendReported, Event, RunResult, StepAsked
from synaptic.runtime.journal import Journal, Owner
from synaptic.runtime.journal.row_seal import seal_all
from synaptic.runtime.runs_before import read_run_before
from synaptic.runtime.session import Session
from synaptic.settings.load import Settings

TEXT = """\
version: 1
name: demo
inputs: {query: {}, tone: {default: calm}}
steps:
  plan: {agent: writer, prompt: "plan {{ inputs.query }}"}
  draft: {agent: writer, prompt: "draft {{ steps.plan }}"}
  end: {agent: writer, prompt: "{{ inputs.tone }} {{ steps.draft }}"}
result: "{{ steps.end }}"
"""


class Desk:
    """Sessions that follow one another, as programs do, around the one journal."""

    def __init__(self, script: object = None) -> None:
        self.script = script
        self.events: list[Event] = []
        self.asked: list[str] = []

    async def __call__(self, work, settings=SETTINGS) -> RunResult:
        """Do ``work`` in a session of its own."""
        backend = ScriptedBackend(self.script)
        self.events = []
        try:
            async with Session(settings, backend=backend, agents=AGENTS, on_event=self.events.append) as session:
                return await work(session)
        finally:
            self.asked = [request.tag for request in backend.requests]

    async def run(self, text: str | Path = TEXT, **options) -> RunResult:
        pipeline = Pipeline.load(text) if isinstance(text, Path) else Pipeline.parse(text)
        return await self(lambda session: session.run("why", pipeline=pipeline), **options)

    async def cut(self, text: str | Path = TEXT, at: str = "draft") -> str:
        """Begin a run, cancel it in the middle of a step, and return its id."""
        self.script = {at: Reply(text="one two three", token_delay=60)}
        task = asyncio.create_task(self.run(text))
        async with asyncio.timeout(20):
            while not any(getattr(event, "path", None) == at for event in self.events):
                await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        self.script = None
        with Journal() as journal:
            return journal.runs()[0].id

    def notices(self) -> list[str]:
        return [event.report.message for event in self.events if isinstance(event, BackendReported)]

    def changed(self) -> Mapping[str, tuple[str, ...]]:
        return {event.path: event.changed for event in self.events if isinstance(event, StepAsked) and event.changed}


async def test_a_run_that_was_cut_off_goes_on_under_its_name():
    desk = Desk()
    run_id = await desk.cut()
    result = await desk(lambda session: session.resume(run_id[-8:].lower()))
    assert (result.run_id, result.status, result.answer) == (run_id, "succeeded", "calm draft plan why")
    assert desk.asked == ["draft", "end"]
    with Journal() as journal:
        assert [(run.id, run.status, run.parent) for run in journal.runs()] == [(run_id, "succeeded", None)]


async def test_a_run_that_failed_tries_the_failed_step_again():
    desk = Desk({"draft": Failure("server_error")})
    result = await desk.run()
    assert result.status == "failed"
    assert desk.asked == ["plan", "draft"]
    desk.script = None
    again = await desk(lambda session: session.resume(result.run_id))
    assert (again.status, desk.asked) == ("succeeded", ["draft", "end"])
    with pytest.raises(JournalError, match="has succeeded: there is nothing left to do"):
        await desk(lambda session: session.resume(result.run_id))


async def test_a_fork_keeps_what_had_ended_before_its_step_whatever_has_changed():
    desk = Desk()
    first = await desk.run()
    fork = await desk(lambda session: session.fork(first.run_id, at="draft", inputs={"query": "how", "tone": "loud"}))
    assert fork.answer == "loud draft plan why"
    assert desk.asked == ["draft", "end"]
    with Journal() as journal:
        kept = journal.run(fork.run_id)
    assert (kept.parent, kept.forked_at) == (first.run_id, "draft")

    unchanged = await desk(lambda session: session.fork(fork.run_id, at="end"))
    assert (unchanged.answer, desk.asked) == (fork.answer, ["end"])


async def test_a_fork_at_a_step_that_there_is_not():
    desk = Desk()
    first = await desk.run()
    with pytest.raises(UsageError, match="no step 'drafd'") as raised:
        await desk(lambda session: session.fork(first.run_id, at="drafd"))
    assert raised.value.hint == "did you mean 'draft'?"
    assert desk.asked == []


async def test_a_rerun_does_again_what_a_change_reaches_and_says_what_changed():
    desk = Desk()
    first = await desk.run()
    changed = Pipeline.parse(TEXT.replace('"draft ', '"write '))
    again = await desk(lambda session: session.rerun(first.run_id, pipeline=changed))
    assert again.answer == "calm write plan why"
    assert desk.asked == ["draft", "end"]
    assert desk.changed() == {"draft": ("prompt",), "end": ("prompt",)}
    assert [step.reused for step in again.steps] == [True, False, False]

    same = await desk(lambda session: session.rerun(again.run_id))
    assert (same.answer, desk.asked) == (again.answer, [])


@pytest.mark.parametrize(
    ("options", "asked", "changed"),
    [
        ({}, [], {}),
        ({"settings": ["temperature"]}, ["plan", "draft", "end"], {"plan": ("temperature",)}),
        ({"model": "other"}, ["plan", "draft", "end"], {"plan": ("model",)}),
        ({"inputs": {"tone": "loud"}}, ["end"], {"end": ("prompt",)}),
    ],
)
async def test_settings_are_those_of_the_run_but_for_those_that_are_named(options, asked, changed):
    desk = Desk()
    first = await desk.run()
    hot = SETTINGS.model_copy(update={"temperature": 1.5, "max_tokens": 7})
    await desk(lambda session: session.rerun(first.run_id, **options), settings=hot)
    assert desk.asked == asked
    assert desk.changed().items() >= changed.items()


INNER = """\
version: 1
name: inner
inputs: {query: {}}
steps:
  say: {agent: writer, prompt: said}
result: "{{ steps.say }}"
"""
OUTER = """\
version: 1
name: outer
inputs: {query: {}}
steps:
  look: {use: inner.yaml, with: {query: x}}
  end: {agent: writer, prompt: "{{ steps.look }}"}
result: "{{ steps.end }}"
"""


@pytest.mark.parametrize("fate", ["gone", "changed", "broken"])
async def test_a_run_goes_on_with_its_pipelines_as_they_were(tmp_path: Path, fate: str):
    outer, inner = tmp_path / "outer.yaml", tmp_path / "inner.yaml"
    outer.write_text(OUTER)
    inner.write_text(INNER)
    desk = Desk()
    run_id = await desk.cut(outer, "end")
    for file in (outer, inner):
        match fate:
            case "gone":
                file.unlink()
            case "changed":
                file.write_text(file.read_text().replace("said", "cried").replace("prompt:", "timeout: 9, prompt:"))
            case "broken":
                file.write_text("version: [")

    result = await desk(lambda session: session.resume(run_id))

    assert (result.answer, desk.asked) == ("said", ["end"])
    what = "is gone, or cannot be read any more" if fate == "gone" else "was changed"
    assert desk.notices() == [
        f"{file} {what} since the run began; it goes on as it was then" for file in (outer, inner)
    ]


async def test_a_run_goes_on_with_another_pipeline_if_that_is_wanted(tmp_path: Path):
    desk = Desk()
    run_id = await desk.cut()
    changed = tmp_path / "new.yaml"
    changed.write_text(TEXT.replace("{{ inputs.tone }}", "now"))
    result = await desk(lambda session: session.resume(run_id, pipeline=changed))
    assert (result.answer, desk.asked) == ("now draft plan why", ["draft", "end"])


async def test_a_run_that_a_living_process_works_on_is_left_alone():
    desk = Desk()
    run_id = await desk.cut()
    parent = os.getppid()
    for pid, mark, free in ((parent, process_mark(parent), False), (parent, "another", True)):
        owner = Owner(os.uname().nodename, pid, mark or "").written()
        with sqlite3.connect(paths.journal_file()) as connection:
            connection.execute("UPDATE runs SET status = 'running', owner = ?", (owner,))
            seal_all(connection)
        connection.close()
        if free:
            assert (await desk(lambda session: session.resume(run_id))).status == "succeeded"
        else:
            with pytest.raises(RunOwned, match=f"{run_id} is at work in process {parent}"):
                await desk(lambda session: session.resume(run_id))
            assert desk.asked == []


@pytest.mark.parametrize("pool", [True, False])
async def test_a_model_of_the_same_name_with_another_content_is_asked_again(pool: bool):  # noqa: FBT001 - a row
    async with FaultyNode(models=["m"], tokens=3, parallel=4) as node:
        settings = Settings(nodes=[node.url], model="m", retries=0, task_distribution_enabled=pool)

        async def go(work):
            node.asked.clear()
            events = []
            async with Session(settings, agents=AGENTS, on_event=events.append) as session:
                result = await work(session)
            return result, sum(bool(call.messages) for call in node.asked), events

        result, calls, _ = await go(lambda session: session.run("why", pipeline=Pipeline.parse(TEXT)))
        assert (result.status, calls) == ("succeeded", 3)
        same, calls, _ = await go(lambda session: session.rerun(result.run_id))
        assert (same.answer, calls) == (result.answer, 0)
        node.config.models["m"] = replace(node.config.models["m"], content="of another month")
        _, calls, events = await go(lambda session: session.rerun(result.run_id))

    changed = {event.path: event.changed for event in events if isinstance(event, StepAsked)}
    assert calls == 3
    assert changed["plan"] == ("content of the model",)


async def test_an_unknown_run():
    with pytest.raises(JournalError, match="no run 01abc is recorded"):
        await Desk()(lambda session: session.resume("01abc"))


async def test_documents_behind_the_question_stay_there_when_it_changes():
    desk = Desk()
    pipeline = Pipeline.parse(TEXT)
    documents = [{"name": "a.txt", "text": "tea"}]
    first = await desk(lambda session: session.run("why", pipeline=pipeline, documents=documents))
    again = await desk(lambda session: session.rerun(first.run_id, inputs={"query": "how"}))
    assert again.answer == first.answer.replace("why", "how")
    assert "tea" in again.answer


async def test_a_long_chain_of_runs_is_read_back_to_a_bound_and_nothing_is_asked_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runs_before, "GENERATIONS", 2)
    desk = Desk()
    last = await desk.run()
    for _ in range(4):
        run_id = last.run_id
        last = await desk(lambda session, run_id=run_id: session.rerun(run_id))
        assert desk.asked == []

    before = read_run_before(last.run_id, to_go_on=False)

    assert before.parent is not None and before.parent.parent is not None
    assert before.parent.parent.parent is None
