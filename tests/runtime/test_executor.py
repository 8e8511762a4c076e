"""The executor: order, maps, loops, conditions, failures, cancellation; on the scripted backend."""

import asyncio
import inspect
from pathlib import Path

import pytest
from run_support import Run

from synaptic.backends.scripted import Failure, Reply
from synaptic.errors import PipelineError, RunError, StreamFailed
from synaptic.pipeline import kinds as pipeline_kinds
from synaptic.pipeline.kinds import KINDS
from synaptic.runtime import kinds as runtime_kinds
from synaptic.runtime.events import RunFinished, RunStarted, StepAsked, StepStarted, TokenDelta
from synaptic.runtime.kinds import RUNS

CHAIN = """\
  first: {agent: writer, prompt: "{{ inputs.query }}"}
  end: {agent: writer, prompt: "after {{ steps.first }}"}
"""


async def test_a_step_gets_what_it_refers_to():
    run = Run(CHAIN, {"first": "one"})

    result = await run()

    assert result.status == "succeeded"
    assert result.answer == "after one"
    assert result.stop_reason == "completed"
    assert result.usage.total_tokens == sum(step.usage.total_tokens for step in result.steps)
    assert [type(event) for event in run.events[:3]] == [RunStarted, StepStarted, StepAsked]
    assert run.finished == result
    assert result.raise_for_status() is result


async def test_the_agents_prompt_is_the_system_message():
    run = Run(CHAIN)

    await run()

    assert [message.role for message in run.backend.requests[0].messages] == ["system", "user"]
    assert run.backend.requests[0].messages[0].content == "Write."


async def test_a_step_starts_when_it_can_not_when_its_stage_does():
    """A slow step beside a chain does not hold the chain up."""
    steps = """\
  slow: {agent: writer, prompt: slow}
  a: {agent: writer, prompt: a}
  b: {agent: writer, prompt: "{{ steps.a }}"}
  end: {agent: writer, prompt: "{{ steps.b }} {{ steps.slow }}"}
"""
    begun = asyncio.Event()

    async def answer(request):
        if request.tag == "slow":
            await begun.wait()
        if request.tag == "b":
            begun.set()
        return "x"

    run = Run(steps, answer)
    async with asyncio.timeout(20):
        result = await run()

    assert result.status == "succeeded"
    assert list(run.statuses()) == ["a", "b", "slow", "end"]


async def test_a_map_runs_its_items_at_once_and_keeps_their_order():
    steps = """\
  list: {agent: lister, prompt: x}
  end: {agent: writer, foreach: steps.list.items, as: thing, prompt: "do {{ thing }}"}
"""
    delays = {"do a": 0.02, "do b": 0.0, "do c": 0.01}

    async def answer(request):
        if request.tag == "list":
            return {"items": ["a", "b", "c"]}
        await asyncio.sleep(delays[request.messages[-1].content])
        return request.messages[-1].content.upper()

    run = Run(steps, answer)
    result = await run()

    assert result.answer == "- DO A\n- DO B\n- DO C"
    assert run.backend.max_active == 3
    started = next(event for event in run.events if isinstance(event, StepStarted) and event.path == "end")
    assert (started.kind, started.width) == ("map", 3)


async def test_a_map_over_nothing_gives_nothing():
    steps = """\
  list: {agent: lister, prompt: x}
  map: {agent: writer, foreach: steps.list.items, prompt: "{{ item }}"}
  end: {agent: writer, prompt: "got {{ steps.map | length }}"}
"""
    assert (await Run(steps, {"list": {"items": []}})()).answer == "got 0"


async def test_one_failed_item_is_left_out_where_the_step_allows_it():
    steps = """\
  list: {agent: lister, prompt: x}
  map: {agent: writer, foreach: steps.list.items, prompt: "{{ item }}", on_error: skip}
  end: {agent: writer, prompt: "{{ steps.map }}"}
"""
    run = Run(steps, {"list": {"items": ["a", "b", "c"]}, "map[1]": Failure("server_error")})

    result = await run()

    assert result.answer == "- a\n- c"
    assert run.statuses()["map[1]"] == "skipped"
    assert run.statuses()["map"] == "succeeded"


async def test_a_map_whose_every_item_fails_has_failed():
    steps = """\
  list: {agent: lister, prompt: x}
  end: {agent: writer, foreach: steps.list.items, prompt: "{{ item }}", on_error: skip}
"""
    run = Run(steps, {"list": {"items": ["a", "b"]}, "end*": Failure("stream_failed")})

    result = await run()

    assert result.status == "failed"
    assert run.statuses()["end"] == "failed"


async def test_one_failed_item_fails_the_map_otherwise():
    steps = """\
  list: {agent: lister, prompt: x}
  end: {agent: writer, foreach: steps.list.items, prompt: "{{ item }}"}
"""
    run = Run(steps, {"list": {"items": ["a", "b"]}, "end[0]": Failure("stream_failed"), "end[1]": Failure("stall")})

    result = await run()

    assert result.status == "failed"
    assert run.statuses() == {"list": "succeeded", "end[0]": "failed", "end[1]": "cancelled", "end": "failed"}


