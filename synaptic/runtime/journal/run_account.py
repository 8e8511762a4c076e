"""What a run did, step by step: what each was asked, what it said, and how it ended. A fold over its events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from synaptic.runtime.events import (
    RunFinished,
    StepAsked,
    StepContinued,
    StepFinished,
    StepRepaired,
    StepRetried,
    StepStarted,
    StepThinking,
    StepThought,
    TokenDelta,
)
from synaptic.runtime.step_paths import path_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from synaptic.messages import Message
    from synaptic.runtime.events import Event, RunResult, StepResult
    from synaptic.runtime.journal.bookends import Beginning
    from synaptic.runtime.journal.reader import KeptRun


@dataclass(slots=True)
class StepAccount:
    """One step of a run, as far as it came.

    Attributes:
        path: Of the step.
        result: How it ended; ``None`` where it did not.
        started: ``None`` for a step that never began.
        asked: What it asked a model, or a tool; ``None`` where it asked nothing.
        thought: What the model thought, also where that came as if it were the answer.
        said: Of a step that did not end, the text so far.
        troubles: Why it was tried again, repaired or continued, a line each.
    """

    path: str
    result: StepResult | None = None
    started: StepStarted | None = None
    asked: StepAsked | None = None
    thought: str = ""
    said: str = ""
    troubles: list[str] = field(default_factory=list)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The prompt."""
        return () if self.asked is None or self.asked.request is None else self.asked.request.messages


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAccount:
    """A whole run.

    Attributes:
        run: Its row in the list of runs.
        beginning: What it was begun with.
        steps: In the order in which they began, or ended without having begun.
        result: How it ended; ``None`` where it did not.
    """

    run: KeptRun
    beginning: Beginning
    steps: tuple[StepAccount, ...]
    result: RunResult | None


def account_of(
    run: KeptRun, beginning: Beginning, events: Iterable[Event], open_texts: Mapping[str, str]
) -> RunAccount:
    """Return the account of a run: of a step that ran more than once, the last time."""
    steps: dict[str, StepAccount] = {}
    result: RunResult | None = None
    for event in events:
        if isinstance(event, RunFinished):
            result = event.result
        elif isinstance(event, StepStarted):
            steps[event.path] = StepAccount(event.path, started=event)
        else:
            _note(steps, event)
    for path, text in open_texts.items():
        if path in steps:
            steps[path].said = text
    return RunAccount(run=run, beginning=beginning, steps=tuple(steps.values()), result=result)


def _note(steps: dict[str, StepAccount], event: Event) -> None:
    path = path_of(event)
    if path is None:
        return
    step = steps.setdefault(path, StepAccount(path))
    match event:
        case StepFinished():
            step.result, step.said = event.result, ""
        case StepAsked():
            step.asked = event
        case TokenDelta():
            step.said += event.text
        case StepThought():
            step.thought, step.said = step.thought + step.said, ""
        case StepThinking():
            step.thought += event.text
        case StepRetried():
            step.said = step.thought = ""
        case StepRepaired():
            step.said = ""
        case _:
            pass
    if trouble := trouble_of(event):
        step.troubles.append(trouble)


def trouble_of(event: Event) -> str:
    """Return why a step was tried again, repaired or continued, in words; "" where an event says nothing of that."""
    match event:
        case StepRetried():
            return f"tried again: {event.error}"
        case StepRepaired():
            return f"asked again: {event.reason}"
        case StepContinued():
            return f"went on at {event.node or 'another node'}: {event.reason}"
        case _:
            return ""
