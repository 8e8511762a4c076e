"""One call's chunks as a client gets them as they come."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar, cast

from synaptic.errors import StreamFailed, StreamTruncated
from synaptic.messages import Delta, Finished, Restarted, ThoughtSoFar

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
