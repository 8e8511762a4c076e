"""Deadlines of streams: for the first item, between two items, and for the whole of a call.

A deadline that has passed cancels the task that waits, as :func:`asyncio.timeout` does, and the wait raises the error
that fits. A cancellation from outside always wins: where both come in one turn of the loop, the task stays cancelled.

One timer serves all deadlines that share a :class:`Deadlines`. A wait notes when it began and sets no timer; the timer
looks at the waits when the earliest of them could be over. So a stream of a thousand tokens costs two timers.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from synaptic.errors import BackendError, CallTimeout, FirstTokenTimeout, IdleTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator

    from synaptic.messages import Timeouts

T = TypeVar("T")

LATE_SECONDS = 0.2
"""A timer that rings later than this was held up by our own loop: the server is not to blame for that silence, and
what has arrived meanwhile is read first."""

GRACE_SECONDS = 0.1
SHORTEST_SECONDS = 0.01


class Deadline:
    """Bounds the waits for one stream.

    Args:
        limits: The bounds.
        backend: For the errors.
        node: The same.
        source: What the stream comes from, for the errors' texts; "" leaves it out.
        end: When the whole call must have ended, by the clock of the event loop; ``None`` counts ``limits.total`` from
            now. A silence in which our own loop was held up is added to it.
        timers: Several streams that share one timer; ``None`` is a timer of its own.

    Attributes:
        begun: Whether the first item has come: from then on the idle limit holds.
        waiting: Whether a task waits for an item.
        since: When the current wait began.
    """

    __slots__ = (
        "_cancelling",
        "_error",
        "_loop",
        "_rang",
        "_task",
        "_timers",
        "backend",
        "begun",
        "end",
        "limits",
        "node",
        "since",
        "source",
        "waiting",
    )

    def __init__(
        self,
        limits: Timeouts,
        *,
        backend: str,
        node: str | None = None,
        source: str = "",
        end: float | None = None,
        timers: Deadlines[Any] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self.limits = limits
        self.backend = backend
        self.node = node
        self.source = source
        self.end = end if end is not None else inf if limits.total is None else now + limits.total
        self.begun = False
        self.waiting = False
        self.since = now
        self._timers: Deadlines[Any] = Deadlines() if timers is None else timers
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._error: BackendError | None = None
        self._rang = False
        self._timers.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def next(self, items: AsyncIterator[T]) -> T:
        """Return the next item.

        Raises:
            StopAsyncIteration: At the end.
            FirstTokenTimeout: If the first item did not come in time.
            IdleTimeout: If a later one did not.
            CallTimeout: If the whole call took too long.
            BackendError: If the call was given up; else what the stream raises.
        """
        item = await self.wait(items.__anext__)
        self.begun = True
        return item

    async def wait(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return the result of ``work``; a deadline that passes meanwhile cancels it.

        Raises:
            BackendError: As :meth:`next` does.
        """
        task = self.begin()
        try:
            result = await work()
        except BaseException as exc:
            self.failed(task, exc)
            raise
        self.done(task)
        return result

    def begin(self) -> asyncio.Task[Any]:
        """Note that the current task waits from now on, and return the task.

        Raises:
            BackendError: If the call was given up.
        """
        if self._error is not None:
            raise self._error
        task = asyncio.current_task(self._loop)
        assert task is not None, "runs in a task"
        self._task = task
        self._cancelling = task.cancelling()
        self.since = now = self._loop.time()
        self.waiting = True
        if not self.begun or now >= self.end or self._timers.timer is None:
            self._timers.ring_by(self.due(now))
        return task

    def done(self, task: asyncio.Task[Any]) -> None:
        """Note that the wait is over and brought something."""
        self.waiting = False
        if self._rang and self._was_ours(task):
            self._error = None  # the work took our cancellation for nothing, and came to its end

    def failed(self, task: asyncio.Task[Any], exc: BaseException) -> None:
        """Note that the wait ended with ``exc``.

        Raises:
            BackendError: What gave the wait up, if that is why it ended.
        """
        self.waiting = False
        if self._rang and self._was_ours(task) and isinstance(exc, asyncio.CancelledError):
            assert self._error is not None, "what gave the wait up"
            raise self._error from exc

    def give_up(self, error: BackendError) -> None:
        """Have the task that waits get ``error`` now, or when it asks for the next item."""
        if self._error is not None:
            return
        self._error = error
        if self.waiting and self._task is not None:
            self._rang = True
            self._task.cancel()

    def close(self) -> None:
        """Take it off its timer."""
        self._timers.remove(self)

    def due(self, now: float) -> float:
        """Return when to look at it again, if nothing comes."""
        if self._error is not None:
            return inf
        limit, idle = self._limit, self.limits.idle
        if not self.waiting:
            later = now + (inf if limit is None else max(limit, SHORTEST_SECONDS))
            return min(later, self.end) if now < self.end else later
        when = self.end if limit is None else min(self.end, self.since + limit)
        if not self.begun and idle is not None:  # the first item may come at any time, and sets no timer
            return min(when, now + max(idle, SHORTEST_SECONDS))
        return when

    def look(self, now: float) -> None:
        """Give up the wait if it is over."""
        if (error := self._late(now)) is not None:
            self.give_up(error)

    def held_up(self, now: float) -> None:
        """Count the silence from now: our own loop was held up, or there is a sign of work."""
        self.since = now

    @property
    def _limit(self) -> float | None:
        return self.limits.idle if self.begun else self.limits.first_token

    def _late(self, now: float) -> BackendError | None:
        where = {"backend": self.backend, "node": self.node}
        source = f" from {self.source}" if self.source else ""
        if now >= self.end:
            at = f" (at {self.source})" if self.source else ""
            text = f"the call took longer than {self.limits.total or 0:g} s{at}"
            return CallTimeout(text, hint="raise call_timeout, or set it to null", **where)
        limit = self._limit
        if limit is None or now < self.since + limit:
            return None
        if self.begun:
            text = f"the stream{source} stalled for {limit:g} s"
            return IdleTimeout(text, hint="raise idle_timeout, or set it to null", **where)
        hint = "a big model may still be loading: raise first_token_timeout, or set it to null"
        return FirstTokenTimeout(f"no token came{source} within {limit:g} s", hint=hint, **where)

    def _was_ours(self, task: asyncio.Task[Any]) -> bool:
        """Take our cancellation back; return whether there was none from outside."""
        self._rang = False
        return task.uncancel() <= self._cancelling


