"""Random pipelines against a random backend: whatever happens, a run ends cleanly and tells a consistent story."""

import asyncio
import json
import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_support import AGENTS

from synaptic.backends.schema_sample import sample_value
from synaptic.backends.scripted import Failure, Reply, ScriptedBackend
from synaptic.errors import SynapticError
from synaptic.pipeline.loader import Pipeline
from synaptic.pipeline.tools import tool
from synaptic.runtime.events import Event, RunFinished, RunStarted, StepFinished, StepStarted
from synaptic.runtime.run_document import run_document
from synaptic.runtime.session import Session
from synaptic.settings import Settings


@tool
def shout(text: str) -> str:
    """Say it loud."""
    return text.upper()


@tool
async def whisper(text: str) -> str:
    """Say it softly."""
    await asyncio.sleep(0)
    return text.lower()


TOOLS = {"shout": shout, "whisper": whisper}
KINDS = ("text", "text", "text", "list", "map", "fed", "loop", "self", "samples", "choose", "shout", "whisper", "use")


def work(draw, kind: str, name: str, prompt: str, lists: list[str]) -> dict:
    """Return what a step of this kind does."""
    call = {"agent": "writer", "prompt": prompt}
    match kind:
        case "list":
            return call | {"agent": "lister"}
        case "map" | "fed":
            source = draw(st.sampled_from(lists)) if lists and kind == "fed" else None
            items = f"steps.{source}.items" if source else "['a', 'b', 'c']"
            bound = {"concurrency": 1} if draw(st.booleans()) else {}
            return call | bound | {"foreach": items, "prompt": prompt + " {{ item }}"}
        case "loop":
            inner = {f"{name}_a": call, f"{name}_b": {"agent": "judge", "prompt": f"{{{{ steps.{name}_a }}}}"}}
            score = f"steps.{name}_b.score"
            return {"repeat": {"max": 2, "until": f"{score} > 0.4", "score": score, "keep": "best", "steps": inner}}
        case "self":
            return call | {"repeat": {"self": True, "max": 2}}
        case "samples":
            return call | {"samples": 2, "select": draw(st.sampled_from(["vote", "best", "merge"]))}
        case "choose":
            return {"choose": {"prompt": prompt, "options": {"yes": "a", "no": "b"}}}
        case "shout" | "whisper" | "use":
            included = {"use": "answer"} if kind == "use" else {"tool": kind}
            return included | {"with": {"query" if kind == "use" else "text": f"x {prompt}"}}
    return call


def modifiers(draw, kind: str, name: str, needs: int, steps: dict[str, dict]) -> dict:
    """Return what else a step may say; a fallback is added to the steps."""
    found: dict = {}
    if draw(st.integers(0, 3)) == 0:
        found["on_error"] = "skip"
    if draw(st.integers(0, 6)) == 0:
        found["when"] = f"inputs.query {draw(st.sampled_from(['==', '!=']))} 'q'"
    if needs > 1 and kind not in {"fed", "map", "loop"} and draw(st.integers(0, 2)) == 0:
        found["join"] = draw(st.sampled_from(["any", "first"]))
    if kind == "text" and draw(st.integers(0, 4)) == 0:
        steps[f"{name}_f"] = {"agent": "writer", "prompt": "instead"}
        found["on_error"] = {"use": f"{name}_f"}
    return found


@st.composite
def random_pipelines(draw):
    """Return a random pipeline as data; JSON is YAML."""
    steps: dict[str, dict] = {}
    texts: list[str] = []
    lists: list[str] = []
    for index in range(draw(st.integers(1, 7))):
        name, kind = f"s{index}", draw(st.sampled_from(KINDS))
        chosen = draw(st.lists(st.sampled_from(texts), max_size=3, unique=True)) if texts else []
        prompt = " ".join(["go", *(f"{{{{ steps.{each} }}}}" for each in chosen)])
        step = work(draw, kind, name, prompt, lists)
        steps[name] = step | modifiers(draw, kind, name, len(chosen), steps)
        (lists if kind == "list" else texts).append(name)
    last = texts[-1] if texts else lists[-1]
    return {
        "version": 1,
        "name": "fuzz",
        "inputs": {"query": {}},
        "steps": steps,
        "result": f"{{{{ steps.{last} }}}} done",
    }


A_TURN, TURNS = 0.01, 2000
"""Seconds, and how many times a run gets them to end: on a busy machine, it and its bound are both kept waiting."""


