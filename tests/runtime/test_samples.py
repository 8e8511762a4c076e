"""Several answers to one prompt: vote, best, merge."""

import pytest
from run_support import Run

from synaptic.backends.scripted import Failure
from synaptic.runtime.kinds.samples import vote

VOTE = """\
  end: {agent: writer, prompt: "what?", samples: 3, select: vote}
"""


async def test_the_most_frequent_answer_wins():
    run = Run(VOTE, {"end[0]": "Paris.", "end[1]": "Rome", "end[2]": " paris"})
    assert (await run()).answer == "Paris."
    assert run.result_of("end").stop_reason == "vote: 2 of 3"
    assert run.result_of("end").kind == "samples"


async def test_samples_differ_by_seed_and_are_not_taken_at_temperature_zero():
    run = Run(VOTE)
    await run()
    assert [request.seed for request in run.backend.requests] == [1, 2, 3]
    assert {request.temperature for request in run.backend.requests} == {0.8}


async def test_a_sample_that_fails_is_left_out():
    run = Run(VOTE, {"end[0]": Failure("server_error"), "end[1]": "b", "end[2]": "b"})
    assert (await run()).answer == "b"
    assert run.statuses()["end[0]"] == "skipped"


async def test_without_any_sample_the_step_fails():
    run = Run(VOTE, {"end[*]": Failure("server_error")})
    assert (await run()).status == "failed"


async def test_a_judge_picks_the_best():
    run = Run(
        "  end: {agent: writer, prompt: 'what?', samples: 2, select: best}",
        {"end[0]": "poor", "end[1]": "good", "end.judge[0]": {"score": 0.2},
         "end.judge[1]": {"score": 0.9}},
    )  # fmt: skip
    assert (await run()).answer == "good"
    assert "what?" in run.prompts()["end.judge[1]"]
    assert "good" in run.prompts()["end.judge[1]"]
    assert run.result_of("end").stop_reason == "best: 0.9"


async def test_judges_that_fail_leave_the_first_sample():
    run = Run(
        "  end: {agent: writer, prompt: 'what?', samples: 2, select: best}",
        {"end[0]": "first", "end[1]": "second", "end.judge[*]": Failure("server_error")},
    )
    assert (await run()).answer == "first"
    assert run.result_of("end").stop_reason == "unrated"


async def test_a_merge_sees_every_candidate():
    run = Run(
        "  end: {agent: writer, prompt: 'what?', samples: 2, select: merge}",
        {"end[0]": "one", "end[1]": "two", "end.merge": "both"},
    )
    assert (await run()).answer == "both"
    assert all(part in run.prompts()["end.merge"] for part in ("what?", "one", "two"))


@pytest.mark.parametrize(
    ("candidates", "winner"),
    [(["a", "b", "B "], "b"), (["a", "b"], "a"), ([{"x": 1}, {"x": 2}, {"x": 2}], {"x": 2})],
)
def test_votes_are_counted_by_what_they_say(candidates, winner):
    assert vote(candidates)[0] == winner
