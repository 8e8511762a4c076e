"""Results that are mappings: values of their own types for programs, text for people."""

import json

import pytest
from run_support import AGENTS, SETTINGS, Run

from synaptic.backends.scripted import Failure, ScriptedBackend
from synaptic.pipeline.loader import Pipeline
from synaptic.runtime.run_document import run_document
from synaptic.runtime.session import Session

STEPS = """\
  judge: {agent: critic, prompt: x}
  tell: {agent: writer, prompt: "about {{ inputs.query }}"}
  never: {agent: writer, when: inputs.query == "else", prompt: x}
"""
SCRIPT = {"judge": {"score": 0.5, "issues": ["too short", "no end"]}}


def text_of(result: str, steps: str = STEPS, head: str = "") -> str:
    return f"version: 1\nname: demo\n{head}inputs: {{query: {{}}}}\nsteps:\n{steps}result:\n{result}"


async def answer(result: str, script: object = SCRIPT, **parts: str):
    backend = ScriptedBackend(script)
    async with Session(SETTINGS, backend=backend, agents=AGENTS) as session:
        return await session.run("tea", pipeline=Pipeline.parse(text_of(result, **parts)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("'{{ steps.judge.score }}'", 0.5),
        ("'{{ steps.judge.score >= 0.5 }}'", True),
        ("'{{ steps.judge.issues }}'", ["too short", "no end"]),
        ("'{{ steps.judge.issues | length }}'", 2),
        ("'{{ steps.judge }}'", {"score": 0.5, "issues": ["too short", "no end"]}),
        ("'{{ steps.tell }}'", "about tea"),
        ("'It is {{ steps.tell }}.'", "It is about tea."),
        ("'{{ steps.never }}'", None),
        ("'{{ inputs.query }}'", "tea"),
        ("plain text", "plain text"),
        ("3", 3),
        ("[1, '{{ steps.judge.score }}', {deep: '{{ steps.never }}'}]", [1, 0.5, {"deep": None}]),
        ("{of: '{{ steps.tell }}', from: demo}", {"of": "about tea", "from": "demo"}),
    ],
)
async def test_each_value_keeps_its_type(value: str, expected: object):
    result = await answer(f"  told: '{{{{ steps.tell }}}}'\n  value: {value}\n")

    assert result.status == "succeeded"
    assert result.answer == {"told": "about tea", "value": expected}
    assert json.loads(json.dumps(run_document(result)))["answer"] == result.answer


async def test_a_person_reads_it_as_text():
    shown = (
        "  title: '{{ steps.tell }}'\n  good: '{{ steps.judge.score > 0.9 }}'\n  issues: '{{ steps.judge.issues }}'\n"
    )

    result = await answer(shown)

    assert result.text == "title: about tea\ngood: no\nissues:\n- too short\n- no end"


async def test_a_result_of_nothing_is_no_answer():
    result = await answer("  a: '{{ steps.never }}'\n  b: '{{ steps.never }}'\n")

    assert result.status == "failed"
    assert "its result is empty" in str(result.error)


async def test_a_run_that_failed_keeps_the_values_that_are_there():
    steps = STEPS + "  last: {agent: writer, needs: [tell, judge], prompt: x}\n"
    shown = "  told: '{{ steps.tell }}'\n  last: '{{ steps.last }}'\n"

    result = await answer(shown, {**SCRIPT, "last": Failure("rejected")}, steps=steps)

    assert result.status == "failed"
    assert result.answer == {"told": "about tea", "last": None}


async def test_a_budget_that_ends_a_loop_leaves_its_best_round_in_the_values():
    steps = """\
  tell:
    repeat:
      max: 9
      score: steps.rate.score
      keep: best
      steps:
        draft: {agent: writer, prompt: x}
        rate: {agent: judge, prompt: "{{ steps.draft }}"}
"""
    script = {
        "tell[1].draft": "one",
        "tell[2].draft": "two",
        "tell[1].rate": {"score": 0.9},
        "tell[2].rate": {"score": 0.1},
    }
    shown = "  best: '{{ steps.tell.draft }}'\n  rounds: '{{ steps.tell.rounds }}'\n"

    result = await answer(shown, script, steps=steps, head="budget: {calls: 5}\n")

    assert (result.status, result.stop_reason) == ("stopped", "budget: calls")
    assert result.answer == {"best": "one", "rounds": 2}


async def test_a_pipeline_that_uses_it_gets_its_fields(tmp_path):
    (tmp_path / "inner.yaml").write_text(text_of("  told: '{{ steps.tell }}'\n  score: '{{ steps.judge.score }}'\n"))
    outer = tmp_path / "outer.yaml"
    outer.write_text("""\
version: 1
name: outer
inputs: {query: {}}
steps:
  inner: {use: inner.yaml, with: {query: "{{ inputs.query }}"}}
  end: {agent: writer, when: steps.inner.score < 0.9, prompt: "{{ steps.inner.told }}!"}
result: "{{ steps.end }}"
""")
    async with Session(SETTINGS, backend=ScriptedBackend({"inner.judge": SCRIPT["judge"]}), agents=AGENTS) as session:
        assert (await session.run("tea", pipeline=outer)).answer == "about tea!"


async def test_nothing_of_a_mapping_is_streamed_as_the_answer():
    run = Run("  end: {agent: writer, prompt: x}\n")
    run.pipeline = Pipeline.parse(text_of("  told: '{{ steps.end }}'\n", "  end: {agent: writer, prompt: x}\n"))

    await run()

    assert run.events[0].plan.answer_step is None
    assert run.finished.answer == {"told": "x"}
