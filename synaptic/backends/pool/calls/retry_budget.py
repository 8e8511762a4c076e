"""How many calls may be on a second node at once: else a node that dies under load floods the others with retries.

Envoy's retry budget (20 % of the active requests, at least three), with one difference: what is over the budget waits
for its turn instead of failing, since a call of ours must not be lost.
"""

from __future__ import annotations

import asyncio
from collections import deque

SHARE = 0.2
AT_LEAST = 3


class RetryBudget:
    """Counts calls, and those of them that are being sent again.

    Attributes:
        active: Calls of the pool, waiting ones included.
        retrying: Those that are being sent again and have no first token yet.
    """

    def __init__(self, share: float = SHARE, at_least: int = AT_LEAST) -> None:
        self.active = 0
        self._share = share
        self._at_least = at_least
        self.retrying = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        """Wait until one more call may be sent again; :meth:`leave` counts it off."""
        if self._has_room():
            self.retrying += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            elif turn in self._waiting:  # who left in the same turn of the loop may have taken it out
                self._waiting.remove(turn)
            raise

    def leave(self) -> None:
        """Count off what :meth:`enter` counted."""
        self.retrying -= 1
        while self._waiting and self._has_room():
            turn = self._waiting.popleft()
            if not turn.done():
                self.retrying += 1
                turn.set_result(None)

    def _has_room(self) -> bool:
        return self.retrying < max(self._at_least, int(self._share * self.active))
