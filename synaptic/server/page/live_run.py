"""One run as the page shows it while it is under way: a fold over its events."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from synaptic.messages import BackendNotice
from synaptic.runtime import (
    ApprovalAsked,
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
    trouble_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synaptic.pipeline import PlannedStep
    from synaptic.runtime import Event, RunResult, RunStarted, StepResult

Json = dict[str, Any]
LONGEST_TEXT: Final = 100_000
"""Characters of a step that are kept while it runs, its end; the journal has all."""


@dataclass(slots=True)
class LiveRun:
    """A run that is, or was just now, under way.

    Attributes:
        document: Of the run, without its steps.
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
        }
        return cls(event.run_id, document)

    def whole(self) -> Json:
        """Return the document with its steps."""
        self._gather()
        return {**self.document, "steps": list(self.steps.values())}

    def take(self, event: Event) -> bool:
        """Take an event; return whether the page is to be told something."""
        if isinstance(event, TokenDelta | StepThinking):  # most are
            self.tokens += 1
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
                self._trouble(event.path, f"waits for a person: {event.question or event.what}", void=False)
            case StepFinished():
                result = event.result
                self.steps[result.id] = {**self.steps.get(result.id, {}), **ended_step(result)}
                self.changed.add(result.id)
            case BackendReported() if isinstance(event.report, BackendNotice):
                self.document["notices"].append(event.report.message)
                self.run_changed = True
            case RunFinished():
                self.document |= ended_run(event.result)
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
