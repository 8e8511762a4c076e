"""Bounds on the time of a call."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from synaptic.messages import Timeouts
from synaptic.runtime.policies.wrapper import BackendWrapper, as_generator
from synaptic.waiting import Deadline, Deadlines, in_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from synaptic.backends import Backend
    from synaptic.messages import ChatRequest, Chunk

_UNBOUNDED = Timeouts()


class Timed(BackendWrapper):
    """Bounds the wait for the first chunk, for each later one, and for the whole call (``request.timeouts``).

    Where the backend tells that it reads a prompt, that is no silence: reading may take as long as it has to.
    """

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self._watched_stream = self.capabilities.watched_stream
        self.capabilities = replace(self.capabilities, keeps_deadlines=True, watched_stream=None)
        self._timers = _KeptTimer()
        self._step: Callable[[bool], None] = lambda generates: self._timers.heard(generates=generates)

    def stream(self, request: ChatRequest) -> AsyncIterator[Chunk]:
        """Yield the reply.

        Raises:
            FirstTokenTimeout: If nothing came in time.
            IdleTimeout: If the stream stalled.
            CallTimeout: If the whole call took too long.
        """
        if request.timeouts == _UNBOUNDED:
            return self.inner.stream(request)
        watched = self._watched_stream
        chunks = self.inner.stream(request) if watched is None else watched(request, self._step)
        return in_time(as_generator(chunks), request.timeouts, backend=self.name, timers=self._timers)


class _KeptTimer(Deadlines[Deadline]):
    """Keeps its timer when a call ends: the next one finds it set, and a timer that finds no call is not set again."""

    def __init__(self) -> None:
        super().__init__()
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, deadline: Deadline) -> None:
        """Watch a deadline from now on; a timer of a loop that has ended does not count."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self.stop()
            self._loop = loop
        super().add(deadline)

    def remove(self, deadline: Deadline) -> None:
        """Watch it no longer."""
        self._deadlines.discard(deadline)
