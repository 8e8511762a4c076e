"""A person in the loop: what is asked, and what may be answered. How the person is asked is the caller's business."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

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
