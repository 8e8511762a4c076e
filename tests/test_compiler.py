"""Compiling: references, dependencies, cycles and types are checked before anything is called."""

import pytest

from synaptic.agents import Agent
from synaptic.errors import PipelineError
from synaptic.messages import Route
from synaptic.pipeline.compiler import CompiledPipeline, compile_pipeline
from synaptic.pipeline.graph import Graph, find_cycle
from synaptic.pipeline.loader import Pipeline, builtin_pipelines
from synaptic.pipeline.plan import Plan

AGENTS = {
    "editor": Agent(name="editor", prompt="Edit."),
    "critic": Agent(name="critic", prompt="Judge.", output={"score": "number(0..1)", "issues": "list[string]"}),
    "fast": Agent(name="fast", prompt="Go.", model="tiny", temperature=0.1, max_tokens=9),
}


def compiled(steps: str, result: str = "{{ steps.a }}", **options) -> CompiledPipeline:
    text = f"version: 1\nname: demo\ninputs: {{query: {{}}}}\nsteps:\n{steps}\nresult: '{result}'\n"
    return compile_pipeline(Pipeline.parse(text, "p.yaml"), AGENTS, **options)


def mistakes(steps: str, result: str = "{{ steps.a }}") -> list[str]:
    with pytest.raises(PipelineError) as caught:
        compiled(steps, result)
    return [str(problem) for problem in caught.value.problems]


def plan_of(name: str, **inputs) -> Plan:
    from synaptic.agents import discover_agents
    from synaptic.pipeline.inputs import bind_inputs

    book = discover_agents()
    pipeline = Pipeline.builtin(name)
    return Plan(
        pipeline=pipeline,
        compiled=compile_pipeline(pipeline, {agent: book[agent] for agent in book}),
        inputs=bind_inputs(pipeline.spec, {"query": "q", **inputs}, {}),
        route=Route("scripted", "here", "m", "because"),
    )


def test_dependencies_come_from_references_and_needs():
    graph = compiled("""\
  a: {agent: critic, prompt: "{{ inputs.query }}"}
  b: {agent: editor, prompt: x, needs: [a]}
  c: {agent: editor, prompt: "{{ steps.b }}", when: steps.a.score > 0.5}
  d: {agent: editor, foreach: steps.a.issues, as: issue, prompt: "{{ issue }} {{ item }} {{ steps.c }}"}
""").graph

    assert {name: step.needs for name, step in graph.steps.items()} == {
        "a": (),
        "b": ("a",),
        "c": ("a", "b"),
        "d": ("a", "c"),
    }
    assert graph.steps["d"].kind == "map"
    assert graph.stages() == {"a": 0, "b": 1, "c": 2, "d": 3}


def test_a_loop_waits_for_what_its_inside_refers_to():
    graph = compiled("""\
  a: {agent: critic, prompt: x}
  b: {agent: critic, prompt: x}
  loop:
    when: steps.b.score < 1
    repeat:
      steps:
        c: {agent: critic, prompt: "{{ steps.a.issues }} {{ previous.c.issues }}"}
        inner:
          repeat: {max: 2, steps: {d: {agent: editor, prompt: "{{ steps.c.score }} {{ steps.b.score }}"}}}
      until: steps.c.score > 0.5
      max: 2
""").graph

    assert set(graph.steps["loop"].needs) == {"a", "b"}
    assert graph.steps["loop"].repeat is not None
    assert graph.steps["loop"].repeat.body.steps["inner"].needs == ("c",)


def test_the_model_is_the_steps_else_the_persons_else_the_agents():
    steps = "  a: {agent: fast, prompt: x}\n  b: {agent: fast, prompt: x, model: mine, temperature: 1, max_tokens: 3}"

    graph = compiled(steps).graph
    a, b = graph.steps["a"].call, graph.steps["b"].call
    chosen = compiled(steps, agent_models={"fast": "big"}).graph.steps["a"].call

    assert a and b and chosen
    assert (a.model, a.temperature, a.max_tokens) == ("tiny", 0.1, 9)
    assert (b.model, b.temperature, b.max_tokens) == ("mine", 1, 3)
    assert chosen.model == "big"


def test_a_steps_own_output_shape_wins():
    call = compiled("  a: {agent: critic, prompt: x, output: {title: string}}").graph.steps["a"].call

    assert call and call.shape and call.shape.field_names() == ("title",)


