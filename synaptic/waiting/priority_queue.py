"""A priority queue with ageing.

The higher priority goes first; of equal ones the higher rank (calls that still follow one after the other in the run:
the critical path, so that a side branch never keeps the longest way to the end waiting); of equal ones the earlier
arrival. No entry starves: the one that has waited longest and was overtaken :data:`PATIENCE` times by later arrivals
goes next.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from itertools import count
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 32
"""How often the oldest entry is overtaken before it goes next: at most 3 % of the places are given out of the order of
priorities for its sake."""


class QueueEntry:
    """What waits.

    Attributes:
        lane: Entries of one lane stand or fall alike; see :meth:`PriorityQueue.in_order`.
        arrival: The number that it got when it first came; 0 before. It keeps it when it comes again.
        key: Its place in the order.
    """

    __slots__ = ("arrival", "key", "lane")

    def __init__(self, *, priority: int = 0, rank: int = 0, lane: str = "") -> None:
        self.lane = lane
        self.arrival = 0
        self.key = (-priority, -rank, 0)

    def __lt__(self, other: QueueEntry) -> bool:
        return self.key < other.key


EntryT = TypeVar("EntryT", bound=QueueEntry)


class PriorityQueue(Generic[EntryT]):
    """The queue: a sorted list for each lane, and the order of arrival over all of them.

    Args:
        numbers: Numbers the arrivals, from 1; queues that overtake each other share it.
    """

    __slots__ = ("_arrivals", "_lanes", "_numbers", "_overtaken")

    def __init__(self, numbers: Iterator[int] | None = None) -> None:
        self._numbers = count(1) if numbers is None else numbers
        self._lanes: dict[str, list[EntryT]] = {}
        self._arrivals: OrderedDict[int, EntryT] = OrderedDict()
        self._overtaken = 0

    def __len__(self) -> int:
        return len(self._arrivals)

    def __iter__(self) -> Iterator[EntryT]:
        """Yield all entries in the order of arrival."""
        return iter(self._arrivals.values())

    def __contains__(self, entry: EntryT) -> bool:
        return entry.arrival in self._arrivals

    def length(self, lane: str) -> int:
        """Return how many entries wait in ``lane``."""
        return len(self._lanes.get(lane, ()))

    def lanes(self) -> list[str]:
        """Return the lanes in which entries wait."""
        return list(self._lanes)

    @property
    def oldest(self) -> EntryT:
        """The entry that came first."""
        return next(iter(self._arrivals.values()))

    @property
    def is_impatient(self) -> bool:
        """Whether the oldest entry was overtaken so often that it goes next."""
        return self._overtaken >= PATIENCE

    def arrived(self, entry: EntryT) -> None:
        """Number an entry that comes for the first time; it may be added later, or never."""
        if not entry.arrival:
            entry.arrival = next(self._numbers)
            entry.key = (*entry.key[:2], entry.arrival)

    def add(self, entry: EntryT) -> None:
        """Put an entry in its place: among equals, that of its first arrival."""
        self.arrived(entry)
        insort(self._lanes.setdefault(entry.lane, []), entry)
        latest = next(reversed(self._arrivals), 0)
        self._arrivals[entry.arrival] = entry
        if entry.arrival < latest:
            self._arrivals = OrderedDict(sorted(self._arrivals.items()))

    def remove(self, entry: EntryT, *, served: bool) -> None:
        """Take an entry out.

        Args:
            entry: One that waits here.
            served: Whether it got what it waited for, so that those that came before it were overtaken.
        """
        if entry is self.oldest:
            self._overtaken = 0
        elif served:
            self._overtaken += 1
        order = self._lanes[entry.lane]
        del order[bisect_left(order, entry)]
        if not order:
            del self._lanes[entry.lane]
        del self._arrivals[entry.arrival]

    def overtaken_by(self, entry: QueueEntry) -> None:
        """Note that an entry of another queue was served with what the entries here wait for, too."""
        if self.oldest.arrival < entry.arrival:
            self._overtaken += 1

    def next(self) -> EntryT:
        """Return the entry that goes next."""
        return self.oldest if self.is_impatient else min(order[0] for order in self._lanes.values())

    def in_order(self, most: int) -> Iterator[EntryT]:
        """Yield the entries in the order in which they go, at most ``most`` of each lane.

        An impatient one comes first. The queue must not be changed meanwhile.
        """
        impatient = None
        if self.is_impatient:
            impatient = self.oldest
            yield impatient
        orders = list(self._lanes.values())
        if len(orders) == 1:
            for entry in orders[0][:most]:
                if entry is not impatient:
                    yield entry
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
            entry = orders[best][heads[best]]
            heads[best] += 1
            if entry is not impatient:
                yield entry
