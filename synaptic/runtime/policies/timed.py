"""Bounds on the time of a call."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from synaptic.messages import Timeouts
from synaptic.runtime.policies.wrapper import BackendWrapper, as_generator
from synaptic.waiting import Deadline, Deadlines

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from synaptic.backends import Backend
    from synaptic.messages import ChatRequest, Chunk

_UNBOUNDED = Timeouts()


class Timed(BackendWrapper):
    """Bounds the wait for the first chunk, for each later one, and for the whole call (``request.timeouts``)."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.capabilities = replace(self.capabilities, keeps_deadlines=True)
        self._timers = _CallsInTurn()

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
        chunks = as_generator(self.inner.stream(request))
        try:
            with Deadline(request.timeouts, backend=self.name, timers=self._timers) as deadline:
                while True:
                    try:
                        chunk = await deadline.next(chunks)
                    except StopAsyncIteration:
                        return
                    yield chunk
        finally:
            await chunks.aclose()


class _CallsInTurn(Deadlines[Deadline]):
    """Keeps its timer until the loop turns: calls that follow one another at once do not each set one of their own."""

    def __init__(self) -> None:
        super().__init__()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False

    def add(self, deadline: Deadline, now: float) -> None:
        """Watch a deadline from now on; a timer of a loop that has ended does not count."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self.stop()
            self._loop, self._stopping = loop, False
        super().add(deadline, now)

    def remove(self, deadline: Deadline) -> None:
        """Watch it no longer; if no other call has come in the next turn of the loop, the timer is taken away."""
        self._deadlines.discard(deadline)
        if self.is_set and not self._deadlines and not self._stopping and self._loop is not None:
            self._stopping = True
            self._loop.call_soon(self._stop_unless_used)

    def _stop_unless_used(self) -> None:
        self._stopping = False
        if not self._deadlines:
            self.stop()
