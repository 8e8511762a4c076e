"""A person in the loop: what is asked, and what may be answered. How the person is asked is the caller's business."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from synaptic.errors import OutputInvalid

if TYPE_CHECKING:
    from synaptic.agents import Shape

Decision: TypeAlias = Literal["accepted", "edited", "refused"]
Subject: TypeAlias = Literal["prompt", "output", "answer"]
"""What a person decides on: a prompt before it is sent, an output before the run goes on, a question's answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRequest:
    """What a person is asked: to approve a step's prompt or output, or to answer its question.

    Attributes:
        path: The step's path.
        value: The prompt (text), or the output (text, or a value of ``shape``); of a question the answer that is
            proposed, ``None`` where there is none.
        shape: What an edited output, or an answer, must fit; ``None`` is free text.
        question: What is asked, where ``what`` is ``answer``.
        problem: What was wrong with the answer before this one; "" the first time.
    """

    path: str
    what: Subject
    value: Any
    shape: Shape | None = None
    question: str = ""
    problem: str = ""

    def fitted(self, value: Any) -> Any:
        """Return what a person wrote in the place of the value, as the run goes on with it.

        Raises:
            OutputInvalid: If it does not fit.
        """
        if self.shape is not None:
            try:
                return self.shape.validate(value)
            except OutputInvalid as exc:
                raise OutputInvalid(exc.message.replace("the reply", "the answer"), text=exc.text) from exc
        if self.what == "output" and not isinstance(self.value, str):
            return value
        if isinstance(value, str) and value.strip():
            return value.strip() if self.what == "answer" else value
        empty = isinstance(value, str)
        raise OutputInvalid("the answer is empty" if empty else f"the answer must be text, not {value!r}")


@dataclass(frozen=True, slots=True)
class Approval:
    """The decision: go on with the request's value (``accepted``), with another one (``edited``), or not at all.

    ``value`` is the other one; it is checked against the shape. The answer to a question is always an edited one,
    unless the proposed answer is accepted.
    """

    decision: Decision
    value: Any = None
    reason: str = ""


Approver: TypeAlias = Callable[[ApprovalRequest], Awaitable[Approval]]


async def approve_all(_: ApprovalRequest) -> Approval:
    """Accept everything: what ``--yes`` does."""
    return Approval("accepted")
