"""The turns of a conversation, and the forms in which they are passed on and saved. Nothing here does I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from synaptic import runtime
from synaptic.errors import UsageError
from synaptic.ui import actions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synaptic.messages import Message
    from synaptic.runtime import KeptStatus, KeptTurn
    from synaptic.ui.repl.slash_commands import Call

TurnStatus = Literal["answered", "stopped", "interrupted", "failed", "answering", "waiting"]
"""``answering``: another program is at it; ``waiting``: it asks a person."""

_REMARKS: dict[TurnStatus, str] = {
    "answered": "",
    "stopped": "stopped by its budget",
    "interrupted": "interrupted",
    "failed": "failed",
    "answering": "still being answered",
    "waiting": "waits for an answer",
}
_STATUS: Final[Mapping[KeptStatus, TurnStatus]] = {
    "succeeded": "answered",
    "stopped": "stopped",
    "failed": "failed",
    "cancelled": "interrupted",
    "interrupted": "interrupted",
    "damaged": "interrupted",
    "running": "answering",
    "waiting": "waiting",
}
_NOT_WHOLE: Final = frozenset({"interrupted", "answering", "waiting"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person asks.

    Attributes:
        question: The input ``query``; ``None`` where the pipeline takes none.
        pipeline: By name or file; ``None`` is the one that is set.
        documents: What the question is about.
        model: ``None`` is the one that is set.
        title: What stands for the question in the conversation, where there is none or it is longer.
        again: Whether it was asked in an earlier program: then all that it is about is there.
    """

    question: str | None
    pipeline: str | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    documents: Sequence[Mapping[str, str]] = ()
    model: str | None = None
    title: str = ""
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A question and what came of it.

    Attributes:
        answer: Complete, or what there was when the run was interrupted or failed; maybe "".
        at: When it was asked, in seconds since the epoch.
        asked: What was asked, so that it can be asked again.
        stands_for: The runs whose answers it replaced, the last one first: the record has those where it lacks this.
    """

    question: str
    answer: str
    status: TurnStatus
    pipeline: str
    run_id: str
    at: float
    error: str | None = None
    asked: Asked | None = None
    stands_for: tuple[str, ...] = ()

    @property
    def remark(self) -> str:
        """How it ended, if not well: ``interrupted``, ``failed: the reason``."""
        word = _REMARKS[self.status]
        return f"{word}: {self.error}" if word and self.error else word


class Conversation(list[Turn]):
    """What was asked and answered since the start, or since ``/clear``."""

    def messages(self) -> tuple[Message, ...]:
        """Return the turns that have an answer, as the next run is to know them; an unfinished one says so."""
        messages: list[Message] = []
        for turn in self:
            if turn.answer and turn.status != "failed":
                cut = turn.status in _NOT_WHOLE
                messages += runtime.turn_messages(turn.question, turn.answer, interrupted=cut)
        return tuple(messages)


def status_of(status: KeptStatus) -> TurnStatus:
    """Return how a turn stands whose run stands so."""
    return _STATUS[status]


def turn_of(kept: KeptTurn) -> Turn:
    """Return a turn of another program as one of this conversation."""
    return Turn(
        question=kept.question,
        answer=kept.answer,
        status=_STATUS[kept.status],
        pipeline=kept.pipeline,
        run_id=kept.run_id,
        at=kept.at,
        error=kept.error,
        asked=Asked(kept.query or None, kept.pipeline, kept.inputs, kept.documents, title=kept.question, again=True),
    )


def numbered_turn(call: Call, turns: Conversation, text: str) -> Turn:
    """Return the turn with a number, counted from 1.

    Raises:
        UsageError: If there is none.
    """
    if not turns:
        raise UsageError("nothing was asked yet")
    if not text.isdecimal() or not 1 <= int(text) <= len(turns):
        raise call.wrong(f"there is no turn {text!r}; there are {len(turns)}")
    return turns[int(text) - 1]


def as_markdown(turns: Sequence[Turn]) -> str:
    """Return the conversation as a Markdown document."""
    return actions.markdown_of((turn.question, turn.answer, turn.remark) for turn in turns)


def as_json(turns: Sequence[Turn]) -> str:
    """Return the conversation as a JSON document, with times in ISO 8601."""
    data = {
        "turns": [
            {
                "question": turn.question,
                "answer": turn.answer,
                "status": turn.status,
                "error": turn.error,
                "pipeline": turn.pipeline,
                "run_id": turn.run_id,
                "asked_at": datetime.fromtimestamp(turn.at, UTC).isoformat(),
            }
            for turn in turns
        ]
    }
    return json.dumps(data, ensure_ascii=False, indent=2) + "\n"
