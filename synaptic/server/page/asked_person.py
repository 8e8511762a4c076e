"""The person who looks at the page, as a run asks them: a question stands there until it is answered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from synaptic.errors import OutputInvalid
from synaptic.server.gateway import BAD_REQUEST, NOT_FOUND, Refusal

if TYPE_CHECKING:
    from synaptic.runtime import Approval, ApprovalRequest


class AskedPerson:
    """Decides for one run what whoever looks at it decides.

    Args:
        decided: By the path of a step, what has been decided before it asks.

    Attributes:
        pipeline: Of the run, once it has begun.
    """

    def __init__(self, decided: dict[str, Approval] | None = None) -> None:
        self.pipeline = ""
        self._decided = decided or {}
        self._open: dict[str, tuple[ApprovalRequest, asyncio.Future[Approval]]] = {}

    async def __call__(self, request: ApprovalRequest) -> Approval:
        """Return the decision, however long that takes."""
        if (before := self._decided.pop(request.path, None)) is not None:
            return before
        decision: asyncio.Future[Approval] = asyncio.get_running_loop().create_future()
        self._open[request.path] = request, decision
        try:
            return await decision
        finally:
            del self._open[request.path]

    def decide(self, path: str, approval: Approval) -> None:
        """Answer what a step asks.

        Raises:
            Refusal: If it asks nothing, or that is no answer.
        """
        request, decision = self._open.get(path, (None, None))
        if request is None or decision is None or decision.done():
            raise Refusal(NOT_FOUND, f"the run asks nothing at {path!r}")
        check_answer(request, approval)
        decision.set_result(approval)


def check_answer(request: ApprovalRequest, approval: Approval) -> None:
    """Let an answer through that fits.

    Raises:
        Refusal: If it does not, or accepts what is not there.
    """
    if approval.decision == "accepted" and request.value is None:
        raise Refusal(BAD_REQUEST, f"{request.path} proposes nothing that could be accepted", field="decision")
    if approval.decision == "edited":
        try:
            request.fitted(approval.value)
        except OutputInvalid as exc:
            raise Refusal(BAD_REQUEST, exc.message, field="value") from exc
