"""Runs of the journal for people: rows of a list, and one run told in full, as text, Markdown or HTML."""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING, Any, Final

from synaptic.pipeline import present
from synaptic.runtime import run_document, step_document, timestamp
from synaptic.text import moment, one_line, plural, seconds, when
from synaptic.ui.screen.output import as_text
from synaptic.ui.screen.run_view import place

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from synaptic.runtime import FoundText, KeptRun, RunAccount, StepAccount

RUN_HEADERS: Final = ("run", "when", "status", "pipeline", "took", "tokens", "question")
FOUND_HEADERS: Final = ("run", "when", "step", "text")
SHORT_ID: Final = 8
_QUESTION: Final = 60
_INDENT: Final = "    "


def run_rows(runs: Sequence[KeptRun]) -> list[tuple[str, ...]]:
    """Return the rows of a list of runs; a run is named by the end of its id."""
    return [
        (
            run.id[-SHORT_ID:],
            when(run.started),
            run.status,
            run.pipeline,
            "" if run.seconds is None else seconds(run.seconds),
            str(run.tokens or ""),
            one_line(run.query or "", _QUESTION),
        )
        for run in runs
    ]


def found_rows(found: Sequence[FoundText]) -> list[tuple[str, ...]]:
    """Return the rows of what was found, and where."""
    return [
        (
            each.run.id[-SHORT_ID:],
            when(each.run.started),
            each.path or "",
            one_line(f"{'…' if each.before else ''}{each.before}{each.text}{each.after}{'…' if each.after else ''}"),
        )
        for each in found
    ]


def run_row_document(run: KeptRun) -> dict[str, Any]:
    """Return a run of a list as JSON data."""
    return {
        "run_id": run.id,
        "pipeline": run.pipeline,
        "status": run.status,
        "can_go_on": run.can_go_on,
        "query": run.query,
        "model": run.model,
        "started_at": timestamp(run.started),
        "ended_at": timestamp(run.ended),
        "calls": run.calls,
        "tokens": run.tokens,
        "error": run.error,
        "parent": run.parent,
        "forked_at": run.forked_at,
        "session": run.session,
        "pinned": run.pinned,
        "bytes": run.bytes,
    }


def account_document(account: RunAccount) -> dict[str, Any]:
    """Return a whole run as JSON data: what ``--json`` printed of it, with its inputs and prompts."""
    result = account.result
    ended = {} if result is None else run_document(result)
    ended.pop("steps", None)
    beginning = account.beginning
    return {
        **run_row_document(account.run),
        **ended,
        "inputs": dict(beginning.inputs),
        "conversation": beginning.descent.conversation,
        "pipeline_text": beginning.pipeline.text,
        "pipeline_path": beginning.pipeline.path,
        "steps": [_step_document(step) for step in account.steps],
    }


def _step_document(step: StepAccount) -> dict[str, Any]:
    told: dict[str, Any] = {"id": step.path, "status": "not ended", "output": step.said or None}
    if step.result is not None:
        told = step_document(step.result)
    asked = step.asked
    return {
        **told,
        "messages": [{"role": message.role, "content": message.content} for message in step.messages],
        "tool": None if asked is None else asked.tool,
        "arguments": None if asked is None or asked.arguments is None else dict(asked.arguments),
        "thinking": step.thought or None,
        "troubles": step.troubles,
    }


def account_lines(account: RunAccount, only: str | None = None) -> Iterator[str]:
    """Yield a run in full, for a terminal or a file; of one step alone where ``only`` names it."""
    if only is None:
        yield from head_lines(account)
        for name, value in account.beginning.inputs.items():
            text = present(value) if isinstance(value, (str, dict)) else json.dumps(value)
            yield from [f"  {name}:", *_indented(text)]
    for step in account.steps:
        if only is None or step.path == only:
            yield from ["", *_step_lines(step)]
    if only is None and account.result is not None:
        yield from ["", "answer", *_indented(account.result.text)]


def head_lines(account: RunAccount) -> Iterator[str]:
    """Yield what there is to say of a run as a whole, but for its inputs."""
    run, beginning = account.run, account.beginning
    took = "" if run.seconds is None else f" after {seconds(run.seconds)}"
    yield f"run {run.id}: {run.pipeline or 'no pipeline yet'}, {run.status}{took}"
    route = beginning.route
    yield f"  began {moment(run.started)}; {plural(run.calls, 'call')}, {plural(run.tokens, 'token')}"
    if route.backend:
        yield f"  at {place(route.backend, route.model, route.node)}"
    if run.parent:
        yield f"  goes on from {run.parent}" + (f", at {run.forked_at}" if run.forked_at else "")
    if run.error:
        yield f"  error: {run.error}"


