"""A person in the loop: what is asked, and what may be answered. Who asks the person is the caller's business."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from synaptic.agents import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRequest:
    """A step's prompt before it is sent, or its output before the run goes on with it.

    Attributes:
        path: The step's path.
        value: The prompt (text), or the output (text, or a value of ``shape``).
        shape: What an edited output must fit; ``None`` is free text.

    """

    path: str
    what: Literal["prompt", "output"]
    value: Any
    shape: Shape | None = None


@dataclass(frozen=True, slots=True)
class Approval:
    """The decision. ``value`` replaces the prompt or output where ``edited``; it is checked against the shape."""

    decision: Literal["accepted", "edited", "refused"]
    value: Any = None
    reason: str = ""


Approver: TypeAlias = Callable[[ApprovalRequest], Awaitable[Approval]]


async def approve_all(_: ApprovalRequest) -> Approval:
    """Accept everything: what ``--yes`` does."""
    return Approval("accepted")
