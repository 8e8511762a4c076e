"""Budgets end a run while it streams, with what there is."""

import asyncio

from run_support import Run

from synaptic.backends.scripted import Reply
from synaptic.errors import BudgetExceeded

STEPS = """\
  first: {agent: writer, prompt: one}
  end: {agent: writer, prompt: "two {{ steps.first }}"}
"""
LONG = "word " * 200


async def test_tokens_run_out_in_the_middle_of_the_answer():
    run = Run(STEPS, {"end": Reply(text=LONG, token_delay=0.001)}, head="budget: {tokens: 60}")
    result = await run()
    assert result.status == "stopped"
    assert result.stop_reason == "budget: tokens"
    assert result.answer.startswith("word word")
    assert len(result.answer.split()) < 80
    assert run.backend.active == 0
    assert run.result_of("end").status == "cancelled"


async def test_calls_run_out_before_anything_of_the_result_is_there():
    run = Run(STEPS, head="budget: {calls: 1}")
    result = await run()
    assert (result.status, result.stop_reason, result.answer) == ("failed", "budget: calls", "")
    assert sum(step.attempts for step in result.steps) == 1, "what was never sent is no call"
    assert isinstance(result.error, BudgetExceeded)
    assert run.result_of("first").output == "one"
    assert len(run.backend.requests) == 1


async def test_seconds_run_out():
    run = Run(STEPS, {"end": Reply(text=LONG * 20, token_delay=0.02)}, head="budget: {seconds: 1}")
    result = await run()
    assert (result.status, result.stop_reason) == ("stopped", "budget: seconds")
    assert result.answer.startswith("word")
    assert len(result.answer.split()) < 4000
    assert run.backend.active == 0


async def test_a_run_that_has_nothing_when_its_budget_ends_has_failed():
    run = Run(STEPS, first_token_delay=100, head="budget: {seconds: 0.05}")
    result = await asyncio.wait_for(run(), 20)
    assert result.status == "failed"
    assert isinstance(result.error, BudgetExceeded)
    assert result.stop_reason == "budget: seconds"


async def test_on_error_skip_does_not_hide_a_used_up_budget():
    steps = STEPS.replace("prompt: one}", "prompt: one, on_error: skip}")
    run = Run(steps, head="budget: {calls: 1}")
    assert (await run()).stop_reason == "budget: calls"
