"""Compiling: what a pipeline says becomes a graph of steps, calls and dependencies.

What is refused stands in ``pipeline_mistakes.py``; here are mistakes that come in several, and what is right.
"""

import time
from pathlib import Path

import pytest
from pipeline_mistakes import CONTEXT

from synaptic.agents.definition import discover_agents
from synaptic.errors import PipelineError
from synaptic.pipeline.compiler import CompileContext, compile_pipeline
from synaptic.pipeline.graph import CompiledPipeline, CompiledStep, Feed, Graph
from synaptic.pipeline.loader import Pipeline, builtin_pipelines
from synaptic.pipeline.templates.expressions import Expression, Template

INPUTS = "inputs: {query: {}, tags: {type: list}, n: {type: integer}, many: {type: files}}"


def compiled(steps: str, result: str = "{{ steps.a }}", top: str = "", **options) -> CompiledPipeline:
    text = f"version: 1\nname: demo\n{INPUTS}\n{top}steps:\n{steps}\nresult: '{result}'\n"
    path = options.pop("path", None)
    context = CompileContext(**{"agents": CONTEXT.agents, "tools": CONTEXT.tools, **options})
    return compile_pipeline(Pipeline.parse(text, "p.yaml", path=path), context)


def steps_of(steps: str, result: str = "r", **options) -> dict[str, CompiledStep]:
    return dict(compiled(steps, result, **options).graph.steps)


def mistakes(steps: str, result: str = "r") -> list[str]:
    with pytest.raises(PipelineError) as caught:
        compiled(steps, result)
    return [str(problem) for problem in caught.value.problems]


# -- dependencies ------------------------------------------------------------------------------------------------------


def test_dependencies_come_from_references_and_needs():
    graph = compiled("""\
  a: {agent: critic, prompt: "{{ inputs.query }}"}
  b: {agent: editor, prompt: x, needs: [a]}
  c: {agent: editor, prompt: "{{ steps.b }}", when: steps.a.score > 0.5}
  d: {agent: editor, foreach: steps.a.issues, as: issue, prompt: "{{ issue }} {{ item }} {{ steps.c }}"}
  e: {tool: count_words, with: {text: "{{ steps.d }}", limit: "{{ steps.f }}"}}
  f: {tool: count_words, with: {text: x}}
""").graph

    assert {name: step.needs for name, step in graph.steps.items()} == {
        "a": (),
        "b": ("a",),
        "c": ("a", "b"),
        "d": ("a", "c"),
        "e": ("d", "f"),
        "f": (),
    }
    assert graph.stages() == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "f": 0}


def test_a_loop_waits_for_what_its_inside_refers_to():
    step = steps_of("""\
  a: {agent: critic, prompt: x}
  b: {agent: critic, prompt: x}
  n: {agent: critic, prompt: x}
  m: {agent: critic, prompt: x}
  loop:
    when: steps.b.score < 1
    repeat:
      steps:
        c: {agent: critic, prompt: "{{ steps.a.issues }} {{ previous.c.issues }}"}
        inner:
          repeat: {max: 2, steps: {d: {agent: editor, prompt: "{{ steps.c.score }} {{ steps.b.score }}"}}}
      until: steps.c.score > steps.n.score
      max: steps.m.score
""")["loop"]

    assert set(step.needs) == {"a", "b", "n", "m"}
    assert step.kind == "repeat"
    assert step.work.body.steps["inner"].needs == ("c",)
    assert isinstance(step.work.max, Expression)


def test_options_wait_for_their_choice():
    graph = compiled("""\
  route: {choose: {prompt: x, options: {y: {steps: [a, b]}, n: {steps: [b, b2]}, other: Anything else.}}}
  a: {agent: editor, prompt: x}
  b: {agent: editor, prompt: "{{ steps.a }}"}
  b2: {agent: editor, prompt: "{{ steps.route }}"}
""").graph

    assert graph.steps["a"].gates == {"route": ("y",)}
    assert graph.steps["b"].gates == {"route": ("y", "n")}
    assert graph.steps["b"].needs == ("a", "route")
    assert graph.steps["b2"].needs == ("route",)
    assert graph.ranks == {"route": 3, "a": 2, "b": 1, "b2": 1}