@pytest.mark.parametrize(
    ("step", "at", "message"),
    [
        ("{agent: edtor, prompt: x}", "edtor", "there is no agent 'edtor'; did you mean 'editor'?"),
        ("{agent: editor}", "a:", "a step with an agent needs a 'prompt'"),
        ("{prompt: x}", "a:", "the step 'a' has neither 'agent' nor 'repeat'; write exactly one of them"),
        ("{agent: editor, prompt: x, needs: [b]}", "b]", "there is no step 'b' to wait for; there are no others"),
        ("{agent: editor, prompt: x, needs: [a]}", "a]", "there is no step 'a' to wait for; there are no others"),
        ('{agent: editor, prompt: "{{ steps.b }}"}', '"{{', "there is no step 'b'; known: a"),
        ('{agent: editor, prompt: "{{ steps.a }}"}', "a:", "the step 'a' refers to itself"),
        ('{agent: editor, prompt: "{{ steps }}"}', '"{{', "'steps' needs the name of one step"),
        ('{agent: editor, prompt: "{{ inputs.qery }}"}', '"{{', "there is no input 'qery'; did you mean 'query'?"),
        ('{agent: editor, prompt: "{{ run.idd }}"}', '"{{', "'run' has no 'idd'; did you mean 'id'?"),
        ('{agent: editor, prompt: "{{ foo }}"}', '"{{', "'foo' is not defined here; known: inputs, run, steps"),
        ('{agent: editor, prompt: "{{ item }}"}', '"{{', "'item' is not defined here"),
        ('{agent: editor, prompt: "{{ previous.x }}"}', '"{{', "'previous' is the round before"),
        ('{agent: editor, prompt: "{{ inputs.query"}', '"{{', "unexpected end of template"),
        ('{agent: editor, prompt: x, when: "1 +"}', '"1', "unexpected end of the expression"),
        ("{agent: editor, prompt: x, output: {a: strng}}", "a: strng", "unknown type 'strng'"),
        ("{agent: editor, repeat: {steps: {b: {agent: editor, prompt: x}}}}", "a:", "the step 'a' has both"),
        ("{repeat: {max: 0, steps: {b: {agent: editor, prompt: x}}}}", "0,", "'max' must be at least 1"),
        ("{repeat: {steps: {a: {agent: editor, prompt: x}}}}", "a: {agent", "the step 'a' exists outside the loop too"),
        ("{repeat: {keep: best, steps: {b: {agent: editor, prompt: x}}}}", "keep", "'keep: best' needs a 'score'"),
        (
            "{foreach: inputs.query, repeat: {steps: {b: {agent: editor, prompt: x}}}}",
            "foreach",
            "a step with 'repeat' has no 'foreach'",
        ),
        ("{repeat: {max: steps.b.score, steps: {b: {agent: critic, prompt: x}}}}", "steps.b", "there is no step 'b'"),
        ("{repeat: {until: steps.b.scroe, steps: {b: {agent: critic, prompt: x}}}}", "steps.b", "has no 'scroe'"),
    ],
)
def test_each_mistake_is_found_once_and_located(step: str, at: str, message: str):
    line = f"  a: {step}"

    (found,) = mistakes(line)

    assert found.startswith(f"p.yaml:5:{line.index(at) + 1}: ")
    assert message in found


def test_a_reference_into_an_output_is_checked_where_the_shape_is_known():
    steps = """\
  c: {agent: critic, prompt: x}
  m: {agent: critic, prompt: x, foreach: steps.c.issues}
  t: {agent: editor, prompt: x}
  l: {repeat: {steps: {d: {agent: critic, prompt: x}}}}
  own: {agent: editor, prompt: x, output: {title?: string}}
  a:
    agent: editor
    prompt: |
      {{ steps.c.scroe }}
      {{ steps.m.issues }}
      {{ steps.t.text }}
      {{ steps.l.e }} {{ steps.l.d.score }} {{ steps.l.rounds }}
      {{ steps.own.titel }} {{ steps.own.title }}
"""

    assert mistakes(steps) == [
        "p.yaml:13: the output of 'c' has no 'scroe'; did you mean 'score'?",
        "p.yaml:14: 'steps.m' is a list, one output per item; loop over it: {% for part in steps.m %}",
        "p.yaml:15: 'steps.t' is text and has no 'text'; write steps.t",
        "p.yaml:16: the output of 'l' has no 'e'; known: d, rounds, stop_reason",
        "p.yaml:17: the output of 'own' has no 'titel'; did you mean 'title'?",
    ]


