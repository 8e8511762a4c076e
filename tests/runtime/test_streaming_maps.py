"""A map over a list that is still being written."""

import asyncio

from run_support import Run

from synaptic.backends.scripted import Failure, Reply
from synaptic.runtime.events import StepFinished, StepStarted
from synaptic.settings import Settings

STEPS = """\
  plan: {agent: lister, prompt: list}
  each: {agent: writer, foreach: steps.plan.items, prompt: "do {{ item }}"}
  end: {agent: writer, prompt: "{{ steps.each | join(', ') }}"}
"""


def moments(run: Run) -> list[str]:
    said = []
    for event in run.events:
        if isinstance(event, StepStarted):
            said.append(f"+{event.path}")
        elif isinstance(event, StepFinished):
            said.append(f"-{event.result.id}")
    return said


async def test_items_start_while_the_list_is_being_written():
    run = Run(STEPS, {"plan": Reply(text='{"items": ["a", "b", "c"]}', token_delay=0.01)})
    result = await run()
    assert result.answer == "do a, do b, do c"
    said = moments(run)
    assert said.index("+each[0]") < said.index("-each[0]") < said.index("+each[1]") < said.index("-plan")
    assert run.result_of("each").output == ["do a", "do b", "do c"]


async def test_a_list_that_is_written_anew_is_mapped_anew():
    bad = Reply(text='{"items": ["old", "b"', finish_reason="length")
    run = Run(STEPS, {"plan": (bad, {"items": ["new", "b"]})})
    result = await run()
    assert result.answer == "do new, do b"
    assert run.result_of("plan").attempts == 2


async def test_items_that_stay_the_same_are_not_asked_for_twice():
    run = Run(STEPS, {"plan": Reply(text='{"items": ["a", "b"]}', token_delay=0.005)})
    await run()
    assert sorted(request.tag for request in run.backend.requests).count("each[0]") == 1


async def test_a_writer_that_fails_takes_the_map_with_it():
    run = Run(STEPS, {"plan": Failure("truncated", text='{"items": ["a", "b"', after_tokens=3)})
    result = await asyncio.wait_for(run(), 20)
    assert result.status == "failed"
    assert run.backend.active == 0


async def test_a_writer_that_is_retried_starts_the_map_over():
    broken = Failure("truncated", text='{"items": ["x", "y"', after_tokens=3)
    run = Run(STEPS, {"plan": (broken, {"items": ["a"]})}, settings=Settings(retries=1))
    assert (await run()).answer == "do a"


async def test_a_map_with_a_bound_runs_no_more_than_that_at_once():
    steps = STEPS.replace("foreach:", "concurrency: 2, foreach:")
    items = {"items": ["a", "b", "c", "d", "e"]}
    run = Run(steps, {"plan": items, "each[*]": Reply(text="x y", token_delay=0.01)})
    await run()
    assert run.backend.max_active == 2


async def test_a_skipped_writer_leaves_an_empty_map():
    steps = STEPS.replace("prompt: list", "prompt: list, when: inputs.query == 'never'")
    run = Run(steps, result="[{{ steps.each | length }}]")
    assert (await run()).answer == "[0]"