@pytest.mark.parametrize(
    ("more", "on_demand"),
    [
        ("", True),
        ("\n  c: {agent: editor, prompt: '{{ steps.f }}'}", False),
        ("\n  c: {agent: editor, prompt: x, needs: [f]}", False),
        ("\n  c: {agent: editor, prompt: x, on_error: {use: f}}", True),
        ("\n  c: {choose: {prompt: x, options: {y: {steps: [f]}, n: {}}}}", False),
        ("\n  c: {repeat: {steps: {d: {agent: editor, prompt: '{{ steps.f }}'}}}}", False),
    ],
)
def test_a_fallback_runs_on_demand_unless_something_else_refers_to_it(more: str, *, on_demand: bool):
    steps = "  a: {agent: editor, prompt: x, on_error: {use: f}}\n  f: {agent: editor, prompt: x}"

    found = steps_of(steps + more)

    assert (found["a"].on_error, found["a"].fallback, found["a"].needs) == ("use", "f", ())
    assert found["f"].on_demand is on_demand
    assert steps_of(steps, "{{ steps.f }}")["f"].on_demand is False


@pytest.mark.parametrize(
    ("reference", "on_demand"),
    [("", True), ("{{ steps.loop.f }}", False), ("{{ steps.loop.a }}", True)],
)
def test_a_fallback_in_a_loop_is_also_wanted_from_outside(reference: str, *, on_demand: bool):
    steps = """\
  loop: {repeat: {steps: {a: {agent: editor, prompt: x, on_error: {use: f}}, f: {agent: editor, prompt: x}}}}
"""
    loop = steps_of(steps + f"  z: {{agent: editor, prompt: 'x {reference}'}}")["loop"]

    assert loop.kind == "repeat"
    assert loop.work.body.steps["f"].on_demand is on_demand


def test_a_fallback_that_the_next_round_remembers_is_no_longer_on_demand():
    step = steps_of("""\
  loop:
    repeat:
      steps:
        a: {agent: editor, prompt: "{{ previous.f }}", on_error: {use: f}}
        f: {agent: editor, prompt: x}
""")["loop"]

    assert step.kind == "repeat" and step.work.body.steps["f"].on_demand is False


def test_a_dependent_of_a_step_with_a_fallback_does_not_depend_on_the_fallback():
    found = steps_of("""\
  a: {agent: editor, prompt: x, on_error: {use: f}}
  f: {agent: editor, prompt: x}
  b: {agent: editor, prompt: "{{ steps.a }}"}
""")

    assert found["b"].needs == ("a",)


def test_joins_count_what_templates_refer_to():
    step = steps_of("""\
  a: {agent: editor, prompt: x}
  b: {agent: editor, prompt: x}
  c: {agent: editor, join: first, prompt: "{{ steps.a }}{{ steps.b }}"}
""")["c"]

    assert (step.join, step.needs) == ("first", ("a", "b"))


# -- streaming lists ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "consumer", "fed"),
    [
        ("", "", True),
        ("", ", when: inputs.n > 1, on_error: skip, approve: prompt", True),
        (", when: inputs.n > 1, on_error: skip, approve: prompt, retry: {attempts: 2}", "", True),
        ("", ", when: steps.p.topic == 'x'", False),
        ("", ", needs: [p]", False),
        ("", ", needs: [o], join: any", False),
        (", cache: 10m", "", False),
        (", samples: 2, select: vote", "", False),
        (", approve: true", "", False),
        (", approve: both", "", False),
        (", on_error: {use: o}", "", False),
        (", repeat: {self: true}", "", False),
    ],
)
def test_a_map_over_a_list_that_is_being_written_is_fed(source: str, consumer: str, *, fed: bool):
    found = steps_of(f"""\
  p: {{agent: planner, prompt: x{source}}}
  o: {{agent: planner, prompt: x}}
  m: {{agent: editor, foreach: steps.p.questions, prompt: "{{{{ item }}}}"{consumer}}}
""")

    assert found["m"].feed == (Feed("p", "questions") if fed else None)


@pytest.mark.parametrize(
    "step",
    [
        'foreach: "steps.p.questions[:2]", prompt: x',
        'foreach: steps.p.questions, prompt: "{{ steps.p.topic }}"',
        "foreach: steps.t.questions, prompt: x",
        "foreach: inputs.tags, prompt: x",
        "foreach: steps.m, prompt: x",
        "foreach: steps.r.p2.questions, prompt: x",
    ],
)
def test_other_maps_are_not_fed(step: str):
    found = steps_of(f"""\
  p: {{agent: planner, prompt: x}}
  t: {{tool: count_words, with: {{text: x}}, output: {{questions: "list[string]"}}}}
  m: {{agent: planner, foreach: inputs.tags, prompt: x}}
  r: {{repeat: {{steps: {{p2: {{agent: planner, prompt: x}}}}}}}}
  z: {{agent: editor, {step}}}
""")

    assert found["z"].feed is None


