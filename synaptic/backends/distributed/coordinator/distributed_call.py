"""One call of a distributed model: it waits while the model is built again, and goes on where it broke off."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from synaptic.errors import (
    BackendError,
    BackendUnavailable,
    CoordinatorFailed,
    ProtocolError,
    RequestRejected,
    ServerError,
    StreamFailed,
    StreamTruncated,
)
from synaptic.messages import CUT_OFF, Continued, Finished, Restarted, ThoughtSoFar, Timeouts
from synaptic.waiting import Continuation, Deadline, Departed, Way

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from synaptic.messages import ChatRequest, Chunk, ReplyChunk
    from synaptic.waiting import Deadlines

NAME: Final = "distributed"
MOST_BREAKS: Final = 8
"""How often one call is taken up again before it is given up."""
BROKEN: Final = (StreamTruncated, StreamFailed, BackendUnavailable, ProtocolError, ServerError)
"""What a client sees when the server under it dies."""
SEEDS: Final = 2**31
NOT_CONTINUED: Final = "the model's template does not let an answer be continued"


class Serves(Protocol):
    """A coordinator, ours or that of another process; what it hands out as serving is its own affair."""

    @property
    def model(self) -> str:
        """What it serves."""
        ...

    @property
    def token_seconds(self) -> float:
        """What generating a token takes, about."""
        ...

    @property
    def waits(self) -> Deadlines[Deadline]:
        """The deadlines of its calls, which learn here that a prompt is being read."""
        ...

    async def ready(self, *, plain: bool = False) -> Any:
        """Return what serves, once it does and without drafts if ``plain``; raises once there is no more hope."""
        ...

    def stream(self, serving: Any, request: ChatRequest) -> AsyncGenerator[ReplyChunk, None]:
        """Yield the reply of what serves."""
        ...

    async def goes_on_with(self, serving: Any, request: ChatRequest) -> bool:
        """Return whether what serves goes on with the last message of a request, which is the assistant's."""
        ...

    async def count_tokens(self, serving: Any, text: str) -> int:
        """Return how many tokens of what serves a text is."""
        ...

    async def lost(self, serving: Any) -> str | None:
        """Return why a broken call is to be continued, ``None`` if what served it still does."""
        ...


class DistributedCall:
    """One call on its way.

    Args:
        coordinator: Who serves it.
        request: What is asked.
    """

    def __init__(self, coordinator: Serves, request: ChatRequest) -> None:
        self._coordinator = coordinator
        # With a seed of ours it can be repeated exactly, should it break.
        seed = secrets.randbelow(SEEDS) if request.seed is None and request.temperature != 0 else request.seed
        self._request = replace(request, model=None, seed=seed, begun="", begun_pieces=0)
        self._continuation = Continuation(self._request, echoes=True)
        self._breaks = 0
        self._taken_up = bool(request.begun) and (
            self._continuation.go_on_with(request.begun, request.begun_pieces) is Way.PREFILL
        )

    async def stream(self) -> AsyncGenerator[Chunk, None]:
        """Yield the reply.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`; ``CoordinatorFailed`` once the model cannot be
                brought back.
        """
        total = self._request.timeouts.total
        plain = self._request.logprobs is not None  # of drafted tokens there are none
        end = None if total is None else asyncio.get_running_loop().time() + total
        while True:
            with self._deadline(Timeouts(total=total), end) as deadline:
                serving = await deadline.wait(partial(self._coordinator.ready, plain=plain))
            try:
                if not await self._goes_on(serving, end):
                    yield self._start_over(NOT_CONTINUED)
                async with contextlib.aclosing(self._attempt(serving, end)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            except BROKEN as error:
                reason = await self._coordinator.lost(serving)
                if reason is None:
                    raise
                self._count_break(reason, error)
                notice = self._take_up(reason)
            except Departed:
                notice = self._depart()
            except RequestRejected:
                if self._continuation.way is not Way.PREFILL:
                    raise
                notice = self._start_over(NOT_CONTINUED)
            else:
                return
            if notice is not None:
                yield notice
                if isinstance(notice, Finished):
                    return

    def _count_break(self, reason: str, error: BackendError) -> None:
        self._breaks += 1
        if self._breaks > MOST_BREAKS:
            raise CoordinatorFailed(
                f"the call broke {self._breaks} times and is given up: {reason}", backend=NAME
            ) from error

    def _take_up(self, reason: str) -> Restarted | Continued | Finished | None:
        """Decide how the call goes on; return what the reader is told."""
        delivered = self._continuation.delivered
        way = self._continuation.break_off(self._coordinator.token_seconds)
        if way is Way.BEGIN:
            return Restarted(self._breaks + 1, reason) if delivered else None
        return self._continued(reason)

    def _depart(self) -> Restarted | Continued | Finished | None:
        """Go on after a replay that became another text: from what was delivered, or from the beginning."""
        if self._continuation.break_off() is Way.BEGIN:
            return Restarted(self._breaks + 1, "it could not be repeated as it was")
        return None if not self._continuation.is_exhausted else self._continued("")

    def _continued(self, reason: str) -> Continued | Finished:
        if self._continuation.is_exhausted:
            return Finished("length", model=self._coordinator.model, node=NAME)
        return Continued(reason, NAME)

    def _start_over(self, reason: str) -> Restarted:
        self._continuation.forget()
        self._taken_up = False
        return Restarted(self._breaks + 1, reason)

    async def _goes_on(self, serving: Any, end: float | None) -> bool:
        """Return whether what serves now can do what is next: everything but to continue an answer is sure."""
        if self._continuation.way is not Way.PREFILL:
            return True
        request = self._continuation.request()
        with self._deadline(self._request.timeouts, end) as deadline:
            if not await deadline.wait(lambda: self._coordinator.goes_on_with(serving, request)):
                return False
            if self._taken_up:
                count = partial(self._coordinator.count_tokens, serving)
                await deadline.wait(lambda: self._continuation.count(count))
            return True

    async def _attempt(self, serving: Any, end: float | None) -> AsyncGenerator[Chunk, None]:
        """Yield what is new of what serves now, and the last chunk of the whole call."""
        if self._taken_up:
            self._taken_up = False
            yield (notice := self._continued(CUT_OFF))
            if isinstance(notice, Finished):
                return
        chunks = self._coordinator.stream(serving, self._continuation.request())
        async with contextlib.aclosing(chunks):
            with self._deadline(self._request.timeouts, end) as deadline:
                while True:
                    chunk = await deadline.next(chunks)
                    if isinstance(chunk, Finished):
                        yield self._last(chunk)
                        return
                    if isinstance(chunk, ThoughtSoFar):
                        self._continuation.thought_so_far()
                        yield chunk
                    elif (new := self._continuation.take(chunk)) is not None:
                        yield new

    def _deadline(self, limits: Timeouts, end: float | None) -> Deadline:
        coordinator = self._coordinator
        return Deadline(limits, backend=NAME, node=NAME, source=coordinator.model, end=end, timers=coordinator.waits)

    def _last(self, chunk: Finished) -> Finished:
        usage = self._continuation.usage(chunk.usage)
        return replace(chunk, usage=usage, model=self._coordinator.model, node=NAME)
