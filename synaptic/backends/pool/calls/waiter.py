"""A call that waits for a node, and the place that it gets there: given back exactly once, whatever happens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from synaptic.waiting import QueueEntry

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from synaptic.backends.pool.node import CallShape, NodeState
    from synaptic.backends.pool.policy import Pick


@dataclass(slots=True, eq=False)
class Lease:
    """One claimed place.

    Attributes:
        model: What it was claimed for.
        end: When the call is expected to end, by the clock of the event loop.
        cold: Whether the model was expected to be loaded first.
        pick: Why this node.
    """

    node: NodeState
    model: str
    end: float
    cold: bool
    pick: Pick
    returned: Callable[[Lease], None]
    held: bool = True

    def release(self) -> None:
        """Give the place back; a second time does nothing."""
        if self.held:
            self.held = False
            self.node.release(self.model, self.end)
            self.returned(self)


class Waiter(QueueEntry):
    """One call in the queue, in the lane of its model. A call that a node has failed keeps its arrival.

    Attributes:
        shape: What the picker has to know of the call; changed when a node has failed it.
        tag: The step that the call belongs to.
        attempt: 1 for the first node that it is sent to.
        since: When it came, by the clock of the event loop.
        stranded_at: Since when no node could serve it at all; ``None`` while one could.
        granted: Set to the lease, or to the reason why there is none.
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
