"""The turns of a conversation, and the forms in which they are passed on and saved. Nothing here does I/O."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from synaptic.messages import Message

TurnStatus = Literal["answered", "stopped", "interrupted", "failed"]

INTERRUPTED_MARK = "[the answer was interrupted here]"
_REMARKS: dict[TurnStatus, str] = {
    "answered": "",
    "stopped": "stopped by its budget",
    "interrupted": "interrupted",
    "failed": "failed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A question and what came of it.

    Attributes:
        answer: Complete, or what there was when the run was interrupted or failed; maybe "".
        at: When it was asked, in seconds since the epoch.

    """

    question: str
    answer: str
    status: TurnStatus
    pipeline: str
    run_id: str
    at: float
    error: str | None = None

    @property
    def remark(self) -> str:
        """How it ended, if not well: ``interrupted``, ``failed: the reason``."""
        word = _REMARKS[self.status]
        return f"{word}: {self.error}" if word and self.error else word


class Conversation(Sequence[Turn]):
    """What was asked and answered since the start, or since ``/clear``."""

    def __init__(self) -> None:
        self._turns: list[Turn] = []

    def __len__(self) -> int:
        return len(self._turns)

    def __getitem__(self, index: Any) -> Any:
        return self._turns[index]

    def __iter__(self) -> Iterator[Turn]:
        return iter(self._turns)

    def add(self, turn: Turn) -> None:
        """Append a turn."""
        self._turns.append(turn)

    def forget(self) -> None:
        """Remove every turn."""
        self._turns.clear()

    def messages(self) -> tuple[Message, ...]:
        """Return the turns that have an answer, as the next run is to know them; an unfinished one says so."""
        from synaptic.messages import Message  # noqa: PLC0415 - its classes take a twentieth of the start to make

        messages: list[Message] = []
        for turn in self._turns:
            if turn.answer and turn.status != "failed":
                mark = f"\n\n{INTERRUPTED_MARK}" if turn.status == "interrupted" else ""
                messages += [Message("user", turn.question), Message("assistant", turn.answer + mark)]
        return tuple(messages)


def as_markdown(turns: Sequence[Turn]) -> str:
    """Return the conversation as a Markdown document."""
    parts = ["# Conversation\n"]
    for turn in turns:
        question = "\n".join(f"> {line}".rstrip() for line in turn.question.splitlines())
        remark = f"*{turn.remark}*\n" if turn.remark else ""
        parts += [
            f"{question}\n",
            *([f"{turn.answer.strip()}\n"] if turn.answer else []),
            *([remark] if remark else []),
        ]
    return "\n".join(parts)


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
