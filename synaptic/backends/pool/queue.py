"""Calls that wait for a node: one queue, in the order in which they go.

The higher priority goes first; of equal ones the higher rank (calls that still follow one after the other in its run:
the critical path); of equal ones the earlier arrival. Nobody starves: who has waited longest and has been overtaken
:data:`PATIENCE` times by later arrivals goes next.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from synaptic.backends.pool.calls import Lease
    from synaptic.backends.pool.node import CallShape

PATIENCE = 32
"""How often the one who waits longest is overtaken: at most 3 % of the places are given out of order for its sake."""


class Waiter:
    """One call that wants a node.

    Attributes:
        shape: What the picker has to know of it; changed when a node has failed it.
        tag: The step that asks.
        attempt: 1 for the first node that it is sent to.
        since: When it came, by the clock of the event loop.
        arrival: How many had come when it came first; 0 before. It stays what it was when a node has failed the call.
        key: Its place in the order.
        stranded_at: Since when no node could serve it at all; ``None`` while one could.
        granted: Where it learns which node it got.

    """

    __slots__ = ("arrival", "attempt", "granted", "key", "shape", "since", "stranded_at", "tag", "timer")

    def __init__(self, shape: CallShape, *, priority: int = 0, rank: int = 0, tag: str = "", attempt: int = 1) -> None:
        self.shape = shape
        self.tag = tag
        self.attempt = attempt
        self.since = 0.0
        self.arrival = 0
        self.key = (-priority, -rank, 0)
        self.stranded_at: float | None = None
        self.granted: asyncio.Future[Lease] | None = None
        self.timer: asyncio.TimerHandle | None = None

    def __lt__(self, other: Waiter) -> bool:
        return self.key < other.key


class WaitingCalls:
    """The queue. It is a sorted list for each model: calls of one model stand or fall alike."""

    def __init__(self) -> None:
        self._lines: dict[str, list[Waiter]] = {}
        self._arrivals: OrderedDict[int, Waiter] = OrderedDict()
        self._count = 0
        self._overtaken = 0

    def __len__(self) -> int:
        return len(self._arrivals)

    def __iter__(self) -> Iterator[Waiter]:
        """Yield all that wait, in the order of arrival."""
        return iter(self._arrivals.values())

    def length(self, model: str) -> int:
        """Return how many wait for ``model``."""
        return len(self._lines.get(model, ()))

    def models(self) -> list[str]:
        """Return the models that somebody waits for."""
        return list(self._lines)

    def arrived(self, waiter: Waiter) -> None:
        """Take note of when a call came, whether it has to wait now or later, when a node has failed it."""
        if not waiter.arrival:
            self._count += 1
            waiter.arrival = self._count
            waiter.key = (*waiter.key[:2], self._count)

    def add(self, waiter: Waiter) -> None:
        """Put a call in its place: among equals, that of its first arrival."""
        self.arrived(waiter)
        insort(self._lines.setdefault(waiter.shape.model, []), waiter)
        latest = next(reversed(self._arrivals), 0)
        self._arrivals[waiter.arrival] = waiter
        if waiter.arrival < latest:
            self._arrivals = OrderedDict(sorted(self._arrivals.items()))

    def remove(self, waiter: Waiter, *, served: bool) -> None:
        """Take a call out: ``served`` tells whether it got a node, so that those who came before it were overtaken."""
        first = next(iter(self._arrivals.values()))
        if waiter is first:
            self._overtaken = 0
        elif served:
            self._overtaken += 1
        model = waiter.shape.model
        order = self._lines[model]
        del order[bisect_left(order, waiter)]
        if not order:
            del self._lines[model]
        del self._arrivals[waiter.arrival]

    def __contains__(self, waiter: Waiter) -> bool:
        return waiter.arrival in self._arrivals

    def in_order(self, most: int) -> Iterator[Waiter]:
        """Yield those who wait in the order in which they go, at most ``most`` of each model.

        The one whose patience is at an end comes first. The queue must not be changed meanwhile.
        """
        impatient = None
        if self._overtaken >= PATIENCE:
            impatient = next(iter(self._arrivals.values()))
            yield impatient
        orders = list(self._lines.values())
        if len(orders) == 1:
            for waiter in orders[0][:most]:
                if waiter is not impatient:
                    yield waiter
            return
        heads = [0] * len(orders)
        while True:
            best = -1
            for index, order in enumerate(orders):
                head = heads[index]
                if head < most and head < len(order) and (best < 0 or order[head] < orders[best][heads[best]]):
                    best = index
            if best < 0:
                return
            waiter = orders[best][heads[best]]
            heads[best] += 1
            if waiter is not impatient:
                yield waiter
