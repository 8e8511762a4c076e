"""When something is tried again: every rule for it in one table (:class:`Rules`), and restarts counted by one.

Pure: times come in, a delay comes out. All of them are seconds.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from math import inf
from typing import Final


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before each further attempt.

    Attributes:
        delays: Before the first further attempt, the second, ...; the last one repeats.
        jitter: Each delay is multiplied by a number drawn from this range, so that clients that failed together do
            not come back together ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    """

    delays: tuple[float, ...]
    jitter: tuple[float, float] = (1.0, 1.0)

    @property
    def longest(self) -> float:
        """The delay that repeats, without jitter."""
        return self.delays[-1]

    def delay(self, failures: int, rng: random.Random | None = None) -> float:
        """Return the wait after so many failures in a row, 1 or more."""
        delay = self.delays[min(failures, len(self.delays)) - 1]
        low, high = self.jitter
        return delay if low == high else delay * (rng or random).uniform(low, high)


@dataclass(frozen=True, slots=True)
class RestartRule:
    """How often a process that ends is started again.

    Attributes:
        delays: Before each restart in a row; there are no more of them.
        ends_row: A run of so many seconds ends the row: what ended it is not what ended an earlier one.
        most: Restarts within the window.
        window: Length of the window.
        clears_window: A run of so many seconds, or a useful one, empties the window.
    """

    delays: tuple[float, ...]
    ends_row: float
    most: int
    window: float
    clears_window: float = inf


class Rules:
    """Every rule for trying again, side by side.

    Attributes:
        RETRY: A call that failed with an error that may pass, unless the server names a time itself ("equal jitter").
        SAME_NODE: A call that broke off and that only the same node can serve; ``failovers`` bounds how often.
        EJECTION: A node that failed several calls gets none for so long (Envoy's outlier detection, scaled to a home).
        NOT_READY: A server that loads its model, or is busy, is asked again; a second late is little beside a load.
        BUSY_PAUSE: A node that answers "busy" at its last place gets no calls for so long.
        PROBE: A node that is down is asked whether it lives. With the 2 s that a probe may take, a node that is back
            is found within 5 s.
        LISTING: A node that did not tell its models is asked for them again.
        REFUSED_MODEL: A model that a node lacks or cannot load is not asked for there for so long.
        MACHINE: A machine that was not reached, or is lost, is tried again.
        NEW_NODES: A cluster is looked at for nodes that have joined it.
        LOAD_AHEAD: A model that could not be loaded ahead is not loaded ahead there for so long.
        SERVICE: A coordinator that could not be started in the background is started again.
        COORDINATOR: A coordinator that was lost, or did not start. Most losses pass with a restart; one that has
            generated nothing in between ten of them stands on machines that are not to be trusted.
        REPLICA: A replica of a model that failed, for which there may be no workers, while another serves.
        WORKER: A local worker that ended. The first restart is at once: a call waits for its next token.
        EMBEDDED: The embedded engine, which the next call starts again.
    """

    RETRY: Final = Backoff((0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0), jitter=(0.5, 1.0))
    SAME_NODE: Final = Backoff((0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0))
    EJECTION: Final = Backoff((1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0))
    NOT_READY: Final = Backoff((0.25, 0.5, 1.0))
    BUSY_PAUSE: Final = Backoff((0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0))
    PROBE: Final = Backoff((0.5, 1.0, 2.0, 3.0), jitter=(0.9, 1.1))
    LISTING: Final = Backoff((5.0,))
    REFUSED_MODEL: Final = Backoff((60.0,))
    MACHINE: Final = Backoff((0.5, 1.0, 2.0, 4.0, 5.0))
    NEW_NODES: Final = Backoff((2.0,))
    LOAD_AHEAD: Final = Backoff((60.0,))
    SERVICE: Final = Backoff((60.0,))
    REPLICA: Final = Backoff((60.0,))

    COORDINATOR: Final = RestartRule((0.0, 0.5, 1.0, 2.0, 4.0), ends_row=0.0, most=9, window=120.0, clears_window=30.0)
    WORKER: Final = RestartRule((0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0), ends_row=5.0, most=60, window=600.0)
    EMBEDDED: Final = RestartRule((0.0,), ends_row=0.0, most=3, window=60.0)


class Restarts:
    """The restarts of one process so far.

    Args:
        rule: How often it is started again.
        row: Starts that count as restarts already.
    """

    def __init__(self, rule: RestartRule, row: int = 0) -> None:
        self._rule = rule
        self._row = row
        self._at: deque[float] = deque()

    def after_end(self, now: float, ran_for: float, *, useful: bool = False) -> float | None:
        """Return how long to wait before the process is started again; ``None`` gives up.

        ``now`` is by a steady clock; ``ran_for`` is how long it was ready, 0 if never; ``useful``, whether it did work.
        """
        rule = self._rule
        if ran_for >= rule.ends_row:
            self._row = 0
        cleared = useful or ran_for >= rule.clears_window
        while self._at and (cleared or now - self._at[0] > rule.window):
            self._at.popleft()
        if len(self._at) >= rule.most:
            return None
        delay = self.after_failure()
        if delay is not None and not cleared:
            self._at.append(now)
        return delay

    def after_failure(self) -> float | None:
        """Return how long to wait after a start that failed, which counts in the row alone; ``None`` gives up."""
        self._row += 1
        return self._rule.delays[self._row - 1] if self._row <= len(self._rule.delays) else None

    def forget(self) -> None:
        """Count from zero: a person asked for it."""
        self._row = 0
        self._at.clear()
