"""Steps that run another pipeline or a Python function."""

import asyncio
from pathlib import Path

import pytest
from run_support import AGENTS, SETTINGS, Run

from synaptic.backends.scripted import Failure, Reply, ScriptedBackend
from synaptic.pipeline.loader import Pipeline
from synaptic.pipeline.tools import tool
from synaptic.runtime.events import StepRetried
from synaptic.runtime.session import Session

INNER = """\
version: 1
name: inner
%s
inputs: {topic: {required: true}, times: {type: integer, default: 2}}
steps:
  facts: {agent: lister, prompt: "{{ inputs.topic }} x {{ inputs.times }}"}
  tell: {agent: writer, prompt: "{{ steps.facts.items }}"}
result: "%s"
"""
OUTER = """\
version: 1
name: outer
inputs: {query: {}}
%s
steps:
  look: {use: inner.yaml, with: {topic: "about {{ inputs.query }}"}%s}
  end: {agent: writer, prompt: "%s"}
result: "{{ steps.end }}"
"""


async def run_files(folder: Path, script: object, **parts: str):
    values = {
        "head": "",
        "result": "{{ steps.tell }}",
        "outer": "",
        "options": "",
        "prompt": "{{ steps.look }}",
    } | parts
    (folder / "inner.yaml").write_text(INNER % (values["head"], values["result"]))
    (folder / "outer.yaml").write_text(OUTER % (values["outer"], values["options"], values["prompt"]))
    backend = ScriptedBackend(script)
    async with Session(SETTINGS, backend=backend, agents=AGENTS) as session:
        return await session.run("tea", pipeline=Pipeline.load(folder / "outer.yaml")), backend


async def test_a_used_pipeline_gets_its_inputs_and_gives_its_result(tmp_path: Path):
    result, backend = await run_files(tmp_path, {"look.facts": {"items": ["a", "b"]}})
    assert result.answer == "- a\n- b"
    assert backend.requests[0].messages[-1].content == "about tea x 2"
    assert [step.id for step in result.steps] == ["look.facts", "look.tell", "look", "end"]
    assert result.steps[2].kind == "pipeline"


async def test_a_result_that_is_one_reference_keeps_its_fields(tmp_path: Path):
    result, _ = await run_files(
        tmp_path, {"look.facts": {"items": ["a", "b"]}}, result="{{ steps.facts }}", prompt="{{ steps.look.items[1] }}"
    )
    assert result.answer == "b"


async def test_the_budget_of_a_used_pipeline_fails_its_step_only(tmp_path: Path):
    result, _ = await run_files(
        tmp_path, None, head="budget: {calls: 1}", options=", on_error: skip", prompt="[{{ steps.look }}]"
    )
    assert (result.status, result.answer) == ("succeeded", "[]")
    assert "budget of 1 calls" in str(next(step.error for step in result.steps if step.id == "look"))


async def test_the_budget_around_it_stops_the_run(tmp_path: Path):
    result, _ = await run_files(tmp_path, None, outer="budget: {calls: 1}", options=", on_error: skip")
    assert result.stop_reason == "budget: calls"


async def test_a_failure_inside_is_the_steps_failure(tmp_path: Path):
    result, _ = await run_files(tmp_path, {"look.tell": Failure("server_error")})
    assert result.status == "failed"
    statuses = {step.id: step.status for step in result.steps}
    assert (statuses["look.facts"], statuses["look.tell"], statuses["look"]) == ("succeeded", "failed", "failed")


async def test_a_used_pipeline_may_take_only_so_long(tmp_path: Path):
    slow = {"look.tell": Reply(text="a b c d", token_delay=30)}
    result, backend = await asyncio.wait_for(run_files(tmp_path, slow, options=", timeout: 0.1"), 20)
    assert result.status == "failed"
    assert "longer than 0.1 s" in str(result.error)
    assert backend.active == 0


@tool
def shout(text: str, times: int = 1) -> str:
    """Say it loud."""
    return text.upper() * times


@tool
async def numbers(count: int) -> list[int]:
    """Count."""
    await asyncio.sleep(0)
    return list(range(count))


@tool
def broken() -> str:
    """Raise."""
    raise ValueError("no such thing")


TOOLS = {"shout": shout, "numbers": numbers, "broken": broken}


