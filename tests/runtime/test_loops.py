"""Bounded loops: when they end, what they keep."""

import asyncio

import pytest
from run_support import Run

from synaptic.backends.scripted import Failure, Reply

LOOP = """\
  end:
    repeat:
      max: 5
      %s
      steps:
        draft: {agent: writer, prompt: "draft {{ previous.rate.score if previous }}"}
        rate: {agent: judge, prompt: "{{ steps.draft }}"}
"""
ITSELF = """\
  end:
    agent: judge
    prompt: "{{ previous.score if previous else 'begin' }}"
    repeat: {self: true, max: 4, %s}
"""


def scores(*values: float) -> tuple:
    return tuple({"score": value} for value in values)


async def test_a_plateau_ends_the_loop_and_the_best_round_is_kept():
    run = Run(
        LOOP % "{score: steps.rate.score, plateau: 2, keep: best}".strip("{}").replace(", ", "\n      "),
        {"end[*].rate": scores(0.2, 0.6, 0.6, 0.1, 0.9), "end[*].draft": ("a", "b", "c", "d", "e")},
        result="{{ steps.end.draft }} {{ steps.end.rounds }} {{ steps.end.stop_reason }}",
    )
    assert (await run()).answer == "b 4 plateau"


async def test_a_step_repeats_itself_and_its_output_is_the_kept_rounds():
    run = Run(
        ITSELF % "score: steps.end.score, keep: best, until: steps.end.score > 0.8",
        {"end[*]": scores(0.3, 0.5, 0.9)},
        result="{{ steps.end.score }}",
    )
    result = await run()
    assert result.answer == "0.9"
    assert list(run.prompts()) == ["end[1]", "end[2]", "end[3]"]
    assert list(run.prompts().values()) == ["begin", "0.3", "0.5"]
    assert run.result_of("end").stop_reason == "until"


async def test_a_later_round_that_fails_leaves_the_best_so_far():
    run = Run(
        ITSELF % "score: steps.end.score, keep: best",
        {"end[1]": {"score": 0.4}, "end[2]": Failure("server_error")},
        result="{{ steps.end.score }}",
    )
    assert (await run()).answer == "0.4"
    assert run.result_of("end").stop_reason == "error"


async def test_a_loop_that_takes_too_long_keeps_what_it_has():
    steps = ITSELF % "keep: last" + "    timeout: {total: 0.2}\n"
    run = Run(
        steps.replace("    agent: judge", "    agent: writer").replace("previous.score", "previous"),
        {"end[1]": "one", "end[2]": Reply(text="two two two", token_delay=30)},
    )
    result = await asyncio.wait_for(run(), 20)
    assert result.status == "succeeded"


async def test_a_cancelled_run_shows_the_best_round():
    run = Run(
        LOOP % "score: steps.rate.score\n      keep: best",
        {"end[1].draft": "first", "end[1].rate": {"score": 0.5}, "end[2].draft": Reply(text="x y z", token_delay=30)},
        result="{{ steps.end.draft }}",
    )
    task = asyncio.create_task(run())
    while "end[2].draft" not in run.started():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert run.finished.answer == "first"
    assert run.finished.status == "cancelled"