DeadlineT = TypeVar("DeadlineT", bound=Deadline)


class Deadlines(Generic[DeadlineT]):
    """The deadlines that share one timer.

    Attributes:
        timer: Rings when the earliest of them could be over; ``None`` where none is waited for.
    """

    def __init__(self) -> None:
        self._deadlines: set[DeadlineT] = set()
        self.timer: asyncio.TimerHandle | None = None

    def __iter__(self) -> Iterator[DeadlineT]:
        return iter(tuple(self._deadlines))

    def __len__(self) -> int:
        return len(self._deadlines)

    def add(self, deadline: DeadlineT) -> None:
        """Watch a deadline from its first wait on."""
        self._deadlines.add(deadline)

    def remove(self, deadline: DeadlineT) -> None:
        """Watch it no longer."""
        self._deadlines.discard(deadline)
        if not self._deadlines:
            self.stop()

    def stop(self) -> None:
        """Take the timer away."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def heard(self, *, generates: bool) -> None:
        """Count the silence before each first item from now, if what they all come from is reading a prompt.

        A server reads one long prompt after the other: the calls behind the first hear nothing of their own meanwhile.

        Args:
            generates: Whether it generates instead, which ends no wait of another call.
        """
        if generates:
            return
        now = asyncio.get_running_loop().time()
        for deadline in self._deadlines:
            if not deadline.begun:
                deadline.held_up(now)

    def ring_by(self, when: float) -> None:
        """Look at the deadlines at the time ``when``, if not before."""
        if when == inf or (self.timer is not None and self.timer.when() <= when):
            return
        if self.timer is not None:
            self.timer.cancel()
        self.timer = asyncio.get_running_loop().call_at(when, self._ring)

    def _ring(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        due = now if self.timer is None else self.timer.when()
        self.timer = None
        if now - due > LATE_SECONDS:
            for deadline in self._deadlines:
                deadline.end += now - deadline.since  # since then we may have been stopped: nobody knows how long
                deadline.held_up(now)
            self.timer = loop.call_at(now + GRACE_SECONDS, self._ring)
            return
        again = inf
        for deadline in self:
            if deadline.waiting:
                deadline.look(now)
            again = min(again, deadline.due(now))
        self.ring_by(again)


async def in_time(
    items: AsyncGenerator[T], limits: Timeouts, *, backend: str, timers: Deadlines[Any]
) -> AsyncGenerator[T]:
    """Yield the items of a stream, each within its limit, and close the stream at the end.

    Raises:
        BackendError: As :meth:`Deadline.next` does.
    """
    deadline = Deadline(limits, backend=backend, timers=timers)
    try:
        while True:
            task = deadline.begin()  # next() written out: every token of a run passes here
            try:
                item = await items.__anext__()
            except StopAsyncIteration:
                return
            except BaseException as exc:
                deadline.failed(task, exc)
                raise
            deadline.done(task)
            deadline.begun = True
            yield item
    finally:
        deadline.close()
        await items.aclose()
