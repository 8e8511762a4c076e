"""Waiting for the next change of something."""

from __future__ import annotations

import asyncio


class ChangeSignal:
    """Wakes all tasks that wait for a change each time there is one. A task that starts to wait later gets the next."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def notify(self) -> None:
        """Wake all tasks that wait now."""
        before, self._next = self._next, asyncio.Event()
        before.set()

    async def wait(self) -> None:
        """Wait for the next change."""
        await self._next.wait()
