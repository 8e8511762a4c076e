"""Asking again after a failure that may pass."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from synaptic.errors import (
    AddressUnusable,
    BackendBusy,
    BackendError,
    BackendUnavailable,
    CallTimeout,
    EngineCrashed,
    EngineUnavailable,
    FirstTokenTimeout,
    IdleTimeout,
    ProtocolError,
    ServerError,
    StreamFailed,
    StreamTruncated,
)
from synaptic.messages import Restarted
from synaptic.runtime.policies.wrapper import Attempts, BackendWrapper, as_generator
from synaptic.waiting import Backoff, Rules

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection

    from synaptic.backends import Backend
    from synaptic.messages import ChatRequest, Chunk
    from synaptic.pipeline import RetryCause

CAUSES: dict[RetryCause, tuple[type[BackendError], ...]] = {
    "unavailable": (BackendUnavailable,),
    "busy": (BackendBusy,),
    "server": (ServerError, ProtocolError),
    "stream": (StreamTruncated, StreamFailed),
    "timeout": (FirstTokenTimeout, IdleTimeout, CallTimeout),
    "crash": (EngineCrashed,),
}
"""What each cause that a step may name stands for."""


class Retrying(BackendWrapper):
    """Asks again after a failure that may pass. A ``Restarted`` says so and voids what came before.

    Args:
        inner: What is asked.
        retries: Most further requests after the first one.
        backoff: The waits between them.
        causes: After which failures; ``None`` is every one that may pass.
    """

    def __init__(
        self,
        inner: Backend,
        retries: int,
        backoff: Backoff | None = None,
        *,
        causes: Collection[RetryCause] | None = None,
    ) -> None:
        super().__init__(inner)
        self._retries = retries
        self._backoff = backoff or Rules.RETRY
        self._causes = None if causes is None else tuple(error for cause in causes for error in CAUSES[cause])

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk]:
        """Yield the reply, from the beginning after each restart; those further in are counted with ours."""
        failures, attempts = 0, Attempts()
        while True:
            chunks = as_generator(self.inner.stream(request))
            try:
                async for chunk in chunks:
                    yield attempts.counted(chunk)
            except BackendError as exc:
                failures += 1
                if failures > self._retries or not self._may_pass(exc):
                    raise
                delay = wait_after(failures, exc, self._backoff)
                restart = Restarted(attempts.another(), exc.message, delay)
            else:
                return
            finally:
                await chunks.aclose()
            yield restart
            await asyncio.sleep(restart.delay)

    def _may_pass(self, error: BackendError) -> bool:
        """Return whether to ask again. What lasts until a person acts lasts, whatever the step names."""
        if self._causes is None or isinstance(error, (EngineUnavailable, AddressUnusable)):
            return error.retryable
        return isinstance(error, self._causes)


def wait_after(failures: int, error: BackendError, backoff: Backoff) -> float:
    """Return the seconds until the next attempt; a server's own ``Retry-After`` wins, within the longest delay."""
    if isinstance(error, BackendBusy) and error.retry_after is not None:
        return min(error.retry_after, backoff.longest)
    return backoff.delay(failures)
