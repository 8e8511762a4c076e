"""Bounds on the time of a call. A chunk that is there at once costs no timer."""

from __future__ import annotations

import asyncio
import types
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from synaptic.errors import CallTimeout, FirstTokenTimeout, IdleTimeout, StreamError
from synaptic.messages import Timeouts
from synaptic.runtime.policies.wrapper import BackendWrapper, as_generator

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator

    from synaptic.backends import Backend
    from synaptic.messages import ChatRequest, Chunk

_UNBOUNDED = Timeouts()


class Timed(BackendWrapper):
    """Bounds the wait for the first chunk, for each later one, and for the whole call (``request.timeouts``)."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.capabilities = replace(self.capabilities, keeps_deadlines=True)

    def stream(self, request: ChatRequest) -> AsyncIterator[Chunk]:
        """Yield the reply.

        Raises:
            FirstTokenTimeout: If nothing came in time.
            IdleTimeout: If the stream stalled.
            CallTimeout: If the whole call took too long.

        """
        if request.timeouts == _UNBOUNDED:
            return self.inner.stream(request)
        return self._bounded(request)

    async def _bounded(self, request: ChatRequest) -> AsyncGenerator[Chunk]:
        limits = request.timeouts
        alarm = _Alarm(limits.total)
        limit = limits.first_token
        error: type[StreamError] = FirstTokenTimeout
        chunks = as_generator(self.inner.stream(request))
        try:
            while True:
                try:
                    chunk = await _next_within(chunks, alarm, limit)
                except StopAsyncIteration:
                    return
                except asyncio.CancelledError as exc:
                    if not alarm.ended_the_wait:
                        raise
                    if alarm.total_is_up:
                        raise self._late(CallTimeout, limits.total) from exc
                    raise self._late(error, limit) from exc
                limit, error = limits.idle, IdleTimeout
                yield chunk
        finally:
            alarm.remove()
            await chunks.aclose()

    def _late(self, error: type[StreamError], limit: float | None) -> StreamError:
        return error(_MESSAGES[error].format(limit or 0), backend=self.name, hint=_HINTS[error])


_HINTS: dict[type[StreamError], str] = {
    FirstTokenTimeout: "a big model may still be loading: raise first_token_timeout, or set it to null",
    IdleTimeout: "raise idle_timeout, or set it to null",
    CallTimeout: "raise call_timeout, or set it to null",
}
_MESSAGES: dict[type[StreamError], str] = {
    FirstTokenTimeout: "no token came within {:g} s",
    IdleTimeout: "the stream stalled for {:g} s",
    CallTimeout: "the call took longer than {:g} s",
}


class _Alarm:
    """Cancels the task that waits once its deadline has passed, as :func:`asyncio.timeout` does.

    One timer serves a whole stream: a later deadline is noted, and the timer, when it goes off too early, is set
    again. So a stream of a thousand tokens costs a few timers, and one that never waits costs none.

    Attributes:
        ended_the_wait: Whether the cancellation that ended the last wait was ours and nobody else's.
        total_is_up: Whether that was the bound on the whole call.

    """

    __slots__ = (
        "_cancelling",
        "_deadline",
        "_end",
        "_loop",
        "_rang",
        "_task",
        "_timer",
        "ended_the_wait",
        "total_is_up",
    )

    def __init__(self, total: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = None if total is None else self._loop.time() + total
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._rang = False
        self.ended_the_wait = False
        self.total_is_up = False

    def begin_wait(self, limit: float | None) -> None:
        """Bound the wait that begins now to ``limit`` seconds, and to the end of the call."""
        deadline = None if limit is None else self._loop.time() + limit
        self.total_is_up = self._end is not None and (deadline is None or self._end < deadline)
        self._deadline = deadline = self._end if self.total_is_up else deadline
        if deadline is None:
            return
        self._task = asyncio.current_task()
        self._cancelling = 0 if self._task is None else self._task.cancelling()
        if self._timer is None or self._timer.when() > deadline:
            self.remove()
            self._deadline = deadline
            self._timer = self._loop.call_at(deadline, self._ring)

    def end_wait(self, *, cancelled: bool) -> None:
        """Note that the wait is over, and take our cancellation of the task back."""
        self._deadline = None
        if self._rang and self._task is not None:
            self._rang = False
            alone = self._task.uncancel() <= self._cancelling
            self.ended_the_wait = alone and cancelled

    def remove(self) -> None:
        """Take the timer away."""
        self._deadline = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        if self._deadline is None or self._task is None:
            return  # nobody waits; the next wait sets the timer again
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._ring)
            return
        self._rang = True
        self._task.cancel()


@types.coroutine
def _next_within(chunks: AsyncGenerator[Chunk], alarm: _Alarm, limit: float | None) -> Generator[Any, Any, Chunk]:
    """Return the next chunk; the alarm is set only if the stream really waits for something.

    This is ``await anext(chunks)`` with its first step done by hand: what an awaitable yields to the event loop, if
    anything, is what it waits for.
    """
    step = chunks.__anext__().__await__()
    try:
        awaited = step.send(None)
    except StopIteration as done:
        chunk: Chunk = done.value
        return chunk
    alarm.begin_wait(limit)
    cancelled = False
    try:
        while True:
            try:
                sent = yield awaited
            except GeneratorExit:
                step.close()
                raise
            except BaseException as exc:  # noqa: BLE001  (handed on, as "yield from" does)
                awaited = step.throw(exc)
            else:
                awaited = step.send(sent)
    except StopIteration as done:
        chunk = done.value
        return chunk
    except asyncio.CancelledError:
        cancelled = True
        raise
    finally:
        alarm.end_wait(cancelled=cancelled)
