"""The plan as people read it."""

import io

from compiled_graphs import call, compiled, step
from render_support import RESEARCH, Terminal, everything_begins, make_plan

from synaptic.messages import Route
from synaptic.pipeline.graph import CallPolicy
from synaptic.pipeline.plan import Plan
from synaptic.pipeline.plan_rows import planned_steps
from synaptic.ui.screen.plan_view import call_lines, plan_row, print_plan


def plan_lines(plan: Plan) -> list[str]:
    out = io.StringIO()
    print_plan(plan, out)
    return out.getvalue().splitlines()


def test_a_plan_says_which_model_each_call_asks_and_why():
    pipeline = compiled(
        step("plan"),
        step("judge", "plan", call=call("critic", model="big", model_origin="step")),
        step("late", "plan", call=call("critic", policy=CallPolicy(backend="embedded", fallback_models=("small",)))),
    )
    route = Route("ollama", "http://127.0.0.1:11434", "tiny:latest", "the only one")
    lines = plan_lines(Plan(pipeline=pipeline.pipeline, compiled=pipeline, inputs={}, route=route))

    assert lines[0] == f"pipeline  {pipeline.pipeline.name}"  # it has no description
    at = next(index for index, line in enumerate(lines) if line.startswith("calls"))
    assert [line.strip() for line in lines[at : at + 3]] == [
        "calls     tiny:latest (the run's model): plan",
        "big (the step says so): judge",
        "embedded, then small (model: the backend's own choice; backend: the step names it): late",
    ]


def test_a_plan_has_a_line_for_its_limits():
    plan = make_plan(
        RESEARCH.replace("steps:\n  plan", "budget: {calls: 9, tokens: 500, seconds: 90}\nsteps:\n  plan", 1)
    )

    assert "limits    at most 9 calls, 500 tokens, 1 min 30 s" in plan_lines(plan)
    assert not any(line.startswith("limits") for line in plan_lines(make_plan()))


def test_a_plan_shows_every_kind_of_step_and_its_modifiers():
    event = everything_begins()
    rows = {row.path: plan_row(row, event.plan.route) for row in event.plan.rows()}

    assert rows["route"][2] == "choose: classifier"
    assert rows["look_up"][2:4] == ("tool fetch", "1")
    assert rows["look_up"][5] == "if route is fact"
    assert rows["reuse"][2] == "pipeline inner"
    assert rows["tell"][3] == "× 3, best"
    assert rows["refine"][2:4] == ("(loop)", "≤ 4")
    assert rows["race"][5] == "the first of its needs"
    assert rows["careful"][5] == "or, on error, plain, asks a person"
    assert (rows["plain"][0], rows["plain"][5]) == ("", "only as a fallback")
    assert rows["write"][5] == "cached, answer"
    assert rows["refine.draft"][1] == "  refine.draft"


def test_rows_without_a_route_name_only_what_is_certain():
    pipeline = compiled(step("a"), step("b", call=call("critic", model="big", model_origin="agent")))

    rows = planned_steps(pipeline, {}, None, None)

    assert [plan_row(row, None)[4] for row in rows] == ["", "big"]
    assert call_lines(rows, None) == [
        "the model of the run (the run's model): a",
        "big (the agent's own): b",
    ]


def test_a_plan_is_a_table():
    out = io.StringIO()

    print_plan(make_plan(), out)

    lines = out.getvalue().splitlines()
    assert lines[0].startswith("pipeline  demo")
    assert lines[1] == "route     ollama/tiny:latest@127.0.0.1:11434: the only one"
    rows = [line.split() for line in lines[4:9]]
    assert rows[0][:4] == ["1", "plan*", "thinker", "1"]
    assert rows[1][:4] == ["2", "research*", "thinker", "×N"]
    assert rows[2][:5] == ["3", "refine*", "(loop)", "≤", "2"]
    assert rows[3][0] == "refine.judge"
    assert lines[8].split()[-3:] == ["answer", "research,", "refine"]


def test_a_plan_on_a_terminal_is_wrapped():
    out = Terminal()

    print_plan(make_plan(), out)

    assert max(len(line) for line in out.getvalue().splitlines()) <= 80


def test_a_step_that_runs_elsewhere_than_the_route_says_where():
    plan = make_plan()
    (row, *_) = plan.rows()

    assert plan_row(row, plan.route)[4] == "tiny:latest"
    assert plan_row(row, Route("embedded", None, None, ""))[4] == "ollama/tiny:latest@127.0.0.1:11434"
