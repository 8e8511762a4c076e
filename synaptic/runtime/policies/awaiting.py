"""Waiting for a server that is loading, starting or busy."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from synaptic.runtime.policies.wrapper import BackendWrapper, as_generator
from synaptic.waiting import Patience, WaitNotices, until_ready

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from synaptic.backends import Backend
    from synaptic.messages import ChatRequest, Chunk, Reporter


class Awaiting(BackendWrapper):
    """Asks again while the server says that it is not ready or busy, within the time for the first token.

    That is no failure of the call: it costs none of its attempts, and nothing was generated for it. A server that says
    so in the middle of a reply has failed.

    Args:
        inner: What is asked. What is left of the call's bounds is handed on with each request.
        report: Hears that a server is waited for, and that it is ready.

    """

    def __init__(self, inner: Backend, report: Reporter) -> None:
        super().__init__(inner)
        self._notices = WaitNotices(report, inner.name)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk]:
        """Yield the reply.

        Raises:
            FirstTokenTimeout: If the server was not ready in time; it says what the server said.

        """
        patience = Patience.of(request.timeouts)

        async def begun() -> tuple[Chunk | None, AsyncGenerator[Chunk]]:
            limits = patience.left(request.timeouts, asyncio.get_running_loop().time())
            sent = request if limits is request.timeouts else replace(request, timeouts=limits)
            chunks = as_generator(self.inner.stream(sent))
            try:
                return await anext(chunks, None), chunks
            except BaseException:
                await chunks.aclose()
                raise

        first, chunks = await until_ready(begun, patience, self._notices)
        try:
            if first is not None:
                yield first
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()
