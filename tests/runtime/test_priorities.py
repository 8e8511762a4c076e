"""Who goes first when places are few, and how many go at once."""

import pytest
from run_support import Run

from synaptic.settings import Settings

STEPS = """\
  side1: {agent: writer, prompt: side}
  side2: {agent: writer, prompt: side}
  long1: {agent: writer, prompt: long}
  long2: {agent: writer, prompt: "{{ steps.long1 }}"}
  long3: {agent: writer, prompt: "{{ steps.long2 }}"}
  end: {agent: writer, prompt: "{{ steps.side1 }} {{ steps.side2 }} {{ steps.long3 }}"}
"""


def order(run: Run) -> list[str]:
    return [request.tag for request in run.backend.requests]


async def test_the_critical_path_never_waits_behind_a_side_branch():
    run = Run(STEPS, first_token_delay=0.002, settings=Settings(retries=0, max_parallel=1))
    assert (await run()).status == "succeeded"
    assert order(run)[:2] == ["long1", "long2"]
    assert run.backend.max_active == 1


async def test_a_priority_goes_before_the_longest_way():
    urgent = STEPS.replace("side2: {agent: writer,", "side2: {agent: writer, priority: 5,")
    run = Run(urgent, first_token_delay=0.002, settings=Settings(retries=0, max_parallel=1))
    await run()
    assert order(run)[:2] == ["side2", "long1"]


async def test_a_loop_on_the_longest_way_goes_first():
    steps = """\
  side1: {agent: writer, prompt: side}
  side2: {agent: writer, prompt: side}
  loop:
    repeat:
      max: 2
      steps:
        inner: {agent: writer, prompt: inner}
  after: {agent: writer, prompt: "{{ steps.loop.inner }}"}
  end: {agent: writer, prompt: "{{ steps.side1 }} {{ steps.side2 }} {{ steps.after }}"}
"""
    run = Run(steps, first_token_delay=0.002, settings=Settings(retries=0, max_parallel=1))
    await run()
    assert order(run)[:2] == ["loop[1].inner", "loop[2].inner"]


@pytest.mark.parametrize(
    ("head", "settings", "most"),
    [
        ("concurrency: 2", Settings(retries=0), 2),
        ("", Settings(retries=0, max_parallel=3), 3),
        ("", Settings(retries=0, model_parallel={"scripted": 1}), 1),
        ("concurrency: 2", Settings(retries=0, max_parallel=1), 1),
        ("", Settings(retries=0), 5),
    ],
)
async def test_limits_hold(head: str, settings: Settings, most: int):
    steps = "".join(f"  s{index}: {{agent: writer, prompt: x}}\n" for index in range(5))
    run = Run(steps, head=head, settings=settings, first_token_delay=0.005, result="{{ steps.s0 }}")
    await run()
    assert run.backend.max_active == most
