"""One run as the page shows it while it is under way: a fold over its events."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from synaptic.messages import BackendNotice
from synaptic.runtime import (
    ApprovalAsked,
    ApprovalGiven,
    ApprovalRequest,
    BackendReported,
    RunFinished,
    StepContinued,
    StepFinished,
    StepRepaired,
    StepRetried,
    StepStarted,
    StepThinking,
    StepThought,
    TokenDelta,
    request_of,
    trouble_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synaptic.pipeline import Plan, PlannedStep
    from synaptic.runtime import Beginning, Event, KeptRun, RunResult, RunStarted, StepResult

Json = dict[str, Any]
LONGEST_TEXT: Final = 100_000
"""Characters of a step that are kept while it runs, its end; the journal has all."""


@dataclass(slots=True)
class LiveRun:
    """A run that is, or was just now, under way.

    Attributes:
        document: Of the run, without its steps. Its ``asks`` are what waits for a person.
        plan: ``None`` where today's agents do not allow it.
        elsewhere: Whether another process works on it.
        steps: By path.
        changed: Paths whose document is other than the page knows.
        pieces: What steps said that is not in their documents yet, by path and whether it is thinking: adding a piece
            costs nothing more, however long a text is.
        texts: What is in the documents, and the page has not got.
        tokens: Pieces of text so far.
        run_changed: Whether the document is other than the page knows.
    """

    id: str
    document: Json
    plan: Plan | None
    elsewhere: bool = False
    steps: dict[str, Json] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    pieces: dict[tuple[str, bool], list[str]] = field(default_factory=dict)
    texts: dict[tuple[str, bool], str] = field(default_factory=dict)
    tokens: int = 0
    run_changed: bool = False

    @classmethod
    def of(cls, event: RunStarted) -> LiveRun:
        """Return what there is at the beginning."""
        plan, descent = event.plan, event.descent
        document = {
            "id": event.run_id,
            "pipeline": plan.pipeline.name,
            "query": str(plan.inputs.get("query", "")),
            "status": "running",
            "started": event.at,
            "ended": None,
            "route": asdict(plan.route),
            "plan": plan_rows(plan.rows()),
            "answer_step": plan.answer_step,
            "parent": descent.parent,
            "forked_at": descent.forked_at,
            "session": descent.session,
            "answer": None,
            "error": None,
            "notices": [],
            "asks": [],
        }
        return cls(event.run_id, document, plan)

    @classmethod
    def of_another(cls, run: KeptRun, beginning: Beginning, plan: Plan | None) -> LiveRun:
        """Return what there is of a run that another process has begun; its events are yet to come."""
        live = cls(run.id, kept_document(run, beginning, plan), plan, elsewhere=True)
        live.stands(run)
        return live

    def stands(self, run: KeptRun) -> None:
        """Take note of how a run of another process stands in the record of runs."""
        goes = run.status in {"running", "waiting"}
        stands = {
            "status": run.status,
            "can_go_on": run.can_go_on,
            "process": run.owner.pid if run.at_work else None,
            "ended": None if goes else run.ended or self.document["ended"] or time.time(),
        }
        if stands != {name: self.document.get(name) for name in stands}:
            self.document |= stands
            self.run_changed = True

    def whole(self) -> Json:
        """Return the document with its steps."""
        self._gather()
        return {**self.document, "steps": list(self.steps.values())}

    def take(self, event: Event) -> bool:
        """Take an event; return whether the page is to be told something."""
        if isinstance(event, TokenDelta | StepThinking):  # most are
            self.tokens += not self.elsewhere  # whose pieces are others
            if event.path in self.steps:
                self.pieces.setdefault((event.path, isinstance(event, StepThinking)), []).append(event.text)
            return True
        self._gather()
        match event:
            case StepStarted():
                self.steps[event.path] = started_step(event)
                self.changed.add(event.path)
            case StepThought() if (step := self.steps.get(event.path)) is not None:
                step["thinking"], step["text"] = _end_of(step["thinking"] + step["text"]), ""
                self.changed.add(event.path)
            case StepRetried() | StepRepaired():
                self._trouble(event.path, trouble_of(event))
            case StepContinued():
                self._trouble(event.path, trouble_of(event), void=False, node=event.node)
            case ApprovalAsked():
                self._asks([asked_row(self._request(event))], event.path)
            case ApprovalGiven():
                self._asks([], event.path)
            case StepFinished():
                result = event.result
                self._asks([], result.id)
                self.steps[result.id] = {**self.steps.get(result.id, {}), **ended_step(result)}
                self.changed.add(result.id)
            case BackendReported() if isinstance(event.report, BackendNotice):
                self.document["notices"].append(event.report.message)
                self.run_changed = True
            case RunFinished():
                self.document |= {**ended_run(event.result), "asks": []}
                self.run_changed = True
            case _:
                return False
        return True

    def untold(self) -> Json:
        """Return what the page does not know yet; it counts as told then."""
        self._gather()
        changed, self.changed = self.changed, set()
        texts, self.texts = self.texts, {}
        told: Json = {
            "type": "change",
            "id": self.id,
            "steps": [self.steps[path] for path in changed],
            "texts": [
                {"path": path, "thinking": thinking, "text": text}
                for (path, thinking), text in texts.items()
                if path not in changed  # they are in its document
            ],
        }
        if self.run_changed:
            self.run_changed = False
            told["run"] = {key: value for key, value in self.document.items() if key != "plan"}
        return told

    def _gather(self) -> None:
        """Put the pieces into the documents of their steps."""
        gathered, self.pieces = self.pieces, {}
        for (path, thinking), pieces in gathered.items():
            step, name, text = self.steps[path], "thinking" if thinking else "text", "".join(pieces)
            step[name] = _end_of(step[name] + text)
            self.texts[path, thinking] = self.texts.get((path, thinking), "") + text

    def _request(self, asked: ApprovalAsked) -> ApprovalRequest:
        if self.plan is not None:
            return request_of(self.plan, asked)
        return ApprovalRequest(path=asked.path, what=asked.what, value=asked.value, question=asked.question)

    def _asks(self, now: list[Json], path: str) -> None:
        """Have a step ask what it asks now, in the place of what it asked before."""
        asks = [*(one for one in self.document["asks"] if one["path"] != path), *now]
        if asks != self.document["asks"]:
            self.document["asks"] = asks
            if not self.elsewhere:
                self.document["status"] = "waiting" if asks else "running"
            self.run_changed = True

    def _trouble(self, path: str, words: str, *, void: bool = True, node: str | None = None) -> None:
        step = self.steps.get(path)
        if step is None:
            return
        step["troubles"].append(words)
        if void:
            step["text"] = step["thinking"] = ""
        if node is not None:
            step["node"] = node
        self.changed.add(path)


def _end_of(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[-LONGEST_TEXT // 2 :]


def plan_rows(rows: Iterable[PlannedStep]) -> list[Json]:
    """Return the steps of a plan as the page draws them."""
    shown = ("id", "kind", "work", "what", "agent", "needs", "stage", "times", "model", "critical", "conditional")
    return [{name: data[name] for name in shown} for data in (row.data() for row in rows)]


def asked_row(request: ApprovalRequest) -> Json:
    """Return what a person is asked, with the schema of an answer that is no free text."""
    return {
        "path": request.path,
        "what": request.what,
        "question": request.question,
        "value": request.value,
        "schema": None if request.shape is None else request.shape.json_schema(),
    }


def kept_row(run: KeptRun) -> Json:
    """Return a recorded run as it is listed."""
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


def kept_document(run: KeptRun, beginning: Beginning, plan: Plan | None) -> Json:
    """Return what is known of a recorded run without its events."""
    return {
        **kept_row(run),
        "query": str(beginning.inputs.get("query", run.query or "")),
        "inputs": {name: value for name, value in beginning.inputs.items() if name != "query"},
        "route": asdict(beginning.route),
        "plan": [] if plan is None else plan_rows(plan.rows()),
        "answer_step": beginning.answer_step,
        "answer": None,
        "notices": [],
        "asks": [],
    }


def started_step(event: StepStarted) -> Json:
    """Return a step that has begun."""
    return {
        "path": event.path,
        "kind": event.kind,
        "agent": event.agent,
        "status": "running",
        "model": event.model,
        "backend": event.backend,
        "node": None,
        "started": event.at,
        "ended": None,
        "width": event.width,
        "text": "",
        "thinking": "",
        "troubles": [],
    }


def ended_step(result: StepResult) -> Json:
    """Return how a step ended."""
    return {
        "path": result.id,
        "kind": result.kind,
        "agent": result.agent,
        "status": result.status,
        "model": result.model,
        "backend": result.backend,
        "node": result.node,
        "started": result.started_at,
        "ended": result.ended_at,
        "first_token": result.first_token_seconds,
        "attempts": result.attempts,
        "prompt_tokens": result.usage.prompt_tokens,
        "completion_tokens": result.usage.completion_tokens,
        "output": result.output,
        "error": result.error,
        "stop_reason": result.stop_reason,
        "cached": result.cached,
        "reused": result.reused,
        "text": "",
    }


def ended_run(result: RunResult) -> Json:
    """Return how a run ended."""
    return {
        "status": result.status,
        "answer": result.answer,
        "stop_reason": result.stop_reason,
        "ended": result.ended_at,
        "prompt_tokens": result.usage.prompt_tokens,
        "completion_tokens": result.usage.completion_tokens,
        "error": None if result.error is None else getattr(result.error, "message", str(result.error)),
    }
