"""``join: any`` and ``first``: what starts early, what is cancelled, what a failure means."""

import asyncio

import pytest
from run_support import Run

from synaptic.backends.scripted import Failure, Reply

RACE = """\
  slow: {agent: writer, prompt: slow}
  quick: {agent: writer, prompt: quick}
  end: {agent: writer, join: %s, needs: [slow, quick], prompt: "{{ steps.slow }}|{{ steps.quick }}"}
"""
SLOW = {"slow": Reply(text="s s s s s s", token_delay=30)}


async def test_first_cancels_the_loser_and_goes_on_without_it():
    run = Run(RACE % "first", SLOW)
    result = await asyncio.wait_for(run(), 20)
    assert result.answer == "|quick"
    assert run.statuses() == {"slow": "cancelled", "quick": "succeeded", "end": "succeeded"}
    assert run.result_of("slow").stop_reason == "lost the race"
    assert run.backend.active == 0


async def test_a_condition_sees_what_is_not_there_yet_as_nothing():
    run = Run((RACE % "first").replace("needs:", "when: not steps.slow, needs:"), SLOW)
    result = await asyncio.wait_for(run(), 20)
    assert result.answer == "|quick"


async def test_any_goes_on_at_once_and_lets_the_other_finish():
    run = Run(RACE % "any", {"slow": Reply(text="s s", token_delay=0.02)})
    result = await run()
    assert result.answer == "|quick"
    order = [path for path, status in run.statuses().items() if status == "succeeded"]
    assert order == ["quick", "end", "slow"]


async def test_a_loser_that_fails_is_no_failure_of_the_run():
    run = Run(RACE % "first", {"slow": Failure("server_error")})
    result = await run()
    assert (result.status, result.answer) == ("succeeded", "|quick")
    assert run.statuses()["slow"] == "failed"


@pytest.mark.parametrize("join", ["first", "any"])
@pytest.mark.parametrize("result", ["{{ steps.end }}", "The answer: {{ steps.end }}", "{{ steps.after }}"])
async def test_a_race_of_which_every_racer_fails_has_failed_and_so_has_the_run(join: str, result: str):
    steps = RACE % join + "  after: {agent: writer, prompt: 'after {{ steps.end }}'}\n"
    run = Run(steps, {"slow": Failure("server_error"), "quick": Failure("rejected")}, result)
    ended = await run()
    assert (ended.status, ended.answer) == ("failed", "")
    assert str(ended.error).startswith("end: nothing that it waits for succeeded; slow: the server failed")
    assert "quick: the request was rejected" in str(ended.error)
    assert "after" not in run.started()
    assert run.result_of("end").stop_reason == "nothing that it waits for succeeded"


LOSERS = {
    "map": "{agent: writer, foreach: '[1, 2]', prompt: x}",
    "repeat": "{repeat: {max: 2, steps: {draft: {agent: writer, prompt: x}}}}",
    "samples": "{agent: writer, samples: 2, prompt: x}",
    "agent": "{agent: writer, prompt: x}",
}


@pytest.mark.parametrize("kind", LOSERS)
async def test_a_loser_says_that_it_lost_and_so_does_what_runs_inside_it(kind: str):
    steps = (RACE % "first").replace("{agent: writer, prompt: slow}", LOSERS[kind])
    run = Run(steps.replace("{{ steps.slow }}|", ""), {"slow*": Reply(text="s s s s s s", token_delay=30)})
    result = await asyncio.wait_for(run(), 20)
    assert result.answer == "quick"
    losers = [step for step in result.steps if step.id.startswith("slow")]
    assert {(step.status, step.stop_reason) for step in losers} == {("cancelled", "lost the race")}
    assert kind in {step.kind for step in losers}


async def test_what_only_the_loser_needs_is_cancelled_too():
    steps = """\
  long: {agent: writer, prompt: long}
  slow: {agent: writer, prompt: "{{ steps.long }}"}
  quick: {agent: writer, prompt: quick}
  end: {agent: writer, join: first, needs: [slow, quick], prompt: "{{ steps.quick }}"}
"""
    run = Run(steps, {"long": Reply(text="l l l l l l", token_delay=30)})
    result = await asyncio.wait_for(run(), 20)
    assert result.answer == "quick"
    assert run.statuses() == {"long": "cancelled", "slow": "skipped", "quick": "succeeded", "end": "succeeded"}
    assert run.result_of("long").stop_reason == "lost the race"
    assert run.result_of("slow").stop_reason == "lost the race"
