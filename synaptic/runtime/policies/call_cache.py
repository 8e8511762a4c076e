"""An answer to the same request is not asked for twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Final, assert_never

from synaptic.agents import is_complete_json
from synaptic.backends import features_of
from synaptic.messages import Continued, Delta, Finished, Restarted, Shortened, ThoughtSoFar, Usage
from synaptic.runtime.policies.reply_store import ReplyStore, StoredReply
from synaptic.runtime.policies.wrapper import BackendWrapper, as_generator

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from synaptic.backends import Backend
    from synaptic.messages import ChatRequest, Chunk, ReplyChunk

_json: Final = json.JSONEncoder(default=dict).encode  # made once: each call has a key


class CallCache:
    """Replies on disk, and those that are being written: an equal call joins the one that is under way.

    Attributes:
        under_way: By key, a future of the reply; ``None`` where no reply comes that could be shared.
    """

    def __init__(self, store: ReplyStore) -> None:
        self.store = store
        self.under_way: dict[str, asyncio.Future[StoredReply | None]] = {}

    async def find(self, key: str, max_age: float) -> StoredReply | None:
        """Return a stored reply, or the one of an equal call that is under way, once it is there."""
        reply = await self.store.get(key, max_age)
        other = self.under_way.get(key)
        if reply is None and other is not None:
            await asyncio.wait([other])  # unlike "await other", leaves it alone when we are cancelled
            return other.result()
        return reply


class Cached(BackendWrapper):
    """Gives a known reply to the same request, in one delta and an end with ``cached`` and no usage.

    Requests are the same if everything is that the reply depends on: messages, model, schema, sampling, context, and
    who serves them; not their tag, priority, rank and timeouts. Only replies that the model ended itself are kept, and
    of requests with a schema only those that are JSON; a failed call leaves nothing.

    Args:
        inner: Asked where no reply is known.
        cache: One object for all that share replies.
        max_age: How old a reply may be, in seconds.
        origin: What else a reply depends on: the backend, its node, and the policies further in.
    """

    def __init__(self, inner: Backend, cache: CallCache, max_age: float, origin: tuple[object, ...] = ()) -> None:
        super().__init__(inner)
        self.capabilities = replace(self.capabilities, forget=self.forget)
        self._cache = cache
        self._max_age = max_age
        self._origin = origin

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk]:
        """Yield the reply; of one that goes on with a text, as it comes."""
        if request.begun or features_of(request):  # what is kept of a reply is its text alone
            async for chunk in self.inner.stream(request):
                yield chunk
            return
        key = request_key(request, self._origin)
        known = await self._cache.find(key, self._max_age)
        if known is not None:
            for kept in _chunks(known):
                yield kept
            return
        reply: asyncio.Future[StoredReply | None] = asyncio.get_running_loop().create_future()
        if key not in self._cache.under_way:
            self._cache.under_way[key] = reply
        chunks = as_generator(self.inner.stream(request))
        parts: list[str] = []
        try:
            async for chunk in chunks:
                _collect(chunk, parts)
                if isinstance(chunk, Finished):
                    await self._keep(key, request, chunk, "".join(parts), reply)
                yield chunk
        finally:
            if not reply.done():
                reply.set_result(None)
            if self._cache.under_way.get(key) is reply:
                del self._cache.under_way[key]
            await chunks.aclose()

    async def _keep(
        self, key: str, request: ChatRequest, end: Finished, text: str, reply: asyncio.Future[StoredReply | None]
    ) -> None:
        """Store a complete reply that may stand for another one, and hand it to the calls that wait for it."""
        if _is_usable(request, end, text):
            stored = StoredReply(text, end.model, end.node)
            reply.set_result(stored)
            await self._cache.store.put(key, stored)

    async def forget(self, request: ChatRequest) -> None:
        """Drop the reply to the request: the caller could not use it."""
        await self._cache.store.remove(request_key(request, self._origin))


def request_key(request: ChatRequest, origin: tuple[object, ...] = ()) -> str:
    """Return what two requests have in common if their replies may stand for each other."""
    parts = (
        [(message.role, message.content, message.values) for message in request.messages],
        request.model,
        request.schema,
        request.temperature,
        request.max_tokens,
        request.seed,
        request.num_ctx,
        request.think,
        request.repetition_guard,
        origin,
    )
    return hashlib.sha256(_json(parts).encode()).hexdigest()


def _collect(chunk: Chunk, parts: list[str]) -> None:
    match chunk:
        case Delta():
            parts.append(chunk.text)
        case Restarted() | ThoughtSoFar():
            parts.clear()
        case Finished() | Continued() | Shortened():
            pass
        case _:
            assert_never(chunk)


def _chunks(reply: StoredReply) -> Iterator[ReplyChunk]:
    if reply.text:
        yield Delta(reply.text)
    yield Finished("stop", usage=Usage(), model=reply.model, node=reply.node, cached=True)


def _is_usable(request: ChatRequest, end: Finished, text: str) -> bool:
    return end.finish_reason == "stop" and (request.schema is None or is_complete_json(text))