async def test_a_map_over_something_else_is_an_error_that_names_the_step():
    steps = """\
  judge: {agent: judge, prompt: x}
  end: {agent: writer, foreach: "steps.judge.score | default(1)", prompt: "{{ item }}"}
"""
    result = await Run(steps)()

    assert isinstance(result.error, PipelineError)
    assert "end: 'foreach' needs a list, not float" in str(result.error)


async def test_a_condition_that_is_false_skips_the_step_and_not_what_follows():
    steps = """\
  maybe: {agent: writer, prompt: x, when: "inputs.query == 'never'"}
  end: {agent: writer, prompt: "maybe: {{ 'none' if steps.maybe is none else steps.maybe }}"}
"""
    run = Run(steps)

    assert (await run()).answer == "maybe: none"
    assert run.statuses()["maybe"] == "skipped"


async def test_a_failed_step_may_be_skipped():
    steps = """\
  maybe: {agent: writer, prompt: x, on_error: skip}
  end: {agent: writer, prompt: "got {{ steps.maybe }}"}
"""
    run = Run(steps, {"maybe": Failure("server_error")})

    assert (await run()).answer == "got"
    assert run.statuses()["maybe"] == "skipped"


async def test_a_failed_step_ends_the_run_and_what_is_finished_is_kept():
    steps = """\
  good: {agent: writer, prompt: fine}
  bad: {agent: writer, prompt: "{{ steps.good }}"}
  beside: {agent: writer, prompt: "{{ steps.good }}"}
  end: {agent: writer, prompt: "{{ steps.bad }} {{ steps.beside }}"}
"""
    script = {"bad": Failure("stream_failed", after_tokens=1), "beside": Failure("stall", after_tokens=1)}
    run = Run(steps, script, first_token_delay=0.001)

    result = await run()

    assert result.status == "failed"
    assert isinstance(result.error, StreamFailed)
    assert run.statuses() == {"good": "succeeded", "bad": "failed", "beside": "cancelled"}
    assert run.result_of("beside").stop_reason == "bad failed"
    assert (run.result_of("good").output, result.answer) == ("fine", "")
    assert run.backend.active == 0
    with pytest.raises(StreamFailed, match=r"^bad: the server failed"):
        result.raise_for_status()


async def test_a_template_that_leads_nowhere_in_a_run_fails_its_step():
    steps = """\
  end: {agent: writer, prompt: "{{ (inputs.query | default('x')).missing }}"}
"""
    result = await Run(steps)()

    assert isinstance(result.error, PipelineError)
    assert result.steps[0].error


async def test_an_empty_result_is_no_answer():
    steps = """\
  end: {agent: writer, prompt: x, when: "inputs.query == 'never'"}
"""
    result = await Run(steps)()

    assert isinstance(result.error, RunError)
    assert "skipped: end" in str(result.error)


async def test_a_result_that_fails_is_a_failed_run():
    run = Run("  end: {agent: writer, prompt: x}", result="{{ 1 / 0 }}")

    result = await run()

    assert isinstance(result.error, PipelineError)


async def test_an_answer_that_reaches_its_limit_says_so():
    result = await Run("  end: {agent: writer, prompt: x}", [Reply(text="cut", finish_reason="length")])()

    assert (result.status, result.stop_reason) == ("succeeded", "length")


LOOP = """\
  loop:
    repeat:
      max: {max}
      until: steps.judge.score >= 0.8
      {keep}
      steps:
        draft: {{agent: writer, prompt: "{{{{ previous.draft if previous else 'none' }}}}"}}
        judge: {{agent: judge, prompt: "{{{{ steps.draft }}}}"}}
  end:
    agent: writer
    prompt: "{{{{ steps.loop.draft }}}} {{{{ steps.loop.rounds }}}} {{{{ steps.loop.stop_reason }}}}"
"""
SCORES = tuple({"score": score} for score in (0.3, 0.6, 0.5))
DRAFTS = ("one", "two", "three")


def scripted_rounds(scores=SCORES):
    return {
        **{f"loop[{n + 1}].draft": draft for n, draft in enumerate(DRAFTS)},
        **{f"loop[{n + 1}].judge": score for n, score in enumerate(scores)},
    }


@pytest.mark.parametrize(
    ("keep", "scores", "answer"),
    [
        ("score: steps.judge.score\n      keep: best", SCORES, "two 3 max"),
        ("", SCORES, "three 3 max"),
        ("score: steps.judge.score\n      keep: last", SCORES, "three 3 max"),
        ("", tuple({"score": s} for s in (0.3, 0.9, 0.1)), "two 2 until"),
    ],
)
async def test_a_loop_ends_at_its_condition_or_its_bound_and_keeps_a_round(keep: str, scores: tuple, answer: str):
    run = Run(LOOP.format(max=3, keep=keep), scripted_rounds(scores))

    assert (await run()).answer == answer
    assert run.prompts()["loop[2].draft"] == "one"
    assert run.prompts()["loop[1].draft"] == "none"


