"""One call's chunks as a client gets them: as they come, or gathered."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, cast

from synaptic.errors import StreamFailed, StreamTruncated
from synaptic.messages import Delta, Finished, Restarted, ThoughtSoFar, TokenLogprob, ToolCall, ToolCallDelta

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from synaptic.messages import Chunk

Told = TypeVar("Told")


async def live(chunks: AsyncIterator[Chunk]) -> AsyncGenerator[Delta | Finished, None]:
    """Yield what the reply grows by, and its end; ``chunks`` is closed with it.

    What a client has got cannot be taken back: a reply that begins anew then is over.

    Raises:
        StreamFailed: If it began anew after something of it was given.
        StreamTruncated: If it has no end.

    """
    given = False
    async with aclosing(cast("AsyncGenerator[Chunk, None]", chunks)) as coming:
        async for chunk in coming:
            if isinstance(chunk, Delta):
                if chunk.text or chunk.thinking or chunk.tool_calls or chunk.logprobs:
                    given = True
                    yield chunk
            elif isinstance(chunk, Finished):
                yield chunk
                return
            elif isinstance(chunk, Restarted | ThoughtSoFar) and given:
                why = chunk.reason if isinstance(chunk, Restarted) else "what was said was thinking"
                raise StreamFailed(f"the reply broke off and cannot go on: {why}", hint="ask again")
    raise StreamTruncated("the reply ended before its end was announced")


@dataclass(slots=True)
class WholeReply:
    """A reply, gathered; ``model`` is the one that gave it, where that is known."""

    end: Finished
    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    model: str = ""


@dataclass(slots=True)
class CallsSoFar:
    """Calls of tools, put together from their deltas."""

    _parts: dict[int, list[str]] = field(default_factory=dict)

    def add(self, delta: ToolCallDelta) -> bool:
        """Take a delta; return whether a call begins with it."""
        begins = delta.index not in self._parts
        parts = self._parts.setdefault(delta.index, ["", "", ""])
        for place, more in enumerate((delta.id, delta.name, delta.arguments)):
            parts[place] += more
        return begins

    def calls(self) -> tuple[ToolCall, ...]:
        """Return the calls so far; one that the server gave no id gets one by its place."""
        return tuple(
            ToolCall(identity or f"call_{index}", name, arguments or "{}")
            for index, (identity, name, arguments) in sorted(self._parts.items())
        )


async def gathered(chunks: AsyncIterator[Chunk]) -> WholeReply:
    """Return the whole reply. One that begins anew is the later one.

    Raises:
        StreamTruncated: If it has no end.

    """
    texts: list[str] = []
    thoughts: list[str] = []
    logprobs: list[TokenLogprob] = []
    calls = CallsSoFar()
    async with aclosing(cast("AsyncGenerator[Chunk, None]", chunks)) as coming:
        async for chunk in coming:
            if isinstance(chunk, Delta):
                texts.append(chunk.text)
                thoughts.append(chunk.thinking)
                logprobs += chunk.logprobs
                for delta in chunk.tool_calls:
                    calls.add(delta)
            elif isinstance(chunk, ThoughtSoFar):
                thoughts += texts
                texts.clear()
            elif isinstance(chunk, Restarted):
                texts.clear()
                thoughts.clear()
                logprobs.clear()
                calls = CallsSoFar()
            elif isinstance(chunk, Finished):
                return WholeReply(chunk, "".join(texts), "".join(thoughts), calls.calls(), tuple(logprobs))
    raise StreamTruncated("the reply ended before its end was announced")


async def merged(replies: Sequence[AsyncGenerator[Told, None]]) -> AsyncGenerator[tuple[int, Told], None]:
    """Yield what several replies say, each with the place of its reply, as it comes.

    The first error ends all of them, and so does closing this.
    """
    if len(replies) == 1:
        async with aclosing(replies[0]) as only:
            async for told in only:
                yield 0, told
        return
    coming = {asyncio.create_task(_next(reply)): index for index, reply in enumerate(replies)}
    try:
        while coming:
            done, _ = await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                index = coming.pop(task)
                if (chunk := task.result()) is not None:
                    coming[asyncio.create_task(_next(replies[index]))] = index
                    yield index, chunk
    finally:
        for task in coming:
            task.cancel()
        await asyncio.gather(*coming, return_exceptions=True)
        for reply in replies:
            await reply.aclose()


async def _next(reply: AsyncGenerator[Told, None]) -> Told | None:
    return await anext(reply, None)
