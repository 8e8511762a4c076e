"""Waiting for a server that is there and not ready yet, or busy: how long, what is said of it, and when to ask again.

A server that loads its model is no failure: asking again costs it nothing and no attempt of the call. So the wait has
a bound of its own, the one that covers loading a cold model anyhow: ``first_token_timeout``.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from math import inf, isinf
from typing import TYPE_CHECKING, TypeVar

from synaptic.errors import BackendBusy, FirstTokenTimeout, PoolSaturated, Trouble
from synaptic.messages import BackendNotice
from synaptic.text import whole_seconds
from synaptic.waiting.backoff import Rules

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synaptic.errors import BackendError
    from synaptic.messages import Reporter, Timeouts

T = TypeVar("T")

LEAST_SECONDS = 1.0
"""What a call gets for its first token at least, once the server takes it at the very end of the wait."""


@dataclass(slots=True)
class Patience:
    """How long one call waits, all of its waits together.

    Attributes:
        limit: Seconds; infinite where nothing bounds them.
        began: When the first wait began, by the clock of the event loop; ``None`` before.
    """

    limit: float
    began: float | None = None
    _refusals: int = 0

    @classmethod
    def of(cls, limits: Timeouts) -> Patience:
        """Return what the bounds of a call allow."""
        bounds = [bound for bound in (limits.first_token, limits.total) if bound is not None]
        return cls(min(bounds, default=inf))

    def delay(self, error: BackendBusy, now: float) -> float:
        """Return the seconds until the server is asked again, after it has said ``error``.

        Raises:
            FirstTokenTimeout: If the time is over, or the server asks to be left alone for longer.
        """
        if self.began is None:
            self.began = now
        self._refusals += 1
        left = self.began + self.limit - now
        asked = error.retry_after or 0.0
        if left <= 0 or asked > left:
            raise self._over(error, now, asked if asked > left > 0 else None) from error
        return min(max(Rules.NOT_READY.delay(self._refusals), asked), left)

    def left(self, limits: Timeouts, now: float) -> Timeouts:
        """Return what is left of the bounds of a call."""
        if self.began is None:
            return limits
        waited = now - self.began
        return replace(limits, first_token=_less(limits.first_token, waited), total=_less(limits.total, waited))

    def _over(self, error: BackendBusy, now: float, asked: float | None) -> FirstTokenTimeout:
        assert self.began is not None, "it has waited"
        if asked is None:
            what = f"still so after {whole_seconds(now - self.began)}"
        else:
            what = f"it asks to be left alone for {whole_seconds(asked)}, which is longer than the call may wait"
        hint = "raise first_token_timeout, or set it to null"
        if error.trouble is Trouble.GATEWAY and error.hint:
            hint = f"{error.hint}; or raise first_token_timeout"
        late = FirstTokenTimeout(f"{error.message} ({what})", hint=hint, backend=error.backend, node=error.node)
        late.trouble = error.trouble
        return late


@dataclass(slots=True)
class _Wait:
    since: float
    calls: int = 0


@dataclass(slots=True)
class WaitNotices:
    """Tells people once that a server is waited for, however many calls do, and once that it is ready."""

    report: Reporter
    backend: str
    _waits: dict[str, _Wait] = field(default_factory=dict)

    def began(self, where: str, error: BackendError, limit: float, now: float) -> None:
        """Take note that one more call waits for ``where``, for at most ``limit`` seconds."""
        wait = self._waits.get(where)
        if wait is None:
            wait = self._waits[where] = _Wait(now)
            bound = "" if isinf(limit) else f", {whole_seconds(limit)} at most"
            self.report(BackendNotice(self.backend, f"{error.message}; it is waited for{bound}"))
        wait.calls += 1

    def ended(self, where: str, now: float, *, ready: bool) -> None:
        """Take note that a call waits no longer."""
        wait = self._waits.get(where)
        if wait is None:
            return
        wait.calls -= 1
        if ready:
            del self._waits[where]
            self.report(BackendNotice(self.backend, f"{where} is ready, after {whole_seconds(now - wait.since)}"))
        elif wait.calls <= 0:
            del self._waits[where]


async def until_ready(ask: Callable[[], Awaitable[T]], patience: Patience, notices: WaitNotices) -> T:
    """Return what ``ask`` returns, asking again while the server is busy or not ready.

    Raises:
        FirstTokenTimeout: If it stays so for longer than ``patience`` allows.
        BackendError: What else is wrong.
    """
    time = asyncio.get_running_loop().time
    where: str | None = None
    ready = False
    try:
        while True:
            try:
                answer = await ask()
            except PoolSaturated:
                raise  # it has waited in a queue of its own
            except BackendBusy as error:
                now = time()
                delay = patience.delay(error, now)
                if where is None:
                    where = error.node or notices.backend
                    notices.began(where, error, patience.limit, now)
            else:
                ready = True
                return answer
            await asyncio.sleep(delay)
    finally:
        if where is not None:
            notices.ended(where, time(), ready=ready)


def _less(bound: float | None, waited: float) -> float | None:
    return None if bound is None else max(bound - waited, min(LEAST_SECONDS, bound))