async def test_a_loop_that_fails_in_a_later_round_keeps_what_it_has():
    script = {**scripted_rounds(), "loop[2].draft": Failure("stream_failed")}
    run = Run(LOOP.format(max=3, keep=""), script)

    assert (await run()).answer == "one 1 error"


async def test_a_loop_that_fails_in_its_first_round_has_failed():
    run = Run(LOOP.format(max=3, keep=""), {**scripted_rounds(), "loop[1].draft": Failure("stream_failed")})

    result = await run()

    assert result.status == "failed"
    assert run.statuses()["loop"] == "failed"


@pytest.mark.parametrize(
    ("bound", "shown"), [("inputs.query | default(1)", "'why'"), ("(1 > 0) | default(1)", "True"), ("3 - 3", "0")]
)
async def test_a_bound_that_is_no_number_is_an_error(bound: str, shown: str):
    result = await Run(LOOP.format(max=f"'{bound}'", keep=""), scripted_rounds())()

    assert "'max' must be a whole number of at least 1, not " + shown in str(result.error)


async def test_a_score_that_is_no_number_is_an_error():
    result = await Run(
        LOOP.format(max=2, keep="score: steps.draft | default(0)\n      keep: best"), scripted_rounds()
    )()

    assert "'score' must be a number" in str(result.error)


SHAPES = """\
  list: {agent: lister, prompt: x}
  map: {agent: writer, foreach: steps.list.items, prompt: "{{ item }}"}
  loop:
    repeat:
      max: 2
      steps:
        draft: {agent: writer, prompt: "{{ steps.map }}"}
  end: {agent: writer, prompt: "{{ steps.loop.draft }} four five"}
"""


@pytest.mark.parametrize("turns", range(0, 160, 3))
async def test_cancelling_at_any_point_leaves_nothing_behind(turns: int):
    """The run is cancelled after so many turns of the event loop: no task, no call, one last event."""
    run = Run(SHAPES, {"list": {"items": ["a b", "c d"]}}, token_delay=1e-9)
    before = asyncio.all_tasks()
    task = asyncio.create_task(run())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

    assert asyncio.all_tasks() == before
    assert run.backend.active == 0
    if run.events:
        assert run.finished.status in {"cancelled", "succeeded"}
        # A run that had ended is no cancelled one, also if its session is cancelled while it closes.
        assert task.cancelled() or run.finished.status == "succeeded"
        assert sum(isinstance(event, RunFinished) for event in run.events) == 1


async def test_a_cancelled_run_keeps_the_part_of_the_answer_that_was_written():
    run = Run(CHAIN, {"first": "one", "end": Failure("stall", after_tokens=2, text="half an answer")})
    task = asyncio.create_task(run())
    while not any(isinstance(event, TokenDelta) and event.path == "end" for event in run.events):
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert run.finished.status == "cancelled"
    assert run.finished.answer == "half an"
    assert run.statuses() == {"first": "succeeded", "end": "cancelled"}


async def test_a_run_cancelled_before_its_answer_has_none_and_keeps_what_was_found_in_its_steps():
    run = Run(CHAIN, {"first": "findings", "end": Failure("stall")})
    task = asyncio.create_task(run())
    while len(run.backend.requests) < 2:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert run.finished.answer == ""
    assert run.result_of("first").output == "findings"


async def test_cancelling_inside_a_map_and_a_loop_reports_both_as_cancelled():
    for stalled, path in (("map[0]", "map"), ("loop[1].draft", "loop")):
        run = Run(SHAPES, {"list": {"items": ["a", "b"]}, stalled: Failure("stall")})
        task = asyncio.create_task(run())
        while not any(request.tag == stalled for request in run.backend.requests):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert run.statuses()[path] == "cancelled"


async def test_a_bug_in_a_backend_is_not_taken_for_a_failed_step():
    run = Run(CHAIN, [ZeroDivisionError()])

    with pytest.raises(ZeroDivisionError):
        await run()

    assert run.finished.status == "failed"
    assert isinstance(run.finished.error, ZeroDivisionError)


def test_every_kind_of_step_has_a_twin_that_runs_it():
    folders = [Path(package.__file__ or "").parent for package in (pipeline_kinds, runtime_kinds)]

    assert list(RUNS) == list(KINDS)
    for kind in KINDS.values():
        assert all((folder / f"{kind.key}.py").is_file() for folder in folders)
        assert list(inspect.signature(RUNS[kind.name]).parameters) == ["runner", "step", "context"]
        assert inspect.iscoroutinefunction(RUNS[kind.name])
