"""The plan: what would run, how often, with which model and why, and which step's text is the answer."""

import json
from dataclasses import replace
from typing import Any

import pytest
from compiled_graphs import SCORE, call, compiled, everything, graph, loop, step

from synaptic.agents.definition import Agent
from synaptic.messages import Route
from synaptic.pipeline.compiler import CompileContext, compile_pipeline
from synaptic.pipeline.graph import CallPolicy, CompiledPipeline, CompiledSamples
from synaptic.pipeline.kinds import CompiledUse
from synaptic.pipeline.loader import Pipeline
from synaptic.pipeline.plan import Plan, PlannedStep, answer_path, limits, overview
from synaptic.pipeline.templates.expressions import Expression, Template
from synaptic.pipeline.templates.structures import Structure

AGENTS = {
    "editor": Agent(name="editor", prompt="Edit."),
    "critic": Agent(name="critic", prompt="Judge.", output={"score": "number(0..1)"}),
}
ROUTE = Route("ollama", "http://desk:11434", "llama3", "it has the model")


def plan(pipeline: CompiledPipeline, inputs: dict[str, Any] | None = None) -> Plan:
    return Plan(pipeline=pipeline.pipeline, compiled=pipeline, inputs=inputs or {}, route=ROUTE)


def rows(pipeline: CompiledPipeline, inputs: dict[str, Any] | None = None) -> dict[str, PlannedStep]:
    return {row.path: row for row in plan(pipeline, inputs).rows()}


def test_rows_come_in_the_order_of_the_stages_and_what_is_inside_follows():
    found = plan(everything()).rows()

    assert [(row.path, row.depth) for row in found] == [
        ("plan", 0),
        ("route", 0),
        ("plain", 0),
        ("look_up", 0),
        ("tell", 0),
        ("tell.judge", 1),
        ("research", 0),
        ("again", 0),
        ("reuse", 0),
        ("reuse.look", 1),
        ("reuse.sum_up", 1),
        ("refine", 0),
        ("refine.draft", 1),
        ("refine.rate", 1),
        ("race", 0),
        ("careful", 0),
        ("write", 0),
    ]


def test_every_kind_of_step_says_what_it_does():
    found = rows(everything())

    assert {path: (row.kind, row.work, row.what) for path, row in found.items() if row.depth == 0} == {
        "plan": ("agent", "agent", "planner"),
        "route": ("choose", "choose", "classifier"),
        "look_up": ("tool", "tool", "fetch"),
        "tell": ("samples", "agent", "editor"),
        "research": ("map", "agent", "researcher"),
        "refine": ("repeat", "repeat", ""),
        "again": ("repeat", "agent", "editor"),
        "reuse": ("pipeline", "pipeline", "inner"),
        "race": ("agent", "agent", "editor"),
        "careful": ("agent", "agent", "editor"),
        "plain": ("agent", "agent", "editor"),
        "write": ("agent", "agent", "editor"),
    }


def test_modifiers_are_in_the_row():
    found = rows(everything())

    assert found["route"].options == {"fact": ("look_up",), "story": ("tell",)}
    assert found["look_up"].gates == {"route": ("fact",)}
    assert found["look_up"].conditional
    assert (found["careful"].fallback, found["careful"].on_error, found["careful"].approve) == (
        "plain",
        "use",
        "output",
    )
    assert found["plain"].on_demand
    assert found["race"].join == "first"
    assert found["write"].cache_seconds == 60.0
    assert found["refine.rate"].needs == ("refine.draft",)
    assert found["plan"].rank > found["write"].rank


def test_only_calls_have_a_model_and_a_backend():
    found = rows(everything())

    assert {path for path, row in found.items() if row.model is None} == {"look_up", "refine", "reuse"}
    assert {path for path, row in found.items() if row.backend is None} == {"look_up", "refine", "reuse"}
    assert (found["again"].model, found["tell.judge"].what) == ("llama3", "judge")


@pytest.mark.parametrize(
    ("origin", "reason"),
    [
        ("step", "the step says so"),
        ("agent_models", "setting agent_models"),
        ("agent", "the agent's own"),
        ("defaults", "the pipeline's defaults"),
    ],
)
def test_a_model_has_its_reason(origin: Any, reason: str):
    row = rows(compiled(step("a", call=call(model="big", model_origin=origin))))["a"]

    assert (row.model, row.model_reason) == ("big", reason)
    assert (row.backend, row.backend_reason, row.node) == ("ollama", "it has the model", "http://desk:11434")


def test_a_call_that_names_nothing_takes_the_runs_model():
    row = rows(compiled(step("a")))["a"]

    assert (row.model, row.model_reason) == ("llama3", "the run's model")


