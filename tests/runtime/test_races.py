"""``join: any`` and ``first``: what starts early, what is cancelled, what a failure means."""

import asyncio

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
    assert run.backend.active == 0


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


async def test_a_race_that_everybody_loses_is_skipped_and_so_the_result_is_empty():
    run = Run(RACE % "first", {"slow": Failure("server_error"), "quick": Failure("server_error")})
    result = await run()
    assert result.status == "failed"
    assert "end" in str(result.error)
    assert run.result_of("end").stop_reason == "nothing that it waits for succeeded"


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
    assert run.result_of("slow").stop_reason == "lost the race"
