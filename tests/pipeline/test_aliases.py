"""Aliases in a pipeline: a value that is written once and means the same at several places."""

from pipeline_mistakes import CONTEXT

from synaptic.pipeline.compiler import compile_pipeline
from synaptic.pipeline.loader import Pipeline

HEAD = "version: 1\nname: demo\ninputs: {query: {}}\n"


def steps_of(text: str):
    return compile_pipeline(Pipeline.parse(HEAD + text), CONTEXT).graph.steps


def test_a_value_is_written_once():
    steps = steps_of("""\
steps:
  a:
    agent: editor
    timeout: &slow {total: 9}
    retry: &patient {attempts: 5, on: [busy]}
    prompt: &ask "{{ inputs.query }}"
  b: {agent: editor, timeout: *slow, retry: *patient, prompt: *ask}
result: "{{ steps.b }}"
""")

    one, other = steps["a"].call, steps["b"].call
    assert one == other
    assert other.policy.attempts == 5
    assert other.timeouts.total == 9


def test_a_whole_step_and_an_output_shape_are_written_once():
    steps = steps_of("""\
steps:
  a: &judge
    agent: editor
    output: &shape {score: number(0..1)}
    prompt: "{{ inputs.query }}"
  b: *judge
  c: {agent: critic, output: *shape, when: steps.b.score > 0.5, prompt: "{{ steps.a.score }}"}
result: "{{ steps.c.score }}"
""")

    assert steps["a"].call == steps["b"].call
    assert set(steps["c"].needs) == {"a", "b"}