def test_a_step_with_a_backend_of_its_own_does_not_take_the_routes_model_or_node():
    policy = CallPolicy(backend="embedded", fallback_models=("tiny",), overflow="summarise")
    row = rows(compiled(step("a", call=call(policy=policy))))["a"]

    assert (row.model, row.model_reason) == (None, "the backend's own choice")
    assert (row.backend, row.backend_reason, row.node) == ("embedded", "the step names it", None)
    assert (row.fallback_models, row.overflow) == (("tiny",), "summarise")


THREE = CompiledSamples(count=3, select="vote", judge=None)


@pytest.mark.parametrize(
    ("modifiers", "times"),
    [
        ({}, "1"),
        ({"foreach": Expression.compile("steps.x.items")}, "×N"),
        ({"foreach": Expression.compile("inputs.sides")}, "×2"),
        ({"foreach": Expression.compile("inputs.absent")}, "×N"),
        ({"foreach": Expression.compile("inputs.sides.nothing")}, "×N"),
        ({"foreach": Expression.compile("['a', 'b', 'c']")}, "×3"),
        ({"foreach": Structure(["a", Expression.compile("inputs.absent")], ())}, "×2"),
        ({"foreach": Expression.compile("inputs.sides"), "item_when": Expression.compile("item")}, "≤ ×2"),
        ({"foreach": Expression.compile("steps.x"), "item_when": Expression.compile("item")}, "≤ ×N"),
        ({"samples": THREE}, "× 3, vote"),
        ({"samples": THREE, "foreach": Expression.compile("inputs.sides")}, "×2, × 3, vote"),
        ({"repeat": loop(step("b"), max=5)}, "≤ 5"),
        ({"repeat": loop(step("b"), max=Expression.compile("inputs.rounds + 1"))}, "≤ 3"),
        ({"repeat": loop(step("b"), max=Expression.compile("steps.c.score"))}, "≤ steps.c.score"),
        ({"repeat": loop(step("a", samples=THREE), itself=True)}, "≤ 3, × 3, vote"),
    ],
)
def test_how_often_a_step_runs(modifiers: dict[str, Any], times: str):
    inputs = {"sides": ["for", "against"], "rounds": 2, "absent": None}

    assert rows(compiled(step("a", **modifiers)), inputs)["a"].times == times


def test_inside_a_sub_pipeline_only_its_own_inputs_count():
    body = step("b", repeat=loop(step("c"), max=Expression.compile("inputs.rounds")))
    inner = compiled(body, name="inner")

    def bound(**given: Any) -> str:
        use = CompiledUse(pipeline=inner, inputs=given)
        return rows(compiled(step("a", use=use)), {"rounds": 9})["a.b"].times

    assert bound() == "≤ 4"  # its default
    assert bound(rounds=2) == "≤ 2"
    assert bound(rounds=Expression.compile("inputs.rounds")) == "≤ inputs.rounds"
    use = CompiledUse(pipeline=inner, inputs={"query": Template.compile("x {{ inputs.query }}")})
    assert use.known_inputs() == {"rounds": 4}


@pytest.mark.parametrize(
    ("changes", "streams"),
    [
        ({}, True),
        ({"when": Expression.compile("inputs.query")}, True),
        ({"approve": "prompt"}, True),
        ({"on_error": "skip"}, True),
        ({"approve": "output"}, False),
        ({"approve": "both"}, False),
        ({"on_error": "use", "fallback": "other"}, False),
        ({"samples": THREE}, False),
        ({"foreach": Expression.compile("inputs.x")}, False),
        ({"call": call(shape=SCORE)}, False),
        ({"repeat": loop(step("a"), itself=True)}, False),
        ({"on_demand": True}, False),
    ],
)
def test_what_may_still_change_is_not_streamed_as_the_answer(changes, streams):
    pipeline = compiled(step("other"), step("a", **changes))

    assert answer_path(pipeline) == ("a" if streams else None)
    assert [row.path for row in plan(pipeline).rows() if row.streams_answer] == (["a"] if streams else [])


@pytest.mark.parametrize(
    "result", ["So: {{ steps.a }}", "{{ steps.a.field }}", "{{ inputs.a }}", "{{ steps.a }}{{ steps.other }}", "fixed"]
)
def test_a_result_that_is_not_one_steps_text_is_not_streamed(result: str):
    assert answer_path(compiled(step("other"), step("a"), result=result)) is None


def test_a_step_that_may_lose_a_race_is_not_streamed():
    steps = (step("a"), step("b"), step("c", "a", "b", join="first"))

    assert answer_path(compiled(*steps, result="{{ steps.a }}")) is None
    assert answer_path(compiled(*steps)) == "c"


