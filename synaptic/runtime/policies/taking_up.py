"""Going on with a text that an earlier process got, at a backend of one server."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from synaptic.backends import capabilities_of
from synaptic.messages import CUT_OFF, Continued, Delta, Finished, ThoughtSoFar
from synaptic.runtime.policies.wrapper import BackendWrapper, as_generator
from synaptic.waiting import SURE_ECHO, Continuation, Way

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from synaptic.backends import Backend
    from synaptic.messages import ChatRequest, Chunk

SHORTEST: Final = SURE_ECHO
"""Characters of a text that is gone on with. A shorter one is generated again: it costs a few tokens, and that a server
repeats it before it goes on cannot be told from a model that says the same once more."""


class TakingUp(BackendWrapper):
    """Goes on with ``request.begun`` where the server is known to; else the call is made as if there were none.

    A backend of several servers does that itself: it chooses one that can.

    Args:
        inner: What is asked; it has the capability ``goes_on_with``.
    """

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        watched = self.capabilities.watched_stream
        self.capabilities = replace(self.capabilities, goes_on_with=None)
        if watched is not None:
            self._watched = watched
            self.capabilities = replace(self.capabilities, watched_stream=self._watched_stream)

    def stream(self, request: ChatRequest) -> AsyncIterator[Chunk]:
        """Yield the reply, or after a ``Continued`` what comes behind the text."""
        if not request.begun:
            return self.inner.stream(request)
        return self._taken_up(request, self.inner.stream)

    def _watched_stream(self, request: ChatRequest, step: Callable[[bool], None]) -> AsyncIterator[Chunk]:
        if not request.begun:
            return self._watched(request, step)
        return self._taken_up(request, lambda asked: self._watched(asked, step))

    async def _taken_up(
        self, request: ChatRequest, send: Callable[[ChatRequest], AsyncIterator[Chunk]]
    ) -> AsyncGenerator[Chunk]:
        text = Continuation(replace(request, begun="", begun_pieces=0))
        goes_on = await self._goes_on(text, request)
        waits = goes_on  # what goes on is said with the first chunk: from then on a server's silence counts
        if goes_on and text.is_exhausted:
            yield self._continued()
            yield Finished("length", model=request.model)
            return
        async with aclosing(as_generator(send(text.request()))) as chunks:
            async for chunk in chunks:
                if waits:
                    yield self._continued()
                    waits = False
                for piece in _pieces(text, chunk) if goes_on else (chunk,):
                    yield piece

    async def _goes_on(self, text: Continuation, request: ChatRequest) -> bool:
        """Return whether the call goes on with what was begun, and have it begin so."""
        can = capabilities_of(self.inner)
        assert can.goes_on_with is not None, "only such backends are wrapped"
        if (
            len(request.begun.strip()) >= SHORTEST
            and text.go_on_with(request.begun, request.begun_pieces) is Way.PREFILL
            and await can.goes_on_with(text.request())
        ):
            if can.count_tokens is not None:
                await text.count(can.count_tokens)
            return True
        text.forget()
        return False

    def _continued(self) -> Continued:
        return Continued(CUT_OFF, self.capabilities.place or self.name)


def _pieces(text: Continuation, chunk: Chunk) -> list[Chunk]:
    """Return what of a chunk is new to the reader of the call."""
    match chunk:
        case Delta():
            new = text.take(chunk)
            return [] if new is None else [new]
        case ThoughtSoFar():
            text.thought_so_far()
        case Finished():
            rest = text.rest()
            end = replace(chunk, usage=text.usage(chunk.usage))
            return [end] if rest is None else [rest, end]
        case _:
            pass
    return [chunk]