# -- loops, tools, pipelines -------------------------------------------------------------------------------------------


def test_a_step_that_repeats_itself_is_a_loop_of_its_own_call():
    step = steps_of("""\
  a:
    agent: critic
    prompt: "{% if previous %}{{ previous.score }}{% endif %}"
    repeat:
      {self: true, max: 4, until: previous and steps.a.score > previous.score, score: steps.a.score, keep: best,
       plateau: 2}
    when: inputs.n > 1
    approve: both
    samples: 2
    on_error: skip
""")["a"]

    assert (step.kind, step.call, step.approve, step.on_error) == ("repeat", None, "output", "skip")
    assert step.kind == "repeat"
    assert (step.work.itself, step.work.max, step.work.keep, step.work.plateau) == (True, 4, "best", 2)
    (inner,) = step.work.body.steps.values()
    assert (inner.id, inner.kind, inner.approve, inner.when, inner.needs) == ("a", "agent", "prompt", None, ())
    assert inner.samples is not None
    assert inner.call is not None


def test_a_map_of_loops_sees_its_item():
    found = steps_of("""\
  r:
    foreach: inputs.tags
    as: tag
    repeat: {max: tag.size, until: item.done, steps: {b: {agent: critic, prompt: "{{ tag }} {{ item }}"}}}
  z: {agent: editor, prompt: "{% for one in steps.r %}{{ one.b.score }} {{ one.rounds }}{% endfor %}"}
""")

    assert found["r"].item_name == "tag" and found["r"].foreach is not None and found["r"].kind == "repeat"


def test_arguments_keep_their_literals_and_hand_on_values():
    step = steps_of("""\
  b: {agent: planner, prompt: x}
  a:
    use: answer
    with: {query: "{{ steps.b.topic }}"}
  t:
    tool: count_words
    with: {text: "On {{ steps.b.topic }}", limit: "{{- inputs.n + 1 -}}"}
""")
    use, tool = step["a"].work, step["t"].work

    assert (step["a"].kind, step["t"].kind) == ("pipeline", "tool")
    assert isinstance(use.inputs["query"], Expression)
    assert use.pipeline.pipeline.name == "answer"
    assert isinstance(tool.arguments["text"], Template)
    assert isinstance(tool.arguments["limit"], Expression)
    assert tool.arguments["limit"].evaluate({"inputs": {"n": 2}}, where="t") == 3


PART = """\
version: 1
name: part
inputs: {word: {required: true}, tags: {type: list}}
steps: {x: {agent: planner, prompt: "{{ inputs.word }}"}}
result: "{{ steps.x }}"
"""


def test_a_used_pipeline_is_compiled_once_and_its_result_has_a_type(tmp_path: Path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "part.yaml").write_text(PART)

    found = steps_of(
        """\
  a: {use: parts/part.yaml, with: {word: 3, tags: [1, "{{ inputs.query }}", {deep: "{{ inputs.n }}"}]}}
  b: {use: parts/part.yaml, with: {word: "{{ steps.a.topic }}", tags: "{{ steps.a.questions }}"}}
""",
        path=tmp_path / "p.yaml",
    )

    assert found["a"].kind == found["b"].kind == "pipeline"
    assert found["a"].work.pipeline is found["b"].work.pipeline
    tags = found["a"].work.inputs["tags"]
    assert tags[0] == 1 and isinstance(tags[1], Expression) and isinstance(tags[2]["deep"], Expression)
    with pytest.raises(PipelineError, match="has no 'topc'; did you mean 'topic'"):
        steps_of(
            "  a: {use: parts/part.yaml, with: {word: x}}\n  b: {agent: editor, prompt: '{{ steps.a.topc }}'}",
            path=tmp_path / "p.yaml",
        )


def test_a_used_pipeline_does_not_see_the_agents_of_the_one_around_it(tmp_path: Path):
    (tmp_path / "part.yaml").write_text(PART.replace("planner", "poet"))

    with pytest.raises(PipelineError, match="no agent 'poet'"):
        steps_of(
            "  a: {use: part.yaml, with: {word: x}}", top="agents: {poet: {prompt: p}}\n", path=tmp_path / "p.yaml"
        )


