"""Limits on calls at once, for several kinds of places together.

A call needs a place in every bucket that is limited: the run's, its pipelines', its model's, its node's. It gets all of
them at once or none, so that no call holds one place while it waits for another, and two calls never wait for each
other.

Of the calls that wait, the first one goes whose buckets all have room, in the order of
:mod:`synaptic.waiting.priority_queue`. The buckets of an impatient call keep their free places for it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final, TypeAlias

from synaptic.errors import PoolSaturated
from synaptic.models import name_key
from synaptic.runtime.policies.wrapper import BackendWrapper, as_generator
from synaptic.text import plural
from synaptic.waiting import PriorityQueue, QueueEntry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Iterator, Mapping

    from synaptic.backends import Backend
    from synaptic.messages import ChatRequest, Chunk

Places: TypeAlias = "tuple[tuple[Hashable, int], ...]"
"""The buckets in which a place is needed, each with how many places it has."""


_RECENT: Final = 0.2
"""How much the latest call counts in the mean of how long calls take."""


@dataclass(frozen=True, slots=True)
class WaitingBounds:
    """How many calls may wait for the same places, and how many seconds; ``None`` is for ever."""

    queue: int
    wait: float | None


class _Waiter(QueueEntry):
    __slots__ = ("granted",)

    def __init__(self, priority: int, rank: int) -> None:
        super().__init__(priority=priority, rank=rank)
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class _Queue(PriorityQueue[_Waiter]):
    """The calls that wait for the same places."""

    __slots__ = ("buckets", "places")

    def __init__(self, places: Places, numbers: Iterator[int]) -> None:
        super().__init__(numbers)
        self.places = places
        self.buckets = frozenset(bucket for bucket, _ in places)


class Slots:
    """Gives out places. A bucket without calls takes no memory."""

    def __init__(self) -> None:
        self._used: dict[Hashable, int] = {}
        self._queues: dict[Places, _Queue] = {}
        self._numbers = count(1)
        self._granting = False
        self._seconds: dict[Places, float] = {}

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return sum(len(queue) for queue in self._queues.values())

    def used(self, bucket: Hashable) -> int:
        """Return how many places of ``bucket`` are taken."""
        return self._used.get(bucket, 0)

    def take_at_once(self, places: Places) -> bool:
        """Take the places if they are free and no call waits; return whether that was so."""
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
        queue = self._queues.setdefault(places, _Queue(places, self._numbers))
        waiter = _Waiter(priority, rank)
        queue.add(waiter)
        self._grant()
        try:
            await waiter.granted
        except asyncio.CancelledError:
            if not waiter.granted.cancelled():
                self.release(places)
            elif waiter in queue:
                self._drop(queue, waiter, served=False)
                self._grant()  # the places that were kept for it may be free now
            raise

    async def admitted(self, places: Places, bounds: WaitingBounds, *, priority: int = 0, rank: int = 0) -> None:
        """Take places as :meth:`take` does, where not too many wait for them, and not for too long.

        Raises:
            PoolSaturated: If it is too many, or too long.
        """
        queue = self._queues.get(places)
        if queue is not None and len(queue) >= bounds.queue:
            raise self._saturated(places, f"{plural(len(queue), 'call')} waiting already")
        try:
            async with asyncio.timeout(bounds.wait):
                await self.take(places, priority=priority, rank=rank)
        except TimeoutError:
            raise self._saturated(places, f"there was no place within {bounds.wait:.0f} s") from None

    def took(self, places: Places, seconds: float) -> None:
        """Take note of how long a call took."""
        before = self._seconds.get(places, seconds)
        self._seconds[places] = before + _RECENT * (seconds - before)

    def _saturated(self, places: Places, said: str) -> PoolSaturated:
        named = ", ".join(f"{str(bucket).removeprefix('model:')} ({capacity} at once)" for bucket, capacity in places)
        ahead = len(self._queues.get(places, ())) + 1
        seconds = self._seconds.get(places, 1.0) * ahead / min(capacity for _, capacity in places)
        return PoolSaturated(f"{named}: {said}", estimated_wait=seconds, hint="ask again later")

    def release(self, places: Places) -> None:
        """Give the places back; the calls that may go now are woken in the next turn of the loop.

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
        """Grant places to all calls that may go."""
        while (found := self._next()) is not None:
            queue, waiter = found
            if waiter.granted.cancelled():
                self._drop(queue, waiter, served=False)
                continue
            self._take(queue.places)
            for other in self._queues.values():
                if other is not queue and not other.buckets.isdisjoint(queue.buckets):
                    other.overtaken_by(waiter)
            self._drop(queue, waiter, served=True)
            waiter.granted.set_result(None)

    def _next(self) -> tuple[_Queue, _Waiter] | None:
        """Return the call that goes next. An impatient queue without room keeps others from its buckets."""
        kept: set[Hashable] = set()
        for queue in self._in_order():
            if not kept.isdisjoint(queue.buckets):
                continue
            if self._have_room(queue.places):
                return queue, queue.next()
            if queue.is_impatient:
                kept |= queue.buckets
        return None

    def _in_order(self) -> Iterator[_Queue]:
        """Yield the queues, impatient ones first, among them the one whose oldest call came first."""
        queues = self._queues.values()
        if len(queues) == 1:
            yield from queues
            return
        yield from sorted((queue for queue in queues if queue.is_impatient), key=lambda queue: queue.oldest.arrival)
        yield from sorted((queue for queue in queues if not queue.is_impatient), key=lambda queue: queue.next().key)

    def _drop(self, queue: _Queue, waiter: _Waiter, *, served: bool) -> None:
        queue.remove(waiter, served=served)
        if not queue:
            del self._queues[queue.places]


class Limited(BackendWrapper):
    """Lets a call through once it has a place in every bucket that is limited.

    Args:
        inner: What is asked.
        slots: Gives out the places; one object for all that share a limit.
        places: Where every call needs a place.
        models: For each model that is limited, how many calls of it there may be at once. ``llama3`` and
            ``llama3:latest`` are one model.
        admission: Bounds on waiting; without them, calls wait as long as they must.
    """

    def __init__(
        self,
        inner: Backend,
        slots: Slots,
        places: Places = (),
        *,
        models: Mapping[str, int] | None = None,
        admission: WaitingBounds | None = None,
    ) -> None:
        super().__init__(inner)
        self._admission = admission
        self._slots = slots
        self._places = places
        self._models = {name_key(model): capacity for model, capacity in (models or {}).items()}

    def stream(self, request: ChatRequest) -> AsyncIterator[Chunk]:
        """Yield the reply once there is a place."""
        places = self._places
        if self._models and request.model is not None:
            model = name_key(request.model)
            if model in self._models:
                places = (*places, (f"model:{model}", self._models[model]))
        return self._placed(request, places) if places else self.inner.stream(request)

    async def _placed(self, request: ChatRequest, places: Places) -> AsyncGenerator[Chunk]:
        slots = self._slots
        if slots.take_at_once(places):
            pass
        elif self._admission is None:
            await slots.take(places, priority=request.priority, rank=request.rank)
        else:
            await slots.admitted(places, self._admission, priority=request.priority, rank=request.rank)
        begun = time.monotonic()
        try:
            chunks = as_generator(self.inner.stream(request))
            try:
                async for chunk in chunks:
                    yield chunk
            finally:
                await chunks.aclose()
        finally:
            if self._admission is not None:
                slots.took(places, time.monotonic() - begun)
            slots.release(places)
