"""What a recorded run waits for a person to say, and the decision that is recorded before it goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from synaptic.errors import NotApproved, UsageError
from synaptic.pipeline import every_step
from synaptic.runtime.approval import ApprovalRequest
from synaptic.runtime.events import ApprovalAsked, ApprovalGiven, RunStarted
from synaptic.runtime.step_paths import declared_path
from synaptic.text import did_you_mean
from synaptic.waiting import steady_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from synaptic.agents import Shape
    from synaptic.pipeline import Plan, Tool
    from synaptic.runtime.approval import Approver
    from synaptic.runtime.events import Event
    from synaptic.runtime.journal import KeptRun
    from synaptic.runtime.runs_before import RunBefore


def open_questions(events: Iterable[Event]) -> dict[str, ApprovalAsked]:
    """Return what was asked of a person and not decided yet, by path; what was refused is asked again."""
    found: dict[str, ApprovalAsked] = {}
    for event in events:
        if isinstance(event, ApprovalAsked):
            found[event.path] = event
        elif isinstance(event, ApprovalGiven) and event.decision != "refused":
            found.pop(event.path, None)
    return found


async def answered(
    before: RunBefore, path: str, decide: Approver, tools: Mapping[str, Tool]
) -> tuple[RunStarted, ApprovalGiven]:
    """Return what is recorded once the person has decided: the run goes on, and has the decision.

    Raises:
        UsageError: If the run asks nothing there.
        NotApproved: If the person refused.
        OutputInvalid: If the answer does not fit its shape.
    """
    questions = open_questions(before.events)
    asked = questions.get(path)
    if asked is None:
        what = f"the run {before.run.id} asks nothing at {path!r}"
        raise UsageError(what, hint=did_you_mean(path, questions) if questions else "it asks nothing at all")
    plan = before.plan(tools)
    request = request_of(plan, asked)
    given = await decide(request)
    value: Any = asked.value if given.decision == "accepted" else given.value
    if given.decision == "refused" or value is None:
        raise NotApproved(f"{path} was not answered")
    if given.decision == "edited":
        value = request.fitted(value)
    decision = ApprovalGiven(path, asked.what, given.decision, value, asked.key)
    return RunStarted(before.run.id, plan, steady_time(), before.beginning.descent), decision


def left_behind(before: RunBefore, path: str) -> KeptRun:
    """Return what a run is once its question at a path is answered: nobody works on it, and it waits for no answer."""
    waits = before.run.status == "waiting" and not open_questions(before.events).keys() - {path}
    return replace(before.run, status="interrupted") if waits else before.run


def request_of(plan: Plan, asked: ApprovalAsked) -> ApprovalRequest:
    """Return what a person was asked, with the shape that an answer has by the plan of the run."""
    shape = _shape(plan, asked)
    return ApprovalRequest(path=asked.path, what=asked.what, value=asked.value, shape=shape, question=asked.question)


def _shape(plan: Plan, asked: ApprovalAsked) -> Shape | None:
    """Return what the answer must fit; ``None`` is free text."""
    if asked.what == "prompt":
        return None
    step = dict(every_step(plan.compiled.graph)).get(declared_path(asked.path))
    if step is None:
        return None
    work = step.worker
    return getattr(work.work, "shape", None) if work.call is None else work.call.shape