async def test_a_tool_gets_typed_arguments():
    steps = """\
  count: {tool: numbers, with: {count: 3}}
  loud: {tool: shout, foreach: steps.count, with: {text: "n{{ item }}", times: "{{ item }}"}}
  end: {agent: writer, prompt: "{{ steps.loud | join('-') }}"}
"""
    run = Run(steps, tools=TOOLS)
    assert (await run()).answer == "-N1-N2N2"
    assert run.result_of("count").kind == "tool"
    assert run.result_of("loud[2]").output == "N2N2"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("{tool: broken}", "ValueError: no such thing"),
        ("{tool: shout, with: {text: hi}, output: {loud: string}}", "shout"),
    ],
)
async def test_a_tool_that_fails_says_what_it_raised(step: str, message: str):
    run = Run(f"  loud: {step}\n  end: {{agent: writer, prompt: '{{{{ steps.loud }}}}'}}", tools=TOOLS)
    result = await run()
    assert result.status == "failed"
    assert message in str(result.error)


def flaky(failures: int):
    """Return a tool that raises so many times before it answers, and the list of its calls."""
    calls: list[str] = []

    @tool(name="flaky")
    def function(text: str) -> str:
        """Answer, at last."""
        calls.append(text)
        if len(calls) <= failures:
            raise ConnectionError("no route")
        return text.upper()

    return function, calls


@pytest.mark.parametrize(
    ("retry", "failures", "attempts", "status"),
    [
        ("", 1, 0, "failed"),
        (", retry: {attempts: 1}", 1, 0, "failed"),
        (", retry: {attempts: 3}", 0, 0, "succeeded"),
        (", retry: {attempts: 3}", 2, 3, "succeeded"),
        (", retry: {attempts: 2}", 2, 2, "failed"),
    ],
)
async def test_a_tool_that_raises_is_called_again_as_often_as_its_step_says(
    retry: str, failures: int, attempts: int, status: str
):
    function, calls = flaky(failures)
    steps = f"  loud: {{tool: flaky, with: {{text: hi}}{retry}}}\n"
    run = Run(steps, result="{{ steps.loud }}", tools={"flaky": function})

    result = await run()

    loud = run.result_of("loud")
    assert (loud.status, loud.attempts, result.status) == (status, attempts, status)
    assert len(calls) == max(attempts, 1)
    retried = [event for event in run.events if isinstance(event, StepRetried)]
    assert [(event.path, event.attempt) for event in retried] == [("loud", n) for n in range(2, attempts + 1)]
    assert all("ConnectionError: no route" in event.error and event.delay > 0 for event in retried)


async def test_each_item_of_a_map_has_attempts_of_its_own():
    seen: set[str] = set()

    @tool(name="once")
    def function(text: str) -> str:
        """Raise the first time that it sees a text."""
        if text not in seen:
            seen.add(text)
            raise ConnectionError("no route")
        return text

    steps = "  all: {tool: once, foreach: '[\"a\", \"b\"]', with: {text: '{{ item }}'}, retry: {attempts: 2}}\n"
    run = Run(steps, result="{{ steps.all | join }}", tools={"once": function})

    assert (await run()).answer == "ab"
    assert [run.result_of(f"all[{index}]").attempts for index in (0, 1)] == [2, 2]


@pytest.mark.parametrize(
    ("step", "calls"),
    [
        ("{tool: shouting, with: {text: hi}, output: {loud: string}, retry: {attempts: 3}}", 1),
        ("{tool: shouting, with: {text: hi}, output: {loud: string}}", 1),
    ],
)
async def test_what_a_tool_returns_is_wrong_however_often_it_is_called(step: str, calls: int):
    function, called = flaky(0)
    run = Run(f"  loud: {step}\n", result="{{ steps.loud }}", tools={"shouting": function})

    assert (await run()).status == "failed"
    assert len(called) == calls


async def test_the_defaults_of_a_pipeline_do_not_call_a_tool_twice():
    function, calls = flaky(1)
    steps = "  loud: {tool: flaky, with: {text: hi}}\n"
    run = Run(steps, result="{{ steps.loud }}", head="defaults: {retry: {attempts: 5}}", tools={"flaky": function})

    assert (await run()).status == "failed"
    assert len(calls) == 1


async def test_the_timeout_of_a_tool_bounds_its_attempts_together():
    function, calls = flaky(100)
    steps = "  loud: {tool: flaky, with: {text: hi}, retry: {attempts: 20}, timeout: 0.7}\n"
    run = Run(steps, result="{{ steps.loud }}", tools={"flaky": function})

    result = await run()

    assert "longer than 0.7 s" in str(result.error)
    assert run.result_of("loud").attempts > 1
    assert len(calls) < 20
