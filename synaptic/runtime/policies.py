"""Policies around a backend. Each is a backend itself, so they nest: ``Retrying(Limited(Timed(backend)))``."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from synaptic.errors import BackendBusy, BackendError, CallTimeout, FirstTokenTimeout, IdleTimeout, StreamError
from synaptic.messages import Chunk, Restart

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from synaptic.backends.base import Backend
    from synaptic.messages import ChatRequest, ModelInfo

FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 30.0


def as_generator(stream: AsyncIterator[Chunk]) -> AsyncGenerator[Chunk]:
    """Return the stream as the async generator that :class:`~synaptic.backends.base.Backend` promises."""
    return cast("AsyncGenerator[Chunk]", stream)


class BackendWrapper:
    """A backend that hands everything to another one. Policies override ``stream``."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        self.name = inner.name

    def stream(self, request: ChatRequest) -> AsyncIterator[Chunk]:
        """Yield what the inner backend yields."""
        return self.inner.stream(request)

    async def models(self) -> list[ModelInfo]:
        """Return the inner backend's models."""
        return await self.inner.models()

    async def aclose(self) -> None:
        """Close the inner backend."""
        await self.inner.aclose()


class Timed(BackendWrapper):
    """Bounds the wait for the first chunk, for each later one, and for the whole call (``request.timeouts``)."""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk]:
        """Yield the reply.

        Raises:
            FirstTokenTimeout: If nothing came in time.
            IdleTimeout: If the stream stalled.
            CallTimeout: If the whole call took too long.

        """
        limits = request.timeouts
        loop = asyncio.get_running_loop()
        end = None if limits.total is None else loop.time() + limits.total
        limit = limits.first_token
        error: type[StreamError] = FirstTokenTimeout
        async with aclosing(as_generator(self.inner.stream(request))) as chunks:
            while True:
                now = loop.time()
                deadline = None if limit is None else now + limit
                if end is not None and (deadline is None or end < deadline):
                    deadline, limit, error = end, limits.total, CallTimeout
                try:
                    async with asyncio.timeout_at(deadline) as scope:
                        chunk = await anext(chunks, None)
                except TimeoutError as exc:
                    if not scope.expired():
                        raise
                    raise error(_late(error, limit), backend=self.name, hint=_HINTS[error]) from exc
                if chunk is None:
                    return
                limit, error = limits.idle, IdleTimeout
                yield chunk


_HINTS: dict[type[StreamError], str] = {
    FirstTokenTimeout: "a big model may still be loading: raise first_token_timeout, or set it to null",
    IdleTimeout: "raise idle_timeout, or set it to null",
    CallTimeout: "raise call_timeout, or set it to null",
}


def _late(error: type[StreamError], limit: float | None) -> str:
    what: dict[type[StreamError], str] = {
        FirstTokenTimeout: "no token came within {:g} s",
        IdleTimeout: "the stream stalled for {:g} s",
        CallTimeout: "the call took longer than {:g} s",
    }
    return what[error].format(limit or 0)


class Limited(BackendWrapper):
    """Lets at most ``limit`` calls through at once; the others wait in the order they came."""

    def __init__(self, inner: Backend, limit: int) -> None:
        super().__init__(inner)
        self._places = asyncio.Semaphore(limit)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk]:
        """Yield the reply once there is a place."""
        async with self._places, aclosing(as_generator(self.inner.stream(request))) as chunks:
            async for chunk in chunks:
                yield chunk


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before attempt ``n``: doubling, with full jitter below the second half, in seconds.

    Source: "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), the "equal jitter" variant.
    """

    first: float = FIRST_BACKOFF_SECONDS
    longest: float = LONGEST_BACKOFF_SECONDS

    def delay(self, failures: int, error: BackendError) -> float:
        """Return the wait after the given number of failures; a server's own ``Retry-After`` wins."""
        if isinstance(error, BackendBusy) and error.retry_after is not None:
            return min(error.retry_after, self.longest)
        full = min(self.longest, self.first * 2.0 ** (failures - 1))
        return full / 2 + random.uniform(0, full / 2)  # noqa: S311  (jitter, not a secret)


class Retrying(BackendWrapper):
    """Asks again after a failure that may pass. A chunk with ``restart`` says so and voids what came before."""

    def __init__(self, inner: Backend, retries: int, backoff: Backoff | None = None) -> None:
        super().__init__(inner)
        self._retries = retries
        self._backoff = backoff or Backoff()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk]:
        """Yield the reply, from the beginning after each restart."""
        failures = 0
        while True:
            try:
                async with aclosing(as_generator(self.inner.stream(request))) as chunks:
                    async for chunk in chunks:
                        yield chunk
            except BackendError as exc:
                failures += 1
                if not exc.retryable or failures > self._retries:
                    raise
                delay = self._backoff.delay(failures, exc)
                restart = Restart(failures + 1, exc.message, delay)
            else:
                return
            yield Chunk(restart=restart)
            await asyncio.sleep(restart.delay)
