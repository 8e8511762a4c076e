"""What works for us and ends: an installer, a download, a thread that writes a file."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from synaptic.processes.child import STARTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synaptic.processes.child import ChildProcess

T = TypeVar("T")


async def run_to_its_end(
    start: Callable[[], Awaitable[ChildProcess]], note: Callable[[], None], *, every: float
) -> ChildProcess:
    """Run a child to its end, a few times if it is killed or stopped meanwhile; return the last one.

    ``note`` is called ``every`` so many seconds while it runs.

    Raises:
        BackendUnavailable: If it cannot be started.
    """
    attempt = 1
    while True:
        child = await start()
        try:
            while not await child.exited_within(every):
                note()
        finally:
            await child.stop()
        if not child.lost or attempt == STARTS:
            return child
        attempt += 1


async def thread_to_its_end(work: Callable[[], T]) -> T:
    """Do work in a thread. None can be stopped: a caller that is cancelled waits until it has written what it keeps."""
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.gather(working, return_exceptions=True)
        raise
