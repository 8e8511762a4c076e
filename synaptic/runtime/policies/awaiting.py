"""Waiting for a server that is loading, starting or busy."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from synaptic.errors import BackendBusy
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
        chunks = as_generator(self.inner.stream(request))
        has_begun = False
        try:
            async for chunk in chunks:
                has_begun = True
                yield chunk
        except BackendBusy as error:
            if has_begun:
                raise
            refusal = error
        else:
            return
        finally:
            await chunks.aclose()
        first, chunks = await self._begun_later(request, refusal)
        try:
            if first is not None:
                yield first
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()

    async def _begun_later(
        self, request: ChatRequest, refusal: BackendBusy
    ) -> tuple[Chunk | None, AsyncGenerator[Chunk]]:
        """Return the first chunk and the rest of the reply, once the server gives one; it has refused once already."""
        patience, refusals = Patience.of(request.timeouts), [refusal]

        async def ask() -> tuple[Chunk | None, AsyncGenerator[Chunk]]:
            if refusals:
                raise refusals.pop()
            limits = patience.left(request.timeouts, asyncio.get_running_loop().time())
            chunks = as_generator(self.inner.stream(replace(request, timeouts=limits)))
            try:
                return await anext(chunks, None), chunks
            except BaseException:
                await chunks.aclose()
                raise

        return await until_ready(ask, patience, self._notices)
