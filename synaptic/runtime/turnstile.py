"""Leaves that were done before end in the order in which they ended then, and before anything new is begun.

What a race or ``join: any`` makes of its steps hangs on which of them ended first. Given back all at once, they would
end as they stand in the file, and what follows would get another prompt than it had.
"""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Final

TURNS: Final = 16
"""Turns of the loop in which the end of a leaf has reached what follows, and that has asked for its own leaf."""


class Turnstile:
    """Lets one through at a time, in their order."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = count()
        self._turns = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    async def pass_as(self, order: float = inf) -> None:
        """Return when it is this one's turn; without ``order`` once all others are through."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        heappush(self._waiting, (order, next(self._numbers), turn))
        if not self._turns:
            self._begin(loop)
        await turn

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._turns = TURNS
        loop.call_soon(self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._turns -= 1
        if self._turns:
            loop.call_soon(self._tick, loop)
            return
        self._let_through()
        if self._waiting:
            self._begin(loop)

    def _let_through(self) -> None:
        """Let the first one through, of those without an order all."""
        while self._waiting:
            order, _, turn = heappop(self._waiting)
            if turn.done():
                continue  # its step was cancelled meanwhile
            turn.set_result(None)
            if order != inf:
                return
