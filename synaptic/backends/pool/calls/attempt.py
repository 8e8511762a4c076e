"""One call at one node: its place, its stream, and when what came of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from synaptic.backends.pool.learned import Sample
from synaptic.errors import StreamTruncated

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from synaptic.backends.pool.calls.lease import Lease
    from synaptic.backends.pool.calls.sentinel import SilentCall
    from synaptic.backends.pool.node import PoolNode
    from synaptic.messages import ChatRequest, Finished, ReplyChunk


class Attempt:
    """A request that was sent to a node. It is closed exactly once, and gives its place back only then.

    Attributes:
        sent_at: When the request was sent, by the clock of the event loop.
        first_at: When the first chunk came; ``None`` before.

    """

    __slots__ = ("_chunks", "_deadline", "first_at", "lease", "member", "request", "sent_at")

    def __init__(
        self, member: PoolNode, lease: Lease, request: ChatRequest, deadline: SilentCall, *, now: float
    ) -> None:
        self.member = member
        self.lease = lease
        self.request = request
        self.sent_at = now
        self.first_at: float | None = None
        self._deadline = deadline
        self._chunks: AsyncGenerator[ReplyChunk, None] = member.client.stream(request)

    async def next(self) -> ReplyChunk:
        """Return the next chunk.

        Raises:
            StreamTruncated: If there is none although no chunk was the last one.
            BackendError: What the node did wrong, or why the call was given up.

        """
        try:
            chunk = await self._deadline.next(self._chunks)
        except StopAsyncIteration as exc:
            name = self.member.state.name
            raise StreamTruncated(f"{name} ended the stream without its end", node=self.member.url) from exc
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
            load=(timings.load_seconds or 0.0) if timings else 0.0,
            prompt=timings.prompt_seconds if timings else None,
            output=timings.generation_seconds if timings else None,
        )

    async def aclose(self) -> None:
        """Close the connection, then give the place back: only now is the node free again."""
        self._deadline.close()
        try:
            await self._chunks.aclose()
        finally:
            self.lease.release()
