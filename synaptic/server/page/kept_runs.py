"""Recorded runs as the page shows them. The journal is read in threads, each time by a reader of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from synaptic.errors import SynapticError
from synaptic.runtime import Journal, KeptStatus, RunBefore, compare, open_questions, request_of
from synaptic.server.page.live_run import asked_row, ended_run, ended_step, kept_document, kept_row, started_step

if TYPE_CHECKING:
    from synaptic.pipeline import Plan
    from synaptic.runtime import Beginning, KeptRun, StepAccount

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
            "runs": [kept_row(run) for run in runs],
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
            {
                **kept_row(one.run),
                "found": {"step": one.path, "before": one.before, "text": one.text, "after": one.after},
            }
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
        run = journal.run(run_id)
        account = journal.account(run)
        asked = open_questions(journal.events(run)) if run.can_go_on else {}
    plan = plan_of(run, account.beginning)
    document = kept_document(run, account.beginning, plan)
    if account.result is not None:
        document |= ended_run(account.result)
        document["status"] = run.status
    if plan is not None:
        document["asks"] = [asked_row(request_of(plan, one)) for one in asked.values()]
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


def plan_of(run: KeptRun, beginning: Beginning) -> Plan | None:
    """Return the plan as it was; ``None`` where today's agents and pipelines do not allow it."""
    try:
        return RunBefore(run, beginning, ()).plan({}, shown_only=True)
    except SynapticError:
        return None


def _step(step: StepAccount) -> Json:
    begun: Json = {"path": step.path, "status": "interrupted", "kind": "", "agent": None, "node": None}
    if step.started is not None:
        begun = {**started_step(step.started), "status": "interrupted"}
    if step.result is not None:
        begun |= ended_step(step.result)
    prompt = [{"role": message.role, "content": message.content} for message in step.messages]
    return {**begun, "text": step.said, "thinking": step.thought, "troubles": step.troubles, "prompt": prompt}
