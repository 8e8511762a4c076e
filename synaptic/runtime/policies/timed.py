"""Bounds on the time of a call."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from synaptic.messages import Timeouts
from synaptic.runtime.policies.wrapper import BackendWrapper, as_generator
from synaptic.waiting import Deadline

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
            with Deadline(request.timeouts, backend=self.name) as deadline:
                while True:
                    try:
                        chunk = await deadline.next(chunks)
                    except StopAsyncIteration:
                        return
                    yield chunk
        finally:
            await chunks.aclose()
