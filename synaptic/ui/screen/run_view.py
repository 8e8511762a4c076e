"""What is known of a run while it goes on: events in, rows out. Nothing here draws."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Literal

from synaptic.pipeline import present
from synaptic.runtime import (
    ApprovalAsked,
    ApprovalGiven,
    PromptShortened,
    RunFinished,
    RunStarted,
    StepAsked,
    StepContinued,
    StepFinished,
    StepRepaired,
    StepRetried,
    StepStarted,
    StepThought,
    TokenDelta,
    declared_path,
)
from synaptic.text import one_line, plural
from synaptic.waiting import steady_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from synaptic.messages import Route
    from synaptic.pipeline import LongInput, PlannedStep
    from synaptic.runtime import ConversationShortened, Event, RunResult, StepResult

StepState = Literal[
    "waiting", "running", "answering", "asking", "succeeded", "failed", "skipped", "cancelled", "cut off", "not reached"
]
"""``cut off`` is what the run itself cancelled, for a reason that it says; ``cancelled``, what was from outside."""

ACTIVE: Final = frozenset({"running", "answering", "asking"})
CALLING: Final = frozenset({"agent", "choose"})
"""Kinds of steps that call a model themselves."""

_SKIP_REASONS: Final = {"when": "its condition is false"}


@dataclass(slots=True)
class StepView:
    """One row: a step, an instance of a map, a sample, or a step inside a round of a loop or a sub-pipeline.

    Attributes:
        what: The agent, tool or sub-pipeline that is called.
        tokens: Pieces of text so far; what the server counted, once it has said so.
        started: Seconds since the epoch, as every time here.
        generation_seconds: How long its tokens came, where that was measured.
        width: How many instances a map has, how many samples are taken, how many rounds a loop may have (they count
            from one).
        question: What a person is asked, or was asked last.
        note: What else is to be said now: a retry, an error.
        remarks: What stays worth a word when the step has ended.
    """

    path: str
    kind: str = "agent"
    what: str = ""
    where: str = ""
    state: StepState = "waiting"
    tokens: int = 0
    prompt_tokens: int = 0
    started: float | None = None
    first_token: float | None = None
    ended: float | None = None
    generation_seconds: float | None = None
    width: int | None = None
    note: str = ""
    question: str = ""
    remarks: list[str] = field(default_factory=list)
    children: dict[str, StepView] = field(default_factory=dict)

    @property
    def total_tokens(self) -> int:
        """Its own tokens and those of its children."""
        return self.tokens + sum(child.total_tokens for child in self.children.values())

    def elapsed(self, now: float) -> float | None:
        """Return the seconds since it began, or that it took; ``None`` where it has not begun."""
        if self.started is None:
            return None
        return max((self.ended or now) - self.started, 0.0)

    def rate(self, now: float) -> float | None:
        """Return tokens per second since the first one; ``None`` where there is nothing to measure."""
        span = self.generation_seconds
        if span is None and self.first_token is not None:
            span = (self.ended or now) - self.first_token
        return self.tokens / span if span and self.tokens > 1 else None

    def count(self) -> str:
        """Return how far a map, samples or a loop are: ``2/3``, ``round 2``; "" for a single call.

        Of a map whose list is still being written, it is of the items so far.
        """
        if self.kind in {"map", "samples"}:
            instances = [child for path, child in self.children.items() if path.startswith(f"{self.path}[")]
            if self.width is None and not instances:
                return ""
            width = len(instances) if self.width is None else self.width
            return f"{sum(child.state not in ACTIVE for child in instances)}/{width}"
        if self.kind == "repeat" and self.children:
            latest = max(_round(path, self.path) for path in self.children)
            return f"round {latest}" if self.width is None else f"round {latest}/{self.width}"
        return ""


def decided(event: ApprovalGiven) -> str:
    """Return what a person has decided: ``prompt edited``, ``answered``."""
    if event.what != "answer":
        return f"{event.what} {event.decision}"
    return {"accepted": "answered with the default", "edited": "answered", "refused": "not answered"}[event.decision]


class RunView:
    """The rows of one run, kept up to date by its events."""

    def __init__(self) -> None:
        self.steps: dict[str, StepView] = {}
        self.answer_step: str | None = None
        self.pipeline = ""
        self.route: Route | None = None
        self._after: Mapping[str, Sequence[str]] = {}
        self._all: dict[str, StepView] = {}
        self._planned: dict[str, PlannedStep] = {}

    def apply(self, event: Event) -> None:
        """Take note of ``event``. A :class:`TokenDelta` costs two look-ups and an addition."""
        if type(event) is TokenDelta:
            self._token(event.path)
        elif isinstance(event, RunStarted):
            self._begin(event)
        elif isinstance(event, StepStarted):
            self._start(event)
        elif isinstance(event, StepRetried):
            self._anew(event.path, f"{retry(event)}: {one_line(event.error)}")
        elif isinstance(event, StepContinued | PromptShortened | StepAsked):
            self.get(event.path).remarks += remarks(event)
        elif isinstance(event, StepRepaired | StepThought):
            self._anew(event.path, "" if isinstance(event, StepThought) else f"asked again: {one_line(event.reason)}")
        elif isinstance(event, ApprovalAsked):
            step = self.get(event.path)
            step.state, step.question = "asking", event.question
        elif isinstance(event, ApprovalGiven):
            self._approve(event)
        elif isinstance(event, StepFinished):
            self._finish(event.result)
        elif isinstance(event, RunFinished):
            self._end(event.result.ended_at)

    def get(self, path: str) -> StepView:
        """Return the row of ``path``, a new one below its parent where there is none."""
        step = self._all.get(path)
        if step is None:
            above = self._above(path)
            step = self._all[path] = StepView(path)
            planned = self._planned.get(declared_path(path))
            step.what = planned.what if planned else ""
            siblings = self.steps if above is None else self.get(above).children
            siblings[path] = step
        return step

    def findings(self, result: RunResult) -> list[tuple[str, str]]:
        """Return, of a run without an answer, what the last steps have that got anywhere: their paths and texts."""
        if result.status == "succeeded" or result.text:
            return []
        ended = {step.id: step for step in result.steps if step.status in {"succeeded", "cancelled"}}
        texts = {path: present(ended[path].output) for path in self._after if path in ended}
        found = {path: text for path, text in texts.items() if text}
        return [(path, text) for path, text in found.items() if not any(later in found for later in self._after[path])]

    def _above(self, path: str) -> str | None:
        """Return the path of the row below which a new one belongs: the nearest that is there, else its parent."""
        above = path
        while above:
            above = above[: above.rindex("[")] if above.endswith("]") else above.rpartition(".")[0]
            if above in self._all:
                return above
        return parent(path)

    def _begin(self, event: RunStarted) -> None:
        plan = event.plan
        self.pipeline, self.route, self.answer_step = plan.pipeline.name, plan.route, plan.answer_step
        self._after = plan.compiled.graph.dependents
        rows = plan.rows()
        self._planned = {row.path: row for row in rows}
        for row in rows:
            if row.depth == 0:
                step = self.get(row.path)
                step.kind, step.where = row.kind, planned_place(row)

    def _start(self, event: StepStarted) -> None:
        step = self.get(event.path)
        step.kind, step.what, step.width = event.kind, event.agent or step.what, event.width
        step.state, step.started = "running", event.at
        step.where = place(event.backend, event.model, None) if event.kind in CALLING else ""

    def _end(self, at: float) -> None:
        for step in self._all.values():
            if step.state in ACTIVE:
                step.state, step.ended = "cancelled", at
            elif step.state == "waiting":
                step.state = "not reached"

    def _token(self, path: str) -> None:
        step = self._all.get(path) or self.get(path)
        if step.tokens == 0:
            step.first_token = steady_time()
            step.state = "answering" if path == self.answer_step else "running"
        step.tokens += 1

    def _anew(self, path: str, note: str) -> None:
        step = self.get(path)
        step.tokens, step.first_token, step.note = 0, None, note

    def _approve(self, event: ApprovalGiven) -> None:
        step = self.get(event.path)
        step.state = "running"
        if event.decision != "accepted" or event.what == "answer":
            step.remarks.append(decided(event))

    def _finish(self, result: StepResult) -> None:
        step = self.get(result.id)
        step.kind, step.what, step.state = result.kind, result.agent or step.what, result.status
        if result.status == "cancelled" and result.stop_reason:
            step.state = "cut off"
        step.started, step.ended = result.started_at or step.started, result.ended_at
        ending = one_line(result.error or "") or _remark(result)
        step.note = ", ".join([*step.remarks, *([ending] if ending else [])])
        if result.kind not in CALLING:
            return
        if result.backend is not None:
            step.where = place(result.backend, result.model, result.node)
        step.tokens = result.usage.completion_tokens or step.tokens
        step.prompt_tokens = result.usage.prompt_tokens
        span = generated(result)
        step.generation_seconds = None if span is None else span[1] - span[0]
        if result.first_token_seconds is not None and step.started is not None:
            step.first_token = step.started + result.first_token_seconds


def parent(path: str) -> str | None:
    """Return the path of the map or loop that a path belongs to; ``None`` at the top.

    ``research[2]`` belongs to ``research``, ``refine[1].judge`` to ``refine``.
    """
    if path.endswith("]"):
        return path[: path.rindex("[")]
    above, dot, _ = path.rpartition(".")
    return above[: above.rindex("[")] if dot and above.endswith("]") else above or None


def place(backend: str | None, model: str | None, node: str | None) -> str:
    """Return where a call runs: ``ollama/llama3.1:8b@desk:11434``."""
    where = "/".join(part for part in (backend, model) if part)
    address = (node or "").removeprefix("http://")
    return f"{where}@{address}" if address and address != backend else where


def planned_place(row: PlannedStep) -> str:
    """Return where a planned step would run; "" for a step that calls no model itself."""
    return place(row.backend, row.model, row.node) if row.kind in CALLING else ""


def retry(event: StepRetried) -> str:
    """Return what happens after a failed call: ``attempt 2``, ``asking llama3 instead``."""
    return f"asking {event.model} instead" if event.model else f"attempt {event.attempt}"


def continuation(event: StepContinued) -> str:
    """Return ``goes on at desk: laptop closed the connection``."""
    return f"goes on at {event.node or 'another node'}: {one_line(event.reason)}"


def shortening(event: PromptShortened) -> str:
    """Return ``prompt shortened from 9000 to 3500 tokens (truncate_oldest)``."""
    if event.how == "server":
        return f"the server cut the prompt to {event.tokens_after} tokens"
    return f"prompt shortened from {event.tokens_before} to {event.tokens_after} tokens ({event.how})"


def fewer_turns(event: ConversationShortened) -> str:
    """Return ``of 12 earlier turns, the last 5 fit beside the question, 2 of them with their beginnings``."""
    if not event.kept:
        return f"the question leaves no room for the {plural(event.turns, 'earlier turn')}"
    which = f"the last {event.kept} fit" if event.kept < event.turns else "all fit"
    if event.turns == 1:
        return "the earlier turn is passed on with its beginning only"
    cut = f", {event.cut} of them with their beginnings only" if event.cut else ""
    return f"of {event.turns} earlier turns, {which} beside the question{cut}"


def remarks(event: StepContinued | PromptShortened | StepAsked) -> list[str]:
    """Return what is worth a word of what happened to a step."""
    match event:
        case StepContinued():
            return [continuation(event)]
        case PromptShortened():
            return [shortening(event)]
        case StepAsked():
            return [f"another {', '.join(event.changed)}"] if event.changed else []


def divided(long: LongInput) -> str:
    """Return ``query is 52341 tokens and the context is 8192: it is read in 16 parts, …``."""
    about = "" if long.exact else "about "
    return (
        f"{long.name} is {about}{long.tokens} tokens and the context is {long.context}: it is read in "
        f"{plural(long.parts, 'part')}, and the steps get notes of them ({long.longer} to have more read as a whole)"
    )


def _round(path: str, loop: str) -> int:
    """Return the number of the round in ``refine[1].judge``; 0 where there is none."""
    digits = path[len(loop) + 1 :].partition("]")[0]
    return int(digits) if digits.isdigit() else 0


def _remark(result: StepResult) -> str:
    """Return what is worth a word about a step that did not fail."""
    words = [f"chose {result.output}"] if result.kind == "choose" and result.status == "succeeded" else []
    words += [f"{result.attempts} attempts"] if result.attempts > 1 else []
    words += ["cached"] if result.cached else []
    words += ["from the journal"] if result.reused else []
    if result.status in {"skipped", "cancelled"} and result.stop_reason:
        words.append(_SKIP_REASONS.get(result.stop_reason, result.stop_reason))
    if result.kind in {"map", "pipeline"} and result.status == "succeeded" and result.stop_reason:
        words.append(result.stop_reason)
    if result.stop_reason == "length":
        words.append("cut at its token limit")
    return ", ".join(words)


def generated(result: StepResult) -> tuple[float, float] | None:
    """Return from when to when a call's tokens came: as long as its server says, else since the first one.

    Of a call that was sent again, the whole time: what was measured is of the last.
    """
    began, ended = result.started_at, result.ended_at
    if began is None or ended is None:
        return None
    if result.attempts > 1:
        return began, ended
    if result.timings.generation_seconds is not None:
        return ended - result.timings.generation_seconds, ended
    return None if result.first_token_seconds is None else (began + result.first_token_seconds, ended)


def whole_rate(results: Iterable[StepResult]) -> float | None:
    """Return tokens per second while at least one of the calls generated; ``None`` where nothing was measured."""
    tokens, seconds, until = 0, 0.0, -inf
    counted = [(span, one) for one in results if one.kind in CALLING and (span := generated(one)) is not None]
    for (began, ended), result in sorted(counted, key=itemgetter(0)):
        if count := result.usage.completion_tokens:
            tokens += count
            seconds += max(0.0, ended - max(began, until))
            until = max(until, ended)
    return tokens / seconds if seconds and tokens > 1 else None
