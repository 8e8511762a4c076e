"""Who may call next: limits on calls at once, for several kinds of places together.

A call needs a place in every bucket that is limited: the run's, its pipelines', its model's, its node's. It gets all of
them at once or none, so that no call holds one place while it waits for another, and two calls never wait for each
other.

Of those who wait, the first in this order goes whose buckets all have room: the higher priority; of equal ones the
higher rank, which is the number of calls that still follow one after the other, so that the longest way to the end of
the run is never kept waiting by a side branch; of equal ones the earlier arrival.

Nobody starves: whoever has waited longest in its buckets and has been overtaken :data:`PATIENCE` times by later
arrivals that wanted a place in one of them goes next, and until then the free places of its buckets are kept for it.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections import OrderedDict
from typing import TYPE_CHECKING, TypeAlias

from synaptic.models import full_name
from synaptic.runtime.policies.wrapper import BackendWrapper, as_generator

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Iterator, Mapping

    from synaptic.backends import Backend
    from synaptic.messages import ChatRequest, Chunk

PATIENCE = 32
"""How often the one who waits longest is overtaken before it goes next: at most 3 % of the places are given out of the
order of priorities for its sake."""

Places: TypeAlias = "tuple[tuple[Hashable, int], ...]"
"""The buckets in which a place is wanted, each with how many places it has."""


class _Waiter:
    __slots__ = ("arrival", "granted", "key")

    def __init__(self, priority: int, rank: int, arrival: int) -> None:
        self.key = (-priority, -rank, arrival)
        self.arrival = arrival
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __lt__(self, other: _Waiter) -> bool:
        return self.key < other.key


class _Queue:
    """Those who wait for the same places, in the order in which they go and in the order in which they came."""

    __slots__ = ("arrivals", "buckets", "order", "overtaken", "places")

    def __init__(self, places: Places) -> None:
        self.places = places
        self.buckets = frozenset(bucket for bucket, _ in places)
        self.order: list[_Waiter] = []
        self.arrivals: OrderedDict[int, _Waiter] = OrderedDict()
        self.overtaken = 0

    @property
    def longest_waiting(self) -> _Waiter:
        return next(iter(self.arrivals.values()))

    @property
    def is_impatient(self) -> bool:
        return self.overtaken >= PATIENCE

    def add(self, waiter: _Waiter) -> None:
        insort(self.order, waiter)
        self.arrivals[waiter.arrival] = waiter

    def remove(self, waiter: _Waiter) -> None:
        if waiter is self.longest_waiting:
            self.overtaken = 0
        del self.order[bisect_left(self.order, waiter)]
        del self.arrivals[waiter.arrival]

    def next_waiter(self) -> _Waiter:
        return self.longest_waiting if self.is_impatient else self.order[0]


class Slots:
    """Gives out places. A bucket that nobody uses takes no memory."""

    def __init__(self) -> None:
        self._used: dict[Hashable, int] = {}
        self._queues: dict[Places, _Queue] = {}
        self._arrivals = 0
        self._granting = False

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(len(queue.order) for queue in self._queues.values())

    def used(self, bucket: Hashable) -> int:
        """Return how many places of ``bucket`` are taken."""
        return self._used.get(bucket, 0)

    def take_at_once(self, places: Places) -> bool:
        """Take the places if they are free and nobody waits; return whether that was so."""
        if self._queues or not self._have_room(places):
            return False
        self._take(places)
        return True

    async def take(self, places: Places, *, priority: int = 0, rank: int = 0) -> None:
        """Wait for a place in each of the buckets, and take them; :meth:`release` gives them back.

        A task that is cancelled while it waits takes nothing, also when a place was granted in the same turn.
        """
        if self.take_at_once(places):
            return
        queue = self._queues.setdefault(places, _Queue(places))
        self._arrivals += 1
        waiter = _Waiter(priority, rank, self._arrivals)
        queue.add(waiter)
        self._grant()
        try:
            await waiter.granted
        except asyncio.CancelledError:
            if not waiter.granted.cancelled():
                self.release(places)
            elif waiter.arrival in queue.arrivals:
                self._drop(queue, waiter)
                self._grant()  # the places that were kept for it may be free now
            raise

    def release(self, places: Places) -> None:
        """Give the places back; whoever may go now is woken in the next turn of the loop.

        Not in this one: the step that follows from the call that ends here has not asked yet, and it may well be the
        one with the longest way to the end of the run.
        """
        for bucket, _ in places:
            left = self._used[bucket] - 1
            if left:
                self._used[bucket] = left
            else:
                del self._used[bucket]
        if self._queues and not self._granting:
            self._granting = True
            asyncio.get_running_loop().call_soon(self._grant_now)

    def _grant_now(self) -> None:
        self._granting = False
        self._grant()

    def _have_room(self, places: Places) -> bool:
        used = self._used
        return all(used.get(bucket, 0) < capacity for bucket, capacity in places)

    def _take(self, places: Places) -> None:
        for bucket, _ in places:
            self._used[bucket] = self._used.get(bucket, 0) + 1

    def _grant(self) -> None:
        """Let everybody go who may."""
        while (found := self._next()) is not None:
            queue, waiter = found
            if waiter.granted.cancelled():
                self._drop(queue, waiter)
                continue
            self._take(queue.places)
            for other in self._queues.values():
                if other.longest_waiting.arrival < waiter.arrival and not other.buckets.isdisjoint(queue.buckets):
                    other.overtaken += 1
            self._drop(queue, waiter)
            waiter.granted.set_result(None)

    def _next(self) -> tuple[_Queue, _Waiter] | None:
        """Return who goes next. An impatient queue without room keeps others from the buckets that it waits for."""
        kept: set[Hashable] = set()
        for queue in self._in_order():
            if not kept.isdisjoint(queue.buckets):
                continue
            if self._have_room(queue.places):
                return queue, queue.next_waiter()
            if queue.is_impatient:
                kept |= queue.buckets
        return None

    def _in_order(self) -> Iterator[_Queue]:
        """Yield the queues, those with somebody impatient first: among them the one who came first."""
        queues = self._queues.values()
        if len(queues) == 1:
            yield from queues
            return
        yield from sorted(
            (queue for queue in queues if queue.is_impatient), key=lambda queue: queue.longest_waiting.arrival
        )
        yield from sorted((queue for queue in queues if not queue.is_impatient), key=lambda queue: queue.order[0].key)

    def _drop(self, queue: _Queue, waiter: _Waiter) -> None:
        queue.remove(waiter)
        if not queue.order:
            del self._queues[queue.places]


class Limited(BackendWrapper):
    """Lets a call through once it has a place in every bucket that is limited.

    Args:
        inner: What is asked.
        slots: Gives out the places; one object for all that share a limit.
        places: Where every call needs a place.
        models: For each model that is limited, how many calls of it there may be at once. ``llama3`` and
            ``llama3:latest`` are one model.

    """

    def __init__(
        self, inner: Backend, slots: Slots, places: Places = (), *, models: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(inner)
        self._slots = slots
        self._places = places
        self._models = {full_name(model): capacity for model, capacity in (models or {}).items()}

    def stream(self, request: ChatRequest) -> AsyncIterator[Chunk]:
        """Yield the reply once there is a place."""
        places = self._places
        if self._models and request.model is not None:
            model = full_name(request.model)
            if model in self._models:
                places = (*places, (f"model:{model}", self._models[model]))
        return self._placed(request, places) if places else self.inner.stream(request)

    async def _placed(self, request: ChatRequest, places: Places) -> AsyncGenerator[Chunk]:
        slots = self._slots
        if not slots.take_at_once(places):
            await slots.take(places, priority=request.priority, rank=request.rank)
        try:
            chunks = as_generator(self.inner.stream(request))
            try:
                async for chunk in chunks:
                    yield chunk
            finally:
                await chunks.aclose()
        finally:
            slots.release(places)
