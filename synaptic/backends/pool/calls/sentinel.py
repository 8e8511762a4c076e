"""Silent calls: who bounds them, and who asks whether their node still lives. One timer serves all calls of a pool.

A node that is stopped or has lost its network still has its connections: nothing arrives, and nothing fails. So a call
that has been silent for longer than is usual makes the pool ask its node for its version, off the call's own
connection. A node that answers is merely slow and goes on, up to the call's own timeouts; one that does not is down,
and its silent calls go elsewhere.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from synaptic.errors import BackendError, BackendUnavailable, CallTimeout, FirstTokenTimeout, IdleTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from synaptic.backends.pool.node import Member
    from synaptic.messages import Chunk, Timeouts

NEVER = float("inf")
SUSPICIOUS_SILENCE = 2.0
"""Seconds without a token after which a node is asked whether it lives; more where its first token takes long."""

LATE_SECONDS = 0.2
"""A timer that rings later than this was held up by our own loop: that was nobody's silence, and what has arrived
meanwhile is read first."""

GRACE_SECONDS = 0.1
ABANDONED_SILENCE = 1.0
"""Of a node that is down, the calls are given up that have had nothing from it for as long."""


class Flight:
    """One call that a node has, while it waits for the next chunk.

    Attributes:
        since: When the current silence began, by the clock of the event loop.
        end: When the whole call must have ended.
    """

    __slots__ = (
        "_cancelling",
        "_error",
        "_rang",
        "_task",
        "begun",
        "end",
        "limits",
        "member",
        "patience",
        "since",
        "suspect_at",
        "waiting",
    )

    def __init__(self, member: Member, limits: Timeouts, *, now: float, end: float | None, patience: float) -> None:
        self.member = member
        self.limits = limits
        self.since = now
        self.end = NEVER if end is None else end
        self.patience = patience
        self.suspect_at = now + patience
        self.begun = False
        self.waiting = False
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._error: BackendError | None = None
        self._rang = False

    async def next(self, chunks: AsyncIterator[Chunk]) -> Chunk:
        """Return the next chunk.

        Raises:
            StopAsyncIteration: At the end.
            BackendError: If the call was given up meanwhile; else what the stream raises.

        """
        if self._error is not None:
            raise self._error
        loop = asyncio.get_running_loop()
        self._task = task = asyncio.current_task()
        assert task is not None, "runs in a task"
        self._cancelling = task.cancelling()
        self.since = loop.time()
        self.suspect_at = self.since + self.patience
        self.waiting = True
        cancelled = False
        try:
            return await anext(chunks)
        except asyncio.CancelledError:
            cancelled = True
            raise
        finally:
            self.waiting = False
            if self._rang:
                self._rang = False
                if task.uncancel() <= self._cancelling and cancelled and self._error is not None:
                    raise self._error

    def give_up(self, error: BackendError) -> None:
        """Have whoever waits for the next chunk get ``error``, now or when it asks."""
        if self._error is not None:
            return
        self._error = error
        if self.waiting and self._task is not None:
            self._rang = True
            self._task.cancel()

    @property
    def deadline(self) -> float:
        """When to look at the call again, if it stays silent."""
        return min(self.end, self._silent_until, self.suspect_at)

    @property
    def _silent_until(self) -> float:
        limit = self.limits.idle if self.begun else self.limits.first_token
        return NEVER if limit is None else self.since + limit

    def verdict(self, now: float) -> BackendError | None:
        """Return the error of a call that has taken too long, if it has."""
        where = {"backend": "ollama", "node": self.member.url}
        name = self.member.state.name
        if now >= self.end:
            return CallTimeout(
                f"the call took longer than {self.limits.total:g} s (at {name})",
                hint="raise call_timeout, or set it to null",
                **where,
            )
        if now < self._silent_until:
            return None
        if self.begun:
            text = f"the stream from {name} stalled for {self.limits.idle:g} s"
            return IdleTimeout(text, hint="raise idle_timeout, or set it to null", **where)
        return FirstTokenTimeout(
            f"no token came from {name} within {self.limits.first_token:g} s",
            hint="a big model may still be loading: raise first_token_timeout, or set it to null",
            **where,
        )


class Sentinel:
    """Watches the calls that nodes have.

    Args:
        lives: Asks whether a node answers; marks it down if not.

    """

    def __init__(self, lives: Callable[[Member], Awaitable[bool]]) -> None:
        self._lives = lives
        self._flights: set[Flight] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._asking: dict[int, asyncio.Task[None]] = {}

    def begin(self, flight: Flight) -> None:
        """Watch a call from now on."""
        self._flights.add(flight)
        self._ring_by(flight.deadline)

    def first_chunk(self, flight: Flight) -> None:
        """Take note that the call has begun to produce: from now on its idle timeout holds."""
        flight.begun = True
        flight.patience = SUSPICIOUS_SILENCE
        idle = NEVER if flight.limits.idle is None else flight.limits.idle
        self._ring_by(asyncio.get_running_loop().time() + min(idle, flight.patience))

    def end(self, flight: Flight) -> None:
        """Watch it no more."""
        self._flights.discard(flight)
        if not self._flights and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def abandon(self, member: Member, error: BackendError) -> None:
        """Give up the calls of a node that have had nothing from it for a while."""
        now = asyncio.get_running_loop().time()
        for flight in self._flights:
            if flight.member is member and flight.waiting and now - flight.since >= ABANDONED_SILENCE:
                flight.give_up(error)

    async def aclose(self) -> None:
        """Ask nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    def _ring_by(self, when: float) -> None:
        if when == NEVER or (self._timer is not None and self._timer.when() <= when):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._ring)

    def _ring(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        due = now if self._timer is None else self._timer.when()
        self._timer = None
        if now - due > LATE_SECONDS:
            for flight in self._flights:
                flight.since, flight.suspect_at = now, now + flight.patience
            self._timer = loop.call_at(now + GRACE_SECONDS, self._ring)
            return
        again = NEVER
        for flight in tuple(self._flights):
            if not flight.waiting:
                again = min(again, now + SUSPICIOUS_SILENCE)
                continue
            if (error := flight.verdict(now)) is not None:
                flight.give_up(error)
                continue
            if flight.suspect_at <= now:
                flight.suspect_at = now + SUSPICIOUS_SILENCE
                self._ask(flight.member)
            again = min(again, flight.deadline)
        self._ring_by(again)

    def _ask(self, member: Member) -> None:
        key = member.state.key
        if key not in self._asking:
            task = asyncio.get_running_loop().create_task(self._ask_now(member))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))

    async def _ask_now(self, member: Member) -> None:
        if not await self._lives(member):
            text = f"{member.state.name} does not answer any more"
            self.abandon(member, BackendUnavailable(text, backend="ollama", node=member.url))