def test_the_answer_of_a_sub_pipeline_is_streamed_through():
    inner = compiled(step("draft"), step("final", "draft"), name="inner")
    shaped = compiled(step("final", call=call(shape=SCORE)), name="inner")

    def outer(pipeline: CompiledPipeline, **more: Any) -> CompiledPipeline:
        return compiled(step("a", use=CompiledUse(pipeline=pipeline, inputs={}), **more))

    assert answer_path(outer(inner)) == "a.final"
    assert [row.path for row in plan(outer(inner)).rows() if row.streams_answer] == ["a.final"]
    assert answer_path(outer(outer(inner))) == "a.a.final"
    assert answer_path(outer(shaped)) is None
    assert answer_path(outer(inner, approve="output")) is None


def test_the_plan_as_data_is_json():
    data = json.loads(json.dumps(plan(everything(), {"query": "why?"}).to_dict()))

    assert (data["pipeline"], data["inputs"], data["route"]["reason"]) == (
        "demo",
        {"query": "why?"},
        "it has the model",
    )
    assert data["critical_path"] == ["plan", "research", "refine", "careful", "write"]
    assert data["answer_step"] == "write"
    by_id = {row["id"]: row for row in data["steps"]}
    assert by_id["write"]["rank"] == 1
    assert by_id["route"]["options"] == {"fact": ["look_up"], "story": ["tell"]}
    assert by_id["look_up"]["agent"] is None
    assert "depth" not in by_id["plan"]


def test_a_cache_for_ever_is_json_too():
    forever = CallPolicy(cache_seconds=float("inf"))

    (row,) = plan(compiled(step("a", call=call(policy=forever)))).to_dict()["steps"]

    assert row["cache_seconds"] is None


def test_the_text_of_files_is_left_out_of_the_data():
    file = {"name": "a.txt", "path": "/tmp/a.txt", "text": "long" * 10}

    inputs = plan(compiled(step("a")), {"one": file, "many": [file], "text": "kept"}).to_dict()["inputs"]

    short = {"name": "a.txt", "path": "/tmp/a.txt", "characters": 40}
    assert inputs == {"one": short, "many": [short], "text": "kept"}


def test_the_overview_needs_no_route():
    data = overview(everything())

    by_id = {row["id"]: row for row in data["steps"]}
    assert by_id["refine"]["times"] == "≤ 4"  # from the default of the input
    assert (by_id["plan"]["model"], by_id["plan"]["model_reason"]) == (None, "the run's model")
    assert by_id["plan"]["backend"] is None
    assert json.loads(json.dumps(data))["limits"] == {}


def test_limits_are_those_that_are_set():
    pipeline = compiled(step("a"))
    budget = pipeline.budget.model_copy(update={"calls": 5, "seconds": 1.5})
    bounded = CompiledPipeline(
        pipeline=pipeline.pipeline,
        graph=graph(step("a")),
        result=pipeline.result,
        needed=frozenset(),
        budget=budget,
        concurrency=2,
    )

    assert limits(bounded) == {"calls": 5, "seconds": 1.5, "concurrency": 2}


DESCRIBED = """\
version: 1
name: demo
steps:
  plain: {agent: editor, prompt: x}
  told: {agent: editor, prompt: x, description: "Tells\\n it."}
  again: {repeat: {steps: {inner: {agent: editor, prompt: x, description: Inside.}}}}
result: "{{ steps.told }}{{ steps.plain }}{{ steps.again.inner }}"
"""


def test_descriptions_of_steps_are_in_the_plan():
    pipeline = compile_pipeline(Pipeline.parse(DESCRIBED), CompileContext(agents=AGENTS))

    assert {path: row.description for path, row in rows(pipeline).items()} == {
        "plain": "",
        "told": "Tells it.",
        "again": "",
        "again.inner": "Inside.",
    }


def test_the_compiler_says_where_a_model_comes_from():
    agents = {**AGENTS, "fast": Agent(name="fast", prompt="x", model="tiny")}
    text = """\
version: 1
name: demo
defaults: {model: usual}
steps:
  a: {agent: editor, prompt: x}
  b: {agent: editor, prompt: x, model: big}
  c: {agent: fast, prompt: x}
  d: {agent: critic, prompt: x}
result: "{{ steps.a }}{{ steps.b }}{{ steps.c }}{{ steps.d.score }}"
"""
    context = CompileContext(agents=agents, agent_models={"critic": "strict"})
    found = rows(compile_pipeline(Pipeline.parse(text), context))
    explicit = rows(compile_pipeline(Pipeline.parse(text), replace(context, model="llama3")))

    assert {path: (row.model, row.model_reason) for path, row in found.items()} == {
        "a": ("usual", "the pipeline's defaults"),
        "b": ("big", "the step says so"),
        "c": ("tiny", "the agent's own"),
        "d": ("strict", "setting agent_models"),
    }
    assert (explicit["a"].model, explicit["a"].model_reason) == ("llama3", "the run's model")
    assert explicit["b"].model == "big"
