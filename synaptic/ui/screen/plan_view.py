"""The plan as a table: what runs after what, where, and why there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

from synaptic.pipeline import KINDS, NAMED_BACKEND, answer_path, default_inputs, limits, planned_steps
from synaptic.text import plural, seconds
from synaptic.ui.screen.output import write_paragraph, write_table, write_text
from synaptic.ui.screen.run_view import divided, place

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from synaptic.messages import Route
    from synaptic.pipeline import CompiledPipeline, InputSpec, Plan, PlannedStep

PLAN_HEADERS = ("#", "step", "does", "runs", "model", "notes", "needs")
LEGEND = "Steps with the same number may run at once; * is the longest chain of steps, which sets how long it takes."

_MORE = " "  # the label of a further line of the paragraph above
_JOINS = {"any": "any of its needs", "first": "the first of its needs"}


def print_plan(plan: Plan, out: TextIO) -> None:
    """Print what a run would do."""
    route = plan.route
    write_paragraph("pipeline", named(plan.pipeline.name, plan.pipeline.spec.description), out)
    write_paragraph("route", f"{place(route.backend, route.model, route.node)}: {route.reason}", out)
    for index, long in enumerate(plan.long_inputs):
        write_paragraph(_MORE if index else "long", divided(long), out)
    _print_steps(plan.compiled, plan.rows(), route, out)


def named(name: str, description: str) -> str:
    """Return a pipeline's name, and what it is for, if it says so."""
    about = description.strip()
    return f"{name}: {about}" if about else name


def print_overview(compiled: CompiledPipeline, out: TextIO) -> None:
    """Print what a pipeline is and does, as far as that is known without its inputs and without a backend."""
    spec = compiled.pipeline.spec
    write_paragraph("pipeline", named(spec.name, spec.description), out)
    if compiled.pipeline.path is not None:
        write_paragraph("file", str(compiled.pipeline.path), out)
    for index, (name, declared) in enumerate(spec.inputs.items()):
        write_paragraph(_MORE if index else "inputs", input_line(name, declared), out)
    rows = planned_steps(compiled, default_inputs(compiled), None, answer_path(compiled))
    _print_steps(compiled, rows, None, out)


def _print_steps(compiled: CompiledPipeline, rows: Sequence[PlannedStep], route: Route | None, out: TextIO) -> None:
    bounds = limits_line(limits(compiled))
    if bounds:
        write_paragraph("limits", bounds, out)
    write_text("", out)
    write_table(PLAN_HEADERS, [plan_row(row, route) for row in rows], out)
    write_text("", out)
    for index, line in enumerate(call_lines(rows, route)):
        write_paragraph(_MORE if index else "calls", line, out)
    described = [f"{row.path}: {row.description}" for row in rows if row.description]
    for index, line in enumerate(described):
        write_paragraph(_MORE if index else "about", line, out)
    write_paragraph("", LEGEND, out)


def plan_row(row: PlannedStep, route: Route | None) -> tuple[str, ...]:
    """Return the columns of one step; stages count from one, what is inside a step stands below it."""
    return (
        "" if row.depth or row.on_demand else str(row.stage + 1),
        f"{'  ' * row.depth}{row.path}{'*' if row.critical and not row.depth else ''}",
        _does(row),
        row.times,
        _where(row, route),
        ", ".join(_notes(row)),
        ", ".join(row.needs),
    )


def _does(row: PlannedStep) -> str:
    label = KINDS[row.work].picture.label
    return f"{label}{row.what}" if row.what else f"({label})"


def call_lines(rows: Sequence[PlannedStep], route: Route | None) -> list[str]:
    """Return for each model and place that calls go to: why, and which steps."""
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.agent is not None:
            groups.setdefault((_target(row, route), _why(row)), []).append(row.path)
    return [f"{target} ({why}): {', '.join(paths)}" for (target, why), paths in groups.items()]


def limits_line(bounds: dict[str, Any]) -> str:
    """Return ``at most 20 calls, 30000 tokens, 60.0 s; 4 calls at once``; "" where nothing is bounded."""
    parts = [
        plural(bounds["calls"], "call") if "calls" in bounds else "",
        plural(bounds["tokens"], "token") if "tokens" in bounds else "",
        seconds(bounds["seconds"]) if "seconds" in bounds else "",
        f"{plural(bounds['concurrency'], 'call')} at once" if "concurrency" in bounds else "",
    ]
    text = ", ".join(part for part in parts if part)
    return f"at most {text}" if text else ""


def input_line(name: str, declared: InputSpec) -> str:
    """Return ``rounds (integer, default 1, at least 0): Most rounds.``."""
    facts = [
        declared.type,
        "required" if declared.required else "",
        "" if declared.default is None else f"default {declared.default!r}",
        f"one of {', '.join(declared.choices)}" if declared.choices else "",
        "" if declared.minimum is None else f"at least {declared.minimum:g}",
        "" if declared.maximum is None else f"at most {declared.maximum:g}",
    ]
    about = f": {declared.description.strip()}" if declared.description.strip() else ""
    return f"{name} ({', '.join(fact for fact in facts if fact)}){about}"


def _notes(row: PlannedStep) -> Iterator[str]:
    for choice, labels in row.gates.items():
        yield f"if {choice} is {' or '.join(labels)}"
    notes = {
        "if needed": row.conditional and not row.gates,
        "only as a fallback": row.on_demand,
        _JOINS.get(row.join, ""): row.join in _JOINS,
        f"or, on error, {row.fallback}": row.fallback is not None,
        "left out on error": row.on_error == "skip",
        "asks a person": bool(row.approve),
        "may shorten its prompt": row.overflow in {"truncate_oldest", "summarise"},
        "cached": row.cache_seconds != 0,
        f"priority {row.priority}": row.priority != 0,
        "JSON": row.structured,
        "answer": row.streams_answer,
    }
    yield from (note for note, holds in notes.items() if holds)


def _where(row: PlannedStep, route: Route | None) -> str:
    """Return the model; and where it runs, if that is not where the route goes."""
    if row.backend is None or (route is not None and (row.backend, row.node) == (route.backend, route.node)):
        return row.model or ""
    return place(row.backend, row.model, row.node)


def _target(row: PlannedStep, route: Route | None) -> str:
    """Return the models that are asked, in their order, and the place where that is not the route's."""
    first = _where(row, route) or ("the model of the run" if row.backend is None else row.backend)
    return ", then ".join((first, *row.fallback_models))


def _why(row: PlannedStep) -> str:
    named = row.backend_reason if row.backend_reason == NAMED_BACKEND else ""
    return f"model: {row.model_reason}; backend: {named}" if named else row.model_reason
