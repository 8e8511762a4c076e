"""The circuit breaker of a node: when it gets calls, how many, and when it is probed. Calls and probes drive it.

::

    unknown ── its first listing is read ──▶ up
    up ── 3 soft failures in a row ──▶ ejected: 1, 2, 4 .. 60 s ──▶ trying: one call ── it succeeds ──▶ warming ──▶ up
     │                                      ▲                         │ it fails
     │                                      └─────────────────────────┘
     └── nothing listens, no answer ──▶ down: probed after 0.5, 1, 2, then every 3 s ── it answers ──▶ trying

Ejected and down are a breaker's open state, trying is half-open. The shape is Envoy's outlier detection (consecutive
errors, ejection times that grow, a limit on how many are ejected), scaled to a home: its 30 s and 300 s are long where
there are two nodes. A 503 does not count as a failure: it takes a place away, and at the last place it makes a pause
that doubles (AIMD). All times are seconds of one clock, which is handed in; the delays are in synaptic.waiting.Rules.
"""

from __future__ import annotations

import random
from math import ceil
from typing import TYPE_CHECKING

from synaptic.waiting import Rules

if TYPE_CHECKING:
    from synaptic.backends.pool.node.failures import CallFailure
    from synaptic.backends.pool.node.state import NodeState
    from synaptic.backends.pool.node.status import NodeCondition
    from synaptic.waiting import Backoff

STRIKES = 3
FORGIVEN_AFTER = 60.0
"""Seconds of good service after which the next ejection is a short one again."""

WARM_SECONDS = 10.0
LEAST_TRUST = 0.4
CALM_SECONDS = 10.0
CALM_SUCCESSES = 8
TICK = 1.0
NOT_ASKED = "has not answered yet"


