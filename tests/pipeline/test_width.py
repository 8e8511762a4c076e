"""How many calls of a pipeline may run at once."""

import pytest

from synaptic.agents.definition import discover_agents
from synaptic.pipeline.compiler import CompileContext, compile_pipeline
from synaptic.pipeline.loader import Pipeline
from synaptic.pipeline.width import ITEMS, width

BOOK = discover_agents()
CHAIN = "a: {agent: planner, prompt: p}\n  b: {agent: editor, prompt: '{{ steps.a }}'}"
FAN = "\n  ".join(f"s{i}: {{agent: editor, prompt: p}}" for i in range(6))
UNEVEN = """a: {agent: editor, prompt: p}
  b1: {agent: editor, prompt: "{{ steps.a }}"}
  b2: {agent: editor, prompt: "{{ steps.a }}"}
  b3: {agent: editor, prompt: "{{ steps.a }}"}
  c: {agent: editor, prompt: p}
  d: {agent: editor, prompt: p}
  e: {agent: editor, prompt: p, needs: [b1, b2, b3, c, d]}"""
MAP = "a: {agent: planner, prompt: p}\n  b: {agent: editor, foreach: steps.a.questions, prompt: '{{ item }}'%s}"


def compiled(steps: str, head: str = ""):
    text = f"version: 1\nname: w\n{head}inputs: {{query: {{}}}}\nsteps:\n  {steps}\nresult: done\n"
    return compile_pipeline(Pipeline.parse(text), CompileContext(agents={name: BOOK[name] for name in BOOK}))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (CHAIN, 1),
        (FAN, 6),
        (MAP % "", ITEMS),
        (MAP % ", concurrency: 2", 2),
        (UNEVEN, 5),
        ("a: {agent: editor, prompt: p, samples: 5, select: vote}", 5),
        ("a: {agent: editor, prompt: p, samples: 3, select: vote}\n  b: {agent: editor, prompt: p}", 4),
    ],
)
def test_the_widest_set_of_steps_that_do_not_wait_for_each_other_counts(steps: str, expected: int):
    assert width(compiled(steps)) == expected


@pytest.mark.parametrize("name", ["answer", "parallel", "research", "debate", "vote", "mixture", "map_reduce", "story"])
def test_built_in_pipelines_have_a_width_from_one_to_a_dozen(name: str):
    assert (
        1
        <= width(compile_pipeline(Pipeline.builtin(name), CompileContext(agents={name: BOOK[name] for name in BOOK})))
        <= 12
    )