def _step_lines(step: StepAccount) -> Iterator[str]:
    yield f"{step.path}: {step_summary(step)}"
    for trouble in step.troubles:
        yield f"  {one_line(trouble)}"
    for message in step.messages:
        yield from [f"  asked ({message.role})", *_indented(message.content)]
    if step.asked is not None and step.asked.tool is not None:
        yield f"  called {step.asked.tool}"
        yield from _indented(json.dumps(dict(step.asked.arguments or {}), ensure_ascii=False, default=str))
    if step.thought:
        yield from ["  thought", *_indented(step.thought)]
    if step.result is None:
        if step.said:
            yield from ["  had said", *_indented(step.said)]
    elif step.result.output is not None:
        yield from ["  said", *_indented(as_text(step.result.output))]


def step_summary(step: StepAccount) -> str:
    """Return how a step ended, who did it and where, and what it took, in one line."""
    result = step.result
    if result is None:
        return "did not end"
    parts = [result.status if result.error is None else f"{result.status}: {result.error}"]
    if result.agent:
        parts.append(f"agent {result.agent}")
    if result.backend:
        parts.append(place(result.backend, result.model, result.node))
    if result.reused:
        parts.append("taken from before")
    if result.cached:
        parts.append("from the cache")
    if result.attempts > 1:
        parts.append(plural(result.attempts, "request"))
    if result.usage.total_tokens:
        parts.append(plural(result.usage.total_tokens, "token"))
    if result.started_at is not None and result.ended_at is not None:
        parts.append(seconds(result.ended_at - result.started_at))
    if result.stop_reason not in {None, "stop"}:
        parts.append(f"ended by {result.stop_reason}")
    return ", ".join(parts)


def account_markdown(account: RunAccount) -> str:
    """Return a run in full as Markdown."""
    run = account.run
    lines = [f"# {one_line(run.query or run.pipeline)}", ""]
    took = "" if run.seconds is None else f" after {seconds(run.seconds)}"
    lines.append(f"{run.pipeline}, {run.status}{took}; run `{run.id}`, {moment(run.started)}")
    if account.result is not None and account.result.text:
        lines += ["", "## Answer", "", account.result.text]
    for step in account.steps:
        lines += ["", f"## `{step.path}`", "", step_summary(step)]
        for message in step.messages:
            lines += ["", f"Asked ({message.role}):", "", _fenced(message.content)]
        if step.thought:
            lines += ["", "Thought:", "", _fenced(step.thought)]
        output = step.said if step.result is None else step.result.output
        if output:
            lines += ["", "Said:", "", _fenced(as_text(output))]
    return "\n".join(lines) + "\n"


def account_html(account: RunAccount) -> str:
    """Return a run in full as one page of HTML that needs nothing else."""
    run = account.run
    title = html.escape(one_line(run.query or run.pipeline))
    parts = [_PAGE.format(title=title), f"<p>{html.escape(next(head_lines(account)))}, {moment(run.started)}</p>"]
    if account.result is not None:
        parts.append(f"<h2>Answer</h2><pre>{html.escape(account.result.text)}</pre>")
    for step in account.steps:
        summary = html.escape(step_summary(step))
        parts.append(f"<details><summary><b>{html.escape(step.path)}</b> {summary}</summary>")
        parts += [_section(f"Asked ({message.role})", message.content) for message in step.messages]
        if step.thought:
            parts.append(_section("Thought", step.thought))
        output = step.said if step.result is None else step.result.output
        if output:
            parts.append(_section("Said", as_text(output)))
        parts.append("</details>")
    return "\n".join([*parts, "</html>", ""])


_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}
pre{{white-space:pre-wrap;background:#f4f4f4;padding:.8rem;border-radius:4px}}summary{{cursor:pointer;margin:.4rem 0}}
@media(prefers-color-scheme:dark){{body{{background:#181818;color:#ddd}}pre{{background:#262626}}}}</style>
<h1>{title}</h1>"""


def _section(label: str, text: str) -> str:
    return f"<h4>{html.escape(label)}</h4><pre>{html.escape(text)}</pre>"


def _fenced(text: str) -> str:
    """Return a text between fences that are longer than any in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text}\n{fence}"


def _indented(text: str) -> list[str]:
    return [f"{_INDENT}{line}".rstrip() for line in text.splitlines()]
