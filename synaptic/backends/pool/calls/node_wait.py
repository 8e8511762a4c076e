"""The waits of one call for nodes that are not ready yet, or busy: bounded in time, and at no cost of a failover."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synaptic.waiting import Patience

if TYPE_CHECKING:
    from synaptic.backends.pool.node import PoolNode
    from synaptic.errors import BackendBusy
    from synaptic.messages import Timeouts
    from synaptic.waiting import WaitNotices


class NodeWait:
    """What one call waits for.

    Args:
        limits: The bounds of the call.
        notices: Tells people, once for all calls.
        came: When the call came, by the clock of the event loop.
    """

    __slots__ = ("_came", "_limits", "_notices", "_patience", "_where")

    def __init__(self, limits: Timeouts, notices: WaitNotices, *, came: float) -> None:
        self._limits = limits
        self._notices = notices
        self._patience = Patience.of(limits)
        self._came = came
        self._where = ""

    def refused(self, member: PoolNode, error: BackendBusy, now: float, *, alone: bool) -> None:
        """Take note that a node has refused the call; ``alone`` if no other could serve it now.

        Raises:
            FirstTokenTimeout: If that has gone on for too long. A call that waited behind another one for this node
                has waited as long.
        """
        if self._patience.began is None:
            self._patience.began = max(self._came, member.health.busy_since or now)
        if not alone:
            return
        self._patience.delay(error, now)
        if not self._where:
            self._where = member.state.name
            self._notices.began(self._where, error, self._patience.limit, now)

    def served(self, member: PoolNode, now: float) -> None:
        """Take note that a node serves the call."""
        if self._where:
            where, self._where = self._where, ""
            self._notices.ended(where, now, ready=where == member.state.name)

    def left(self, now: float) -> Timeouts:
        """Return what is left of the bounds for the first token."""
        return self._patience.left(self._limits, now)

    def close(self, now: float) -> None:
        """Take note that the call has ended."""
        if self._where:
            where, self._where = self._where, ""
            self._notices.ended(where, now, ready=False)
