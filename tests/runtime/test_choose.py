"""``choose``: a classifying call that routes."""

from run_support import Run

STEPS = """\
  route:
    choose:
      prompt: "{{ inputs.query }}"
      options:
        code: {description: about programs, steps: [coder]}
        other: {description: anything else, steps: [writer_step, both]}
        neither: nothing fits
  coder: {agent: writer, prompt: "code {{ steps.route }}"}
  writer_step: {agent: writer, prompt: "other {{ steps.route }}"}
  both: {agent: writer, prompt: both}
  end: {agent: writer, prompt: "{{ steps.coder or steps.writer_step or 'nothing' }}"}
"""


async def test_only_the_steps_of_the_chosen_option_run():
    run = Run(STEPS, {"route": {"choice": "other"}})
    assert (await run()).answer == "other other"
    assert run.statuses() == {
        "route": "succeeded", "coder": "skipped", "writer_step": "succeeded", "both": "succeeded", "end": "succeeded",
    }  # fmt: skip
    assert run.result_of("coder").stop_reason == "not chosen"
    assert (run.result_of("route").kind, run.result_of("route").output) == ("choose", "other")


async def test_an_option_without_steps_runs_none():
    run = Run(STEPS, {"route": {"choice": "neither"}})
    assert (await run()).answer == "nothing"


async def test_the_model_is_held_to_the_options_and_told_what_they_mean():
    run = Run(STEPS, {"route": {"choice": "code"}})
    await run("a bug")
    request = run.backend.requests[0]
    assert request.schema["properties"]["choice"]["enum"] == ["code", "other", "neither"]
    assert all(part in request.messages[-1].content for part in ("a bug", "about programs", "nothing fits"))


async def test_a_choice_that_is_skipped_opens_no_option():
    run = Run(STEPS.replace("  route:\n", "  route:\n    when: inputs.query == 'never'\n"))
    assert (await run()).answer == "nothing"


async def test_a_choice_can_be_asked_for_in_a_condition():
    steps = STEPS.replace("prompt: both}", "prompt: both, when: steps.route == 'other'}").replace(", both]", "]")
    run = Run(steps, {"route": {"choice": "code"}})
    assert (await run()).answer == "code code"
    assert run.result_of("both").stop_reason == "when"
