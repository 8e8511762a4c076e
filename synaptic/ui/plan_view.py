"""The plan as a table: what runs after what, where, and why there."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from synaptic.ui.output import write_paragraph, write_table, write_text
from synaptic.ui.run_view import place

if TYPE_CHECKING:
    from synaptic.messages import Route
    from synaptic.pipeline.plan import Plan, PlannedStep

HEADERS = ("#", "step", "agent", "runs", "model", "notes", "needs")
LEGEND = "Steps with the same number may run at once; * is the longest chain of steps, which sets how long it takes."


def print_plan(plan: Plan, out: TextIO) -> None:
    """Print the plan."""
    route = plan.route
    write_paragraph("pipeline", f"{plan.pipeline.name}: {plan.pipeline.spec.description.strip()}", out)
    write_paragraph("route", f"{place(route.backend, route.model, route.node)}: {route.reason}", out)
    write_text("", out)
    write_table(HEADERS, [plan_row(row, route) for row in plan.rows()], out)
    write_text("", out)
    write_paragraph("", LEGEND, out)


def plan_row(row: PlannedStep, route: Route) -> tuple[str, ...]:
    """Return the columns of one step; stages count from one, the steps of a loop stand below it."""
    notes = [
        "if needed" if row.conditional else "",
        "JSON" if row.structured else "",
        "answer" if row.streams_answer else "",
    ]
    return (
        "" if row.depth else str(row.stage + 1),
        f"{'  ' * row.depth}{row.path}{'*' if row.critical and not row.depth else ''}",
        row.agent or "(loop)",
        row.times,
        _where(row, route),
        ", ".join(note for note in notes if note),
        ", ".join(row.needs),
    )


def _where(row: PlannedStep, route: Route) -> str:
    """Return the model; and where it runs, if that is not where the route goes."""
    if row.backend is None or (row.backend, row.node) == (route.backend, route.node):
        return row.model or ""
    return place(row.backend, row.model, row.node)
