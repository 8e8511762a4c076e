"""``on_error: {use: step}``: another step's output in place of a failed one's."""

from run_support import Run

from synaptic.backends.scripted import Failure

STEPS = """\
  hard: {agent: writer, prompt: hard, on_error: {use: easy}}
  easy: {agent: writer, prompt: easy}
  end: {agent: writer, prompt: "got {{ steps.hard }}"}
"""


async def test_the_fallback_runs_only_when_it_is_needed():
    run = Run(STEPS)
    assert (await run()).answer == "got hard"
    assert run.result_of("easy").stop_reason == "not needed"
    assert "easy" not in run.prompts()


async def test_a_failed_step_gives_its_fallbacks_output():
    run = Run(STEPS, {"hard": Failure("server_error")})
    result = await run()
    assert (result.status, result.answer) == ("succeeded", "got easy")
    assert run.statuses() == {"hard": "failed", "easy": "succeeded", "end": "succeeded"}


async def test_a_fallback_that_fails_ends_the_run():
    run = Run(STEPS, {"hard": Failure("server_error"), "easy": Failure("server_error")})
    result = await run()
    assert result.status == "failed"
    assert "end" not in run.prompts()


async def test_a_fallback_that_others_use_runs_once():
    steps = STEPS.replace("got {{ steps.hard }}", "got {{ steps.hard }} and {{ steps.easy }}")
    run = Run(steps, {"hard": Failure("server_error")})
    assert (await run()).answer == "got easy and easy"
    assert run.started().count("easy") == 1
