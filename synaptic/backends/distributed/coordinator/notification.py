"""Waiting for the next change of something, whatever it is."""

from __future__ import annotations

import asyncio


class Change:
    """Something that changes now and then; everybody who waits is told of the next time."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def tell(self) -> None:
        """Wake everybody who waits now."""
        before, self._next = self._next, asyncio.Event()
        before.set()

    async def wait(self) -> None:
        """Wait for the next change."""
        await self._next.wait()