def test_a_pipeline_without_a_file_uses_what_is_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "part.yaml").write_text(PART)
    monkeypatch.chdir(tmp_path)

    assert steps_of("  a: {use: part.yaml, with: {word: x}}")["a"].kind == "pipeline"


def test_files_in_a_pipeline_are_typed(tmp_path: Path):
    found = mistakes("  a: {agent: editor, foreach: inputs.many, as: one, prompt: '{{ one.text }} {{ one.txt }}'}")

    assert len(found) == 1
    assert "did you mean 'text'?" in found[0]


# -- several mistakes --------------------------------------------------------------------------------------------------


def test_a_reference_into_an_output_is_checked_where_the_shape_is_known():
    steps = """\
  c: {agent: critic, prompt: x}
  m: {agent: critic, prompt: x, foreach: steps.c.issues}
  t: {agent: editor, prompt: x}
  l: {repeat: {steps: {d: {agent: critic, prompt: x}}}}
  own: {agent: editor, prompt: x, output: {title?: string}}
  route: {choose: {prompt: x, options: {yes: {}, no: {}}}}
  f: {agent: critic, prompt: x, on_error: {use: t}}
  a:
    agent: editor
    prompt: |
      {{ steps.c.scroe }}
      {{ steps.m.issues }}
      {{ steps.t.text }}
      {{ steps.l.e }} {{ steps.l.d.score }} {{ steps.l.rounds }}
      {{ steps.own.titel }} {{ steps.own.title }}
      {{ steps.route.choice }} {{ steps.f.score }} {{ steps.f.anything }}
"""

    found = mistakes(steps)

    assert [problem.split(": ")[0] for problem in found] == [f"p.yaml:{line}:10" for line in range(15, 21)]
    assert "did you mean 'score'?" in found[0]
    assert "list" in found[1]
    assert "text" in found[2]
    assert "'e'" in found[3]
    assert "did you mean 'title'?" in found[4]


def test_every_mistake_is_found_and_each_is_told_once_in_the_order_of_the_file():
    found = mistakes("""\
  a: {agent: edtor, prompt: "{{ steps.x }} {{ steps.a }}", needs: [y]}
  b: {agent: editor, prompt: "{{ steps.a.field }} {{ inputs.z }}", as: q, when: "1 +"}
  c: {agent: editor, prompt: "{{ steps.c2 }}"}
  c2: {agent: editor, prompt: "{{ steps.c }}"}
  e: {agent: editor, prompt: "{{ steps.e2 }}"}
  e2: {agent: editor, prompt: "{{ steps.e }}"}
""")

    assert [problem.split(": ")[0].removeprefix("p.yaml:") for problem in found] == [
        "5:14",
        "5:33",
        "5:47",
        "5:68",
        "6:54",
        "6:68",
        "6:84",
        "7:3",
        "9:3",
    ]


def test_a_step_that_nobody_reads_is_allowed():
    assert len(steps_of("  a: {agent: editor, prompt: x}\n  b: {agent: editor, prompt: x}", "{{ steps.a }}")) == 2


def test_the_result_names_what_is_needed():
    result = compiled("  a: {agent: editor, prompt: x}\n  b: {agent: editor, prompt: x}", "{{ steps.a }}")

    assert result.needed == {"a"}


# -- graphs ------------------------------------------------------------------------------------------------------------


def test_an_empty_graph_has_no_path():
    assert Graph.of({}).critical_path() == ()


@pytest.mark.parametrize("name", builtin_pipelines())
def test_every_built_in_pipeline_compiles(name: str):
    book = discover_agents()
    context = CompileContext(agents={agent: book[agent] for agent in book})

    assert compile_pipeline(Pipeline.builtin(name), context).needed


def test_the_work_grows_with_the_steps_and_not_faster():
    """Counted in function calls, which no other process disturbs."""
    counts = [_calls(size) for size in (100, 400)]

    assert counts[1] < 5 * counts[0]


def _calls(size: int) -> int:
    import cProfile
    import pstats

    lines = [
        f'  s{i}: {{agent: editor, prompt: "{{{{ steps.s{i - 1} }}}} {{{{ inputs.query }}}}"}}' for i in range(size)
    ]
    lines[0] = "  s0: {agent: editor, prompt: x}"
    profile = cProfile.Profile(time.process_time)
    profile.runcall(compiled, "\n".join(lines), "{{ steps.s3 }}")
    return pstats.Stats(profile).total_calls
