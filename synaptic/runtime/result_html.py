"""A result as HTML, as a notebook shows it: the answer rendered, and how each step ended."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from markdown_it import MarkdownIt

from synaptic.text import plural, printable, seconds

if TYPE_CHECKING:
    from synaptic.runtime.events import RunResult, StepResult

_PARSER: Final = MarkdownIt("commonmark", {"html": False}).enable("strikethrough").enable("table").disable("image")
"""What a model wrote may hold no markup of its own, nor load anything from elsewhere."""

_COLUMNS: Final = ("step", "agent", "status", "model", "tokens", "time")


def html_of(result: RunResult) -> str:
    """Return the answer, or the error, and below it the steps, folded."""
    answer = _PARSER.render(printable(result.text)) if result.text else ""
    error = (
        "" if result.error is None else f"<p><strong>{escape(result.status)}:</strong> {escape(str(result.error))}</p>"
    )
    took = seconds(result.ended_at - result.started_at)
    about = f"{result.pipeline}: {result.status} after {took}, {plural(result.usage.total_tokens, 'token')}"
    head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in _cells(step))}</tr>" for step in result.steps)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<div>{answer}{error}<details><summary>{escape(about)}</summary>{table}</details></div>"


def _cells(step: StepResult) -> tuple[str, ...]:
    took = "" if step.started_at is None or step.ended_at is None else seconds(step.ended_at - step.started_at)
    return (
        step.id,
        step.agent or "",
        step.status,
        step.model or "",
        str(step.usage.total_tokens or ""),
        took,
    )