def test_a_cycle_is_named_whole():
    steps = """\
  a: {agent: editor, prompt: "{{ steps.b }}"}
  b: {agent: editor, prompt: x, needs: [c]}
  c: {agent: editor, prompt: "{{ steps.a }}"}
"""

    assert mistakes(steps) == ["p.yaml:5:3: these steps wait for each other: a -> b -> c -> a"]


def test_a_cycle_inside_a_loop_is_found():
    steps = """\
  a:
    repeat:
      steps:
        b: {agent: editor, prompt: "{{ steps.c }}"}
        c: {agent: editor, prompt: "{{ steps.b }}"}
"""

    assert mistakes(steps) == ["p.yaml:8:9: these steps wait for each other: b -> c -> b"]


def test_the_result_is_checked_too():
    assert mistakes("  a: {agent: editor, prompt: x}", "{{ steps.b }}") == [
        "p.yaml:6:9: there is no step 'b'; known: a"
    ]


def test_a_chain_of_ten_thousand_steps_is_no_cycle():
    needs = {str(i): (str(i + 1),) for i in range(10_000)} | {"10000": ()}

    assert find_cycle(needs) is None
    assert find_cycle({**needs, "10000": ("0",)}) is not None


def test_an_empty_graph_has_no_path():
    assert Graph.of({}).critical_path() == ()


@pytest.mark.parametrize("name", builtin_pipelines())
def test_every_built_in_pipeline_streams_its_answer(name: str):
    plan = plan_of(name)

    assert plan.answer_step in plan.graph.steps
    assert [row.path for row in plan.rows() if row.streams_answer] == [plan.answer_step]


def test_the_plan_shows_stages_times_and_where_calls_go():
    plan = plan_of("research", rounds=2)
    rows = {row.path: row for row in plan.rows()}

    assert rows["research"].times == "×N"
    assert rows["refine"].times == "≤ 2"
    assert rows["refine"].conditional
    assert rows["refine.judge"].needs == ("refine.revise",)
    assert rows["refine"].backend is None
    assert (rows["write"].model, rows["write"].backend, rows["write"].node) == ("m", "scripted", "here")
    assert plan.to_dict()["critical_path"] == ["plan", "research", "critique", "refine", "write"]
    assert plan.to_dict()["route"]["reason"] == "because"


def test_a_bound_that_depends_on_steps_is_shown_as_it_is_written():
    text = """\
version: 1
name: demo
steps:
  c: {agent: critic, prompt: x}
  a: {repeat: {max: steps.c.score, steps: {b: {agent: editor, prompt: x}}}}
  d: {repeat: {max: 4, steps: {e: {agent: editor, prompt: x}}}}
result: "{{ steps.a.b }} {{ steps.c.score }}"
"""
    pipeline = Pipeline.parse(text)
    plan = Plan(
        pipeline=pipeline, compiled=compile_pipeline(pipeline, AGENTS), inputs={}, route=Route("x", None, None, "")
    )

    assert {row.path: row.times for row in plan.rows()}["a"] == "≤ steps.c.score"
    assert {row.path: row.times for row in plan.rows()}["d"] == "≤ 4"
    assert plan.answer_step is None


@pytest.mark.parametrize(("result", "step"), [("{{ steps.a }}", "a"), ("{{ steps.c }}", None), ("{{ steps.m }}", None)])
def test_only_a_plain_text_step_is_the_streamed_answer(result: str, step: str | None):
    text = f"""\
version: 1
name: demo
steps:
  a: {{agent: editor, prompt: x}}
  c: {{agent: critic, prompt: x}}
  m: {{agent: editor, prompt: x, foreach: steps.c.issues}}
result: "{result}"
"""
    pipeline = Pipeline.parse(text)
    route = Route("x", None, None, "")
    plan = Plan(pipeline=pipeline, compiled=compile_pipeline(pipeline, AGENTS), inputs={}, route=route)

    assert plan.answer_step == step