def random_backend(seed: int, trouble: float) -> ScriptedBackend:
    """Answer after random delays, and fail now and then."""
    chance = random.Random(seed)

    def answer(request):
        if chance.random() < trouble:
            return Failure(
                chance.choice(["server_error", "stream_failed", "truncated"]), after_tokens=chance.randrange(3)
            )
        text = "one two three"
        if request.schema is not None:
            value = sample_value(request.schema)
            if "items" in value:
                value["items"] = ["a", "b", "a"][: chance.randrange(1, 4)]
            text = json.dumps(value)
        return Reply(text=text, token_delay=chance.choice([0, 0, 0.0005]))

    return ScriptedBackend(answer, first_token_delay=0.0002)


async def run_one(data: dict, seed: int, trouble: float, cancel_after: int | None) -> list[Event]:
    events: list[Event] = []
    backend = random_backend(seed, trouble)
    before = asyncio.all_tasks()
    limits = Settings(retries=seed % 2, max_parallel=random.Random(seed).choice([None, 1, 3]))
    async with Session(limits, backend=backend, agents=AGENTS, tools=TOOLS) as session:
        task = asyncio.create_task(session.run("q", pipeline=Pipeline.parse(json.dumps(data)), on_event=events.append))
        if cancel_after is not None:
            for _ in range(cancel_after):
                await asyncio.sleep(0)
            task.cancel()
        for _ in range(TURNS):
            if (await asyncio.wait([task], timeout=A_TURN))[0]:
                break
        assert task.done(), "the run never ended"
        if not task.cancelled() and task.exception() is not None:
            raise task.exception()
    assert backend.active == 0
    assert asyncio.all_tasks() - before == set()
    return events


def check(events: list[Event], data: dict) -> None:
    """Check that the events tell one story from beginning to end."""
    if not events:
        return
    assert isinstance(events[0], RunStarted) and isinstance(events[-1], RunFinished)
    assert sum(isinstance(event, RunFinished) for event in events) == 1
    result = events[-1].result
    json.dumps(run_document(result), default=str)
    started = Counter(event.path for event in events if isinstance(event, StepStarted))
    ended = Counter(event.result.id for event in events if isinstance(event, StepFinished))
    assert not started - ended, "a step began and never ended"
    running: Counter = Counter()
    for event in events:
        if isinstance(event, StepStarted):
            running[event.path] += 1
            assert running[event.path] == 1, f"{event.path} began twice at once"
        elif isinstance(event, StepFinished) and event.result.started_at is not None:
            running[event.result.id] = 0
    assert result.usage.total_tokens == sum(step.usage.total_tokens for step in result.steps)
    if result.status == "succeeded":
        assert result.answer
        outermost = [step.id for step in result.steps if step.id in data["steps"]]
        assert sorted(set(outermost)) == sorted(data["steps"]), "a step was neither run nor skipped"
    elif result.status == "failed":
        assert isinstance(result.error, SynapticError)


FUZZ = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@FUZZ
@given(random_pipelines(), st.integers(0, 2**31), st.sampled_from([0, 0.1, 0.4]))
def test_a_run_ends_and_tells_one_story(data, seed, trouble):
    check(asyncio.run(run_one(data, seed, trouble, None)), data)


@FUZZ
@given(random_pipelines(), st.integers(0, 2**31), st.sampled_from([0, 0.2]), st.integers(0, 60))
def test_a_cancelled_run_leaves_nothing_behind(data, seed, trouble, turns):
    check(asyncio.run(run_one(data, seed, trouble, turns)), data)


@pytest.mark.parametrize("turns", range(0, 120, 3))
async def test_cancelling_every_kind_of_step_at_any_turn(turns: int):
    steps = {
        "plan": {"agent": "lister", "prompt": "x"},
        "fed": {"agent": "writer", "foreach": "steps.plan.items", "prompt": "{{ item }}"},
        "slow": {"tool": "whisper", "with": {"text": "A {{ steps.fed }}"}},
        "best": {"agent": "writer", "prompt": "x", "samples": 2, "select": "best"},
        "race": {"agent": "writer", "join": "first", "prompt": "{{ steps.best }} {{ steps.slow }}"},
        "used": {"use": "parallel", "with": {"query": "x {{ steps.race }}"}},
        "again": {"agent": "writer", "prompt": "y {{ steps.used }}", "repeat": {"self": True, "max": 3}},
    }
    data = {"version": 1, "name": "all", "inputs": {"query": {}}, "steps": steps, "result": "{{ steps.again }}"}
    check(await run_one(data, 1, 0, turns), data)