class Health:
    """How one node fares.

    Args:
        limit: Calls at once, as configured.
        rng: For the jitter of probes.

    Attributes:
        reason: Why it is not up; "" if it is.
        down_since: Since when it has got no calls; ``None`` while it gets some.
        busy_since: Since when it has refused every call because it is busy or not ready; ``None`` if it does not.
    """

    def __init__(self, limit: int, *, rng: random.Random | None = None) -> None:
        self.reason = NOT_ASKED
        self.down_since: float | None = None
        self.busy_since: float | None = None
        self._limit = limit
        self._cap = limit
        self._rng = rng or random.Random()  # jitter
        self._condition: NodeCondition = "unknown"
        self._until: float | None = None
        self._strikes = 0
        self._ejections = 0
        self._probes = 0
        self._probe_at: float | None = None
        self._warm_since = 0.0
        self._paused_until = 0.0
        self._pauses = 0
        self._starting = False
        self._last_busy = float("-inf")
        self._calm = 0

    def condition(self, now: float) -> NodeCondition:
        """Return how it stands."""
        self._tick(now)
        return self._condition

    def failed(self, failure: CallFailure, now: float, *, last_candidate: bool) -> bool:
        """Take a failure in that is the node's fault; return whether the node stands otherwise now.

        Args:
            failure: What happened.
            now: The time.
            last_candidate: Whether no other node could serve what this one serves: then it is not ejected for a soft
                failure, since a node that fails now and then is better than none.
        """
        self._tick(now)
        if self._condition == "down":
            if failure.down and self._until is not None:
                self._go_down(now, failure.why)
                return True
            return False
        self._strikes += 1
        if failure.down:
            self._go_down(now, failure.why)
            return True
        if last_candidate or (self._strikes < STRIKES and self._condition != "trying"):
            return False
        self._eject(now, failure.why)
        return True

    def busy(self, now: float, retry_after: float | None = None, *, starting: bool = False) -> bool:
        """Take a 503 or 429 in; return whether the node stands otherwise now.

        A node that is ``starting`` will have all its places once it is ready, so it loses none, and is asked often.
        """
        self._tick(now)
        if self.busy_since is None:
            self.busy_since = now
        self._starting = starting
        if starting:
            return self._pause(now, Rules.NOT_READY, retry_after)
        self._last_busy, self._calm = now, 0
        had_several = self._cap > 1 and not self._pauses and self._condition != "trying"
        self._cap = max(1, self._cap - 1)
        if had_several and retry_after is None:
            return True
        return self._pause(now, Rules.BUSY_PAUSE, retry_after)

    def _pause(self, now: float, rule: Backoff, retry_after: float | None) -> bool:
        if now < self._paused_until:
            return False
        self._pauses += 1
        self._paused_until = now + max(rule.delay(self._pauses), min(retry_after or 0.0, Rules.BUSY_PAUSE.longest))
        return True

    def succeeded(self, now: float) -> bool:
        """Take a complete call in; return whether the node stands otherwise now."""
        self._tick(now)
        changed = self._strikes > 0
        self._strikes = 0
        self.busy_since = None
        if self._pauses:
            self._pauses, self._paused_until, changed = 0, 0.0, True
        if self._condition == "trying":
            self._condition, self._warm_since, self._probes, changed = "warming", now, 0, True
        elif self._condition == "up" and now - self._warm_since > FORGIVEN_AFTER:
            self._ejections = 0
        if self._cap < self._limit:
            self._calm += 1
            if self._calm >= CALM_SUCCESSES and now - self._last_busy >= CALM_SECONDS:
                self._cap, self._calm, self._last_busy, changed = self._cap + 1, 0, now, True
        return changed

    def answered(self, now: float) -> bool:
        """Take note that a probe was answered; return whether the node stands otherwise now."""
        self._tick(now)
        if self._condition == "unknown":
            self._condition, self.reason = "up", ""
            return True
        if self._condition != "down" or self._until is not None:
            return False
        self._try()
        return True

    def silent(self, now: float, why: str) -> bool:
        """Take note that a probe was not answered; return whether the node stands otherwise now."""
        self._tick(now)
        if self._condition == "down" and self._until is None:
            self.reason = why
            self._schedule_probe(now)
            return False
        self._go_down(now, why)
        return True

    def apply(self, state: NodeState, now: float) -> None:
        """Write into ``state`` what the picker reads: cap, trust, and why it is closed."""
        self._tick(now)
        if state.limit != self._limit:
            self._cap = min(max(1, self._cap + state.limit - self._limit), state.limit)
            self._limit = state.limit
        state.trust, state.why_closed, state.paused_until = 1.0, "", self._paused_until
        if self._condition in {"down", "unknown"}:
            state.cap, state.why_closed = 0, self.reason
        elif now < self._paused_until:
            how = "not ready yet" if self._starting else "busy"
            state.cap, state.why_closed = (
                0,
                f"answers that it is {how}; asked again in {self._paused_until - now:.1f} s",
            )
        elif self._condition == "trying" or self._pauses:
            state.cap = 1
        elif self._condition == "warming":
            share = min(1.0, (now - self._warm_since) / WARM_SECONDS)
            state.cap = min(self._cap, max(1, ceil(share * self._limit)))
            state.trust = LEAST_TRUST + (1.0 - LEAST_TRUST) * share
        else:
            state.cap = self._cap

    def next_probe(self, now: float) -> float | None:
        """Return when to ask the node whether it lives; ``None`` if only calls tell."""
        self._tick(now)
        return self._probe_at if self._condition == "down" else None

    def next_change(self, now: float) -> float | None:
        """Return when :meth:`apply` would write something else by the mere passing of time."""
        self._tick(now)
        times = [self._paused_until] if self._paused_until > now else []
        if self._condition == "down" and self._until is not None:
            times.append(self._until)
        if self._condition == "warming":
            times.append(now + TICK)
        return min(times, default=None)

    def _tick(self, now: float) -> None:
        """Do what time alone does."""
        if self._condition == "down" and self._until is not None and now >= self._until:
            self._try()
        elif self._condition == "warming" and now - self._warm_since >= WARM_SECONDS:
            self._condition = "up"

    def _try(self) -> None:
        """Give it one call. Probes go on at their pace if that fails: a node may answer them and nothing else."""
        self._condition, self.reason, self.down_since = "trying", "", None
        self._until, self._probe_at, self._strikes = None, None, 0

    def _eject(self, now: float, why: str) -> None:
        self._condition, self.reason = "down", why
        self.down_since = now
        self._ejections += 1
        self._until = now + Rules.EJECTION.delay(self._ejections)
        self._probe_at = None

    def _go_down(self, now: float, why: str) -> None:
        if self.down_since is None:
            self.down_since = now
        self._condition, self.reason, self._until = "down", why, None
        self._schedule_probe(now)

    def _schedule_probe(self, now: float) -> None:
        self._probes += 1
        self._probe_at = now + Rules.PROBE.delay(self._probes, self._rng)
