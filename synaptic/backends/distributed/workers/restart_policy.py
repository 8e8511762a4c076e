"""When a worker that has ended is started again. Pure: times come in, a delay comes out."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

DELAYS: Final = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each restart in a row; the first is at once, because somebody waits for the next token."""

RAN_WELL_SECONDS: Final = 5.0
"""A run as long as that ends the row: what made it end is not what made an earlier one end."""

WINDOW_SECONDS: Final = 600.0
MOST_IN_WINDOW: Final = 60


@dataclass(slots=True)
class Restarts:
    """The restarts of one worker so far."""

    row: int = 0
    at: deque[float] = field(default_factory=deque)

    def after_end(self, now: float, ran_for: float) -> float | None:
        """Return how long to wait before the worker is started again, ``None`` if that has no sense any more.

        Args:
            now: Seconds of a steady clock.
            ran_for: How long it was ready before it ended; 0 if it never was.

        """
        if ran_for >= RAN_WELL_SECONDS:
            self.row = 0
        while self.at and now - self.at[0] > WINDOW_SECONDS:
            self.at.popleft()
        if self.row >= len(DELAYS) or len(self.at) >= MOST_IN_WINDOW:
            return None
        delay = DELAYS[self.row]
        self.row += 1
        self.at.append(now)
        return delay

    def forget(self) -> None:
        """Begin anew: a person asked for it."""
        self.row = 0
        self.at.clear()
