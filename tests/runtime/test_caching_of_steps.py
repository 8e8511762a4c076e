"""A step with ``cache`` asks a model once; an answer that was of no use is not kept."""

from run_support import Run


async def test_the_second_run_asks_nobody():
    steps = "  end: {agent: writer, prompt: '{{ inputs.query }}', cache: true}"
    first, second = Run(steps), Run(steps)
    assert (await first()).answer == (await second()).answer == "why"
    assert (len(first.backend.requests), len(second.backend.requests)) == (1, 0)
    assert second.result_of("end").cached
    assert not first.result_of("end").cached


async def test_an_answer_of_the_wrong_shape_is_not_kept():
    steps = "  end: {agent: judge, prompt: x, cache: 1h}"
    wrong = Run(steps, {"end": ({"score": 7}, {"score": 9})}, result="{{ steps.end.score }}")
    assert (await wrong()).status == "failed"
    right = Run(steps, {"end": {"score": 0.5}}, result="{{ steps.end.score }}")
    assert (await right()).answer == "0.5"
    assert len(right.backend.requests) == 1
