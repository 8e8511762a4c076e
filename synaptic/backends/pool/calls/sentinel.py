"""Silent calls: they end at their deadlines, and their nodes are asked whether they live.

A node that is stopped or has lost its network still has its connections: nothing arrives, and nothing fails. So a call
that has been silent for longer than is usual makes the pool ask its node for its version, off the call's own
connection. A node that answers is merely slow and goes on, up to the call's own deadline; one that does not answer is
down, and its silent calls go elsewhere. One timer serves all calls of a pool.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING

from synaptic.backends.ollama import NAME
from synaptic.errors import BackendUnavailable
from synaptic.waiting import Deadline, Deadlines

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synaptic.backends.pool.node import PoolNode
    from synaptic.errors import BackendError
    from synaptic.messages import Timeouts

SUSPICIOUS_SILENCE = 2.0
"""Seconds without a token after which a node is asked whether it lives; more where its first token takes long."""

ABANDONED_SILENCE = 1.0
"""When a node is found to be down, the calls are given up that have had nothing from it for as long."""


class SilentCall(Deadline):
    """The deadline of one call that a node has.

    Args:
        member: The node.
        limits: The call's bounds.
        end: When the whole call must have ended.
        patience: Seconds without a first token after which the node is asked whether it lives.
        sentinel: Watches it.
    """

    __slots__ = ("_asked_at", "_patience", "_sentinel", "member")

    def __init__(
        self, member: PoolNode, limits: Timeouts, sentinel: Sentinel, *, end: float | None, patience: float
    ) -> None:
        self.member = member
        self._patience = patience
        self._asked_at = -inf
        self._sentinel = sentinel
        super().__init__(limits, backend=NAME, node=member.url, source=member.state.name, end=end, timers=sentinel)

    def due(self, now: float) -> float:
        """Return when to look at it again: at the deadline, or when the node is to be asked."""
        when = super().due(now)
        return when if self._error is not None else min(when, self._suspect_at if self.waiting else now + self._usual)

    def look(self, now: float) -> None:
        """Give up the call if its time is over; ask its node if it has been silent for long."""
        super().look(now)
        if self._error is None and self._suspect_at <= now:
            self._asked_at = now
            self._sentinel.suspect(self.member)

    @property
    def _usual(self) -> float:
        return SUSPICIOUS_SILENCE if self.begun else self._patience

    @property
    def _suspect_at(self) -> float:
        return max(self.since + self._usual, self._asked_at + SUSPICIOUS_SILENCE)


class Sentinel(Deadlines[SilentCall]):
    """Watches the calls that nodes have.

    Args:
        lives: Asks whether a node answers; marks it down if not.
    """

    def __init__(self, lives: Callable[[PoolNode], Awaitable[bool]]) -> None:
        super().__init__()
        self._lives = lives
        self._asking: dict[int, asyncio.Task[None]] = {}

    def abandon(self, member: PoolNode, error: BackendError) -> None:
        """Give up the calls of a node that have had nothing from it for a while."""
        now = asyncio.get_running_loop().time()
        for call in self:
            if call.member is member and call.waiting and now - call.since >= ABANDONED_SILENCE:
                call.give_up(error)

    def suspect(self, member: PoolNode) -> None:
        """Ask a node whether it lives, unless it is being asked."""
        key = member.state.key
        if key not in self._asking:
            task = asyncio.get_running_loop().create_task(self._ask(member))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))

    async def aclose(self) -> None:
        """Stop asking."""
        self.stop()
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    async def _ask(self, member: PoolNode) -> None:
        if not await self._lives(member):
            text = f"{member.state.name} has stopped answering"
            self.abandon(member, BackendUnavailable(text, backend=NAME, node=member.url))
