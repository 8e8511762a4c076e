"""Hedged calls: when the first token is late, a second node is asked, too, and the slower one is dropped.

"The Tail at Scale" (Dean, Barroso, CACM 2013): deferring the second request until the 95th percentile of the expected
latency costs at most 5 % more requests, and takes most of the tail away.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from synaptic.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable

    from synaptic.backends.pool.calls.attempt import Attempt
    from synaptic.messages import ReplyChunk


async def first_of_two(
    first: Attempt,
    second: Callable[[Attempt], Attempt | None],
    after: float | None,
    lost: Callable[[Attempt, BackendError | None], None],
) -> tuple[Attempt, ReplyChunk]:
    """Return the first chunk and the attempt that it comes from; the connection of the other one is closed.

    Args:
        first: Already sent. The caller closes it, unless another attempt is returned: then it is closed here.
        second: Sends the copy, or returns ``None`` where no other node is free.
        after: Seconds without a chunk until then, and from one try to the next; ``None`` sends no copy.
        lost: Gets an attempt that another one outlived, with what it failed of; ``None`` if it was merely slower.

    Raises:
        BackendError: If both fail: what became of the first.
    """
    if after is None:
        return first, await first.next()
    racing = {asyncio.ensure_future(first.next()): first}
    failed: BackendError | None = None
    winner: Attempt | None = None
    try:
        while not (await asyncio.wait(racing, timeout=after))[0]:
            if (copy := second(first)) is not None:
                racing[asyncio.ensure_future(copy.next())] = copy
                break
        while racing:
            done, _ = await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                attempt = racing.pop(task)
                try:
                    chunk = task.result()
                except BackendError as exc:
                    if attempt is first:
                        failed = exc
                        continue
                    lost(attempt, exc)
                    await attempt.aclose()
                else:
                    winner = attempt
                    for loser in racing.values():
                        lost(loser, None)
                    if failed is not None:
                        lost(first, failed)
                    return attempt, chunk
    finally:
        await _drop(racing, first, winner)
    assert failed is not None, "an attempt that does not win has failed"
    raise failed


async def _drop(racing: dict[asyncio.Task[ReplyChunk], Attempt], first: Attempt, winner: Attempt | None) -> None:
    """End what still runs, and close what lost. ``first`` is left to the caller unless another one won."""
    for task in racing:
        task.cancel()
    losers = [attempt for attempt in racing.values() if attempt is not winner and attempt is not first]
    if winner is not None and winner is not first:
        losers.append(first)
    try:
        if racing:
            await asyncio.gather(*racing, return_exceptions=True)
    finally:
        async with AsyncExitStack() as closing:  # closes each, also where another one fails or is cancelled
            for attempt in reversed(losers):
                closing.push_async_callback(attempt.aclose)
