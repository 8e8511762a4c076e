"""Recorded runs as the page shows them. The journal is read in threads, each time by a reader of its own."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from synaptic.errors import SynapticError
from synaptic.runtime import Journal, KeptStatus, RunBefore, compare
from synaptic.server.page.live_run import ended_run, ended_step, plan_rows, started_step

if TYPE_CHECKING:
    from synaptic.runtime import KeptRun, RunAccount, StepAccount

Json = dict[str, Any]
MOST_RUNS: Final = 200
STATUSES: Final[tuple[KeptStatus, ...]] = (
    "succeeded",
    "stopped",
    "failed",
    "cancelled",
    "running",
    "waiting",
    "interrupted",
    "damaged",
)


def list_runs(*, limit: int, below: int | None, status: KeptStatus | None, pipeline: str | None) -> Json:
    """Return a page of the list of runs, the latest first: ``runs``, ``total``, and ``next`` for the page behind it.

    Raises:
        JournalError: If the record cannot be read.
    """
    with Journal() as journal:
        runs = journal.runs(limit=limit, below=below, status=status, pipeline=pipeline)
        return {
            "runs": [_row(run) for run in runs],
            "total": journal.count(),
            "next": runs[-1].number if len(runs) == limit else None,
        }


def search_runs(text: str, *, limit: int, below: int | None) -> Json:
    """Return a page of the runs that were asked a text or said it, with what stands around it.

    Raises:
        JournalError: If the record cannot be read.
    """
    with Journal() as journal:
        found = journal.grep(text, limit=limit, below=below)
        runs = [
            {**_row(one.run), "found": {"step": one.path, "before": one.before, "text": one.text, "after": one.after}}
            for one in found
        ]
        total = journal.count()
    return {"runs": runs, "total": total, "next": found[-1].run.number if len(found) == limit else None}


def whole_run(run_id: str) -> Json:
    """Return one run in full: its plan where today's agents allow that, each step with its prompt, its end.

    Raises:
        JournalError: If there is no such run, or its record cannot be read.
    """
    with Journal() as journal:
        account = journal.account(journal.run(run_id))
    run, beginning = account.run, account.beginning
    document = {
        **_row(run),
        "query": str(beginning.inputs.get("query", run.query or "")),
        "inputs": {name: value for name, value in beginning.inputs.items() if name != "query"},
        "route": asdict(beginning.route),
        "plan": _plan(account),
        "answer_step": beginning.answer_step,
        "answer": None,
        "notices": [],
    }
    if account.result is not None:
        document |= ended_run(account.result)
        document["status"] = run.status
    return {**document, "steps": [_step(step) for step in account.steps]}


def compared_runs(first: str, second: str) -> list[Json]:
    """Return how the steps of two runs compare.

    Raises:
        JournalError: If there is no such run, or its record cannot be read.
    """
    with Journal() as journal:
        one, other = journal.run(first), journal.run(second)
        found = compare(journal.events(one), journal.events(other))
    return [{"path": step.path, "verdict": step.verdict, "asked": list(step.asked)} for step in found]


def _row(run: KeptRun) -> Json:
    return {
        "number": run.number,
        "id": run.id,
        "pipeline": run.pipeline,
        "query": run.query or "",
        "status": run.status,
        "started": run.started,
        "ended": run.ended,
        "model": run.model,
        "calls": run.calls,
        "tokens": run.tokens,
        "error": run.error,
        "parent": run.parent,
        "forked_at": run.forked_at,
        "session": run.session,
        "can_go_on": run.can_go_on,
    }


def _plan(account: RunAccount) -> list[Json]:
    """Return the rows of the plan as it was; none where today's agents and pipelines do not allow it."""
    try:
        return plan_rows(RunBefore(account.run, account.beginning, ()).plan({}, shown_only=True).rows())
    except SynapticError:
        return []


def _step(step: StepAccount) -> Json:
    begun: Json = {"path": step.path, "status": "interrupted", "kind": "", "agent": None, "node": None}
    if step.started is not None:
        begun = {**started_step(step.started), "status": "interrupted"}
    if step.result is not None:
        begun |= ended_step(step.result)
    prompt = [{"role": message.role, "content": message.content} for message in step.messages]
    return {**begun, "text": step.said, "thinking": step.thought, "troubles": step.troubles, "prompt": prompt}
