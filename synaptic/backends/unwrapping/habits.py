"""What a server's models were seen to do around their answers, and the stream of one reply read with that in mind."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from synaptic.backends.unwrapping.reply_filter import ReplyFilter
from synaptic.messages import Delta, Finished, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from synaptic.messages import ChatRequest, ReplyChunk

MOST_SURPLUS: Final = 16
"""Deltas behind the end of a turn that are waited for: with them comes the server's own count of tokens, if it stops
there. A server that does not stop is writing the next turn, and is left."""

SLACK_TOKENS: Final = 16
SHORT_TOKEN: Final = 4
LONG_TOKEN: Final = 64
"""Bytes of a token. What came is judged by its pieces and by its length together, since a piece may be several tokens,
or, behind some proxies, a single character."""

HEARTBEAT: Final = (Delta(),)
"""Given where a piece is held back: a caller that bounds the silence of a server must hear that it goes on."""

THINKING_SHARE: Final = 4
DEFAULT_THINKING_ROOM: Final = 2048
"""Tokens for thinking beside the answer's limit, where the context is not known; else a quarter of the context."""


class Habits:
    """Remembers by model; one object for each server."""

    def __init__(self) -> None:
        self._thinking: set[str] = set()
        self._opened: set[str] = set()

    def thinks(self, model: str) -> None:
        """Note that a model can think."""
        self._thinking.add(model)

    def read(
        self,
        request: ChatRequest,
        model: str,
        send: Callable[[ChatRequest], AsyncGenerator[Delta | Finished, None]],
        *,
        context: int | None = None,
    ) -> AsyncGenerator[ReplyChunk, None]:
        """Return the reply to ``request`` without what the model's template puts around it.

        One that is wanted verbatim is what ``send`` returns. ``context`` is in tokens, where it is known.
        """
        return send(request) if request.verbatim else self._unwrapped(request, model, send, context)

    async def _unwrapped(
        self,
        request: ChatRequest,
        model: str,
        send: Callable[[ChatRequest], AsyncGenerator[Delta | Finished, None]],
        context: int | None,
    ) -> AsyncGenerator[ReplyChunk, None]:
        wider = self._with_room(request, model, context)
        limit = None if wider is request else request.max_tokens
        # A text that broke off and goes on is beyond its thinking.
        goes_on = bool(request.messages) and request.messages[-1].role == "assistant"
        opened = model in self._opened and request.think is not False and not goes_on
        reply = ReplyFilter(schema=request.schema, opened=opened)
        try:
            async with aclosing(unwrapped(send(wider), reply, asked=wider.max_tokens, limit=limit)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            if reply.thought:
                self._thinking.add(model)
            if reply.was_opened:
                self._opened.add(model)

    def _with_room(self, request: ChatRequest, model: str, context: int | None) -> ChatRequest:
        """Return ``request`` with a limit that holds thinking as well, where the model thinks.

        Servers count thinking against the limit. What a step limits is its answer.
        """
        if request.max_tokens is None or request.think is False or model not in self._thinking:
            return request
        room = DEFAULT_THINKING_ROOM if context is None else context // THINKING_SHARE
        return replace(request, max_tokens=request.max_tokens + room)


async def unwrapped(
    chunks: AsyncGenerator[Delta | Finished, None],
    reply: ReplyFilter,
    *,
    asked: int | None = None,
    limit: int | None = None,
) -> AsyncGenerator[ReplyChunk, None]:
    """Yield a server's reply as ``reply`` reads it; ``chunks`` is closed with it.

    A server that goes on beyond its limit is left: what came until then is a reply that the limit has cut.

    Args:
        chunks: What the server sends.
        reply: Reads it.
        asked: The limit of tokens that the server was given.
        limit: Most deltas of text, where that limit is a higher one.
    """
    surplus = told = received = size = 0
    async with aclosing(chunks):
        async for chunk in chunks:
            if isinstance(chunk, Finished):
                for piece in reply.finish(cut=chunk.finish_reason == "length"):
                    yield piece
                yield replace(chunk, finish_reason="stop") if reply.ended else chunk
                return
            received += 1
            size += len(chunk.text.encode()) + len(chunk.thinking.encode())
            for piece in reply.take(chunk) or HEARTBEAT:
                yield piece
                told += isinstance(piece, Delta) and bool(piece.text)
            surplus += reply.ended
            if asked is not None and goes_beyond(asked, received, size):
                for piece in reply.finish(cut=True):
                    yield piece
                yield Finished("stop" if reply.ended else "length", usage=Usage(completion_tokens=received))
                return
            if surplus > MOST_SURPLUS or (limit is not None and told >= limit):
                for piece in reply.finish():
                    yield piece
                yield Finished("stop" if reply.ended else "length", usage=Usage(completion_tokens=received))
                return


def goes_beyond(limit: int, pieces: int, size: int) -> bool:
    """Return whether a reply of so many pieces, of so many bytes, has more tokens than ``limit``, beyond doubt."""
    most = limit + SLACK_TOKENS
    return size > SHORT_TOKEN * most and (pieces > most or size > LONG_TOKEN * most)
