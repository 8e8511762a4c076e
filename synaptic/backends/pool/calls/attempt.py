"""One call at one node: its place, its stream, and when what came of it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from synaptic.backends.pool.learned import Sample
from synaptic.backends.pool.policy import LEAST_LOAD_SECONDS
from synaptic.errors import StreamTruncated

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from synaptic.backends.pool.calls.sentinel import SilentCall
    from synaptic.backends.pool.calls.waiter import Lease
    from synaptic.backends.pool.node import PoolNode
    from synaptic.messages import ChatRequest, Finished, ReplyChunk


def load_begins(lease: Lease, num_ctx: int | None) -> bool:
    """Take note that the node of a lease now gets a call with this context; return whether it has to load the model."""
    state = lease.node.models.get(lease.model)
    if state is None or (state.resident and not state.reloads(num_ctx)):
        return False
    expected = lease.pick.load or state.rates.load_seconds or LEAST_LOAD_SECONDS
    state.load_begins(num_ctx, asyncio.get_running_loop().time() + expected)
    return True


class Attempt:
    """A request that was sent to a node. It is closed exactly once, and gives its place back only then.

    Args:
        write: Returns the request, as what is known of the node then suggests.
        look: Reads what the node has in memory, where that is to be known before.
        read: The part of the prompt that no earlier one has in common with it, as far as is known.

    Attributes:
        num_ctx: The context that the node was asked for.
        cold: Whether the node had to load the model, by what it said of its memory before.
        read: The part of the prompt that the node really has to read; ``None`` where that is not known.
        sent_at: When the request was sent, by the clock of the event loop.
        first_at: When the first chunk came; ``None`` before.
    """

    __slots__ = ("_chunks", "_deadline", "cold", "first_at", "lease", "member", "num_ctx", "read", "sent_at")

    def __init__(
        self,
        member: PoolNode,
        lease: Lease,
        write: Callable[[], ChatRequest],
        deadline: SilentCall,
        *,
        look: Callable[[PoolNode], Awaitable[None]] | None,
        read: float | None,
        now: float,
    ) -> None:
        self.member = member
        self.lease = lease
        self.num_ctx: int | None = None
        self.cold = False
        self.read = read
        self.sent_at = now
        self.first_at: float | None = None
        self._deadline = deadline
        self._chunks = self._send(write) if look is None else self._send_after(look, write)

    def _send(self, write: Callable[[], ChatRequest]) -> AsyncGenerator[ReplyChunk, None]:
        request = write()
        self.num_ctx, self.cold = request.num_ctx, load_begins(self.lease, request.num_ctx)
        return self.member.client.stream(request)

    async def _send_after(
        self, look: Callable[[PoolNode], Awaitable[None]], write: Callable[[], ChatRequest]
    ) -> AsyncGenerator[ReplyChunk, None]:
        await look(self.member)
        async with aclosing(self._send(write)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def next(self) -> ReplyChunk:
        """Return the next chunk.

        Raises:
            StreamTruncated: If there is none although no chunk was the last one.
            BackendError: What the node did wrong, or why the call was given up.
        """
        deadline = self._deadline
        task = deadline.begin()  # next() written out: every token of the pool passes here
        try:
            chunk = await self._chunks.__anext__()
        except BaseException as exc:
            deadline.failed(task, exc)
            if not isinstance(exc, StopAsyncIteration):
                raise
            name = self.member.state.name
            raise StreamTruncated(f"{name} ended the stream without its end", node=self.member.url) from exc
        deadline.done(task)
        deadline.begun = True
        if self.first_at is None:
            self.first_at = asyncio.get_running_loop().time()
        return chunk

    def sample(self, last: Finished, tokens: int) -> Sample:
        """Return what the complete call teaches of the node's speed; ``tokens`` where the server does not count."""
        now = asyncio.get_running_loop().time()
        usage, timings = last.usage, last.timings
        return Sample(
            first_token=(self.first_at or now) - self.sent_at,
            total=now - self.sent_at,
            prompt_tokens=usage.prompt_tokens if usage else 0,
            output_tokens=usage.completion_tokens if usage and usage.completion_tokens else tokens,
            load=(timings.load_seconds or 0.0) if timings and self.cold else 0.0,
            prompt=timings.prompt_seconds if timings else None,
            output=timings.generation_seconds if timings else None,
            read=1.0 if self.cold else self.read,
        )

    async def aclose(self) -> None:
        """Close the connection, then give the place back: only now is the node free again."""
        self._deadline.close()
        try:
            await self._chunks.aclose()
        finally:
            self.lease.release()
