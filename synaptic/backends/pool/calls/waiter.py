"""A call that waits for a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synaptic.waiting import QueueEntry

if TYPE_CHECKING:
    import asyncio

    from synaptic.backends.pool.calls.lease import Lease
    from synaptic.backends.pool.node import CallShape


class Waiter(QueueEntry):
    """One call in the queue, in the lane of its model. A call that a node has failed keeps its arrival.

    Attributes:
        shape: What the picker has to know of the call; changed when a node has failed it.
        tag: The step that the call belongs to.
        attempt: 1 for the first node that it is sent to.
        since: When it came, by the clock of the event loop.
        stranded_at: Since when no node could serve it at all; ``None`` while one could.
        granted: Set to the lease, or to the reason why there is none.
        timer: Bounds the wait.

    """

    __slots__ = ("attempt", "granted", "shape", "since", "stranded_at", "tag", "timer")

    def __init__(self, shape: CallShape, *, priority: int = 0, rank: int = 0, tag: str = "", attempt: int = 1) -> None:
        super().__init__(priority=priority, rank=rank, lane=shape.model)
        self.shape = shape
        self.tag = tag
        self.attempt = attempt
        self.since = 0.0
        self.stranded_at: float | None = None
        self.granted: asyncio.Future[Lease] | None = None
        self.timer: asyncio.TimerHandle | None = None
