"""How often, and after which delay, a coordinator is built again: a pure decision."""

from __future__ import annotations

from collections import deque
from typing import Final

DELAYS: Final = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Seconds before each further attempt in a row; the first comes at once: most losses pass with a restart."""
SETTLED: Final = 30.0
"""Seconds of service after which what went wrong before counts no more."""
MOST_LOSSES: Final = 10
"""Losses within the window, with nothing generated in between, after which the machines are not trusted any more."""
LOSS_WINDOW: Final = 120.0


class Attempts:
    """The attempts to serve one model, since it last served for a while."""

    def __init__(self) -> None:
        self._failed = 0
        self._ready_at: float | None = None
        self._losses: deque[float] = deque(maxlen=MOST_LOSSES)

    def ready(self, now: float) -> None:
        """Note that it serves."""
        self._ready_at = now

    def lost(self, now: float, *, generated: bool) -> float | None:
        """Note that it was lost while it served; return how long to wait, ``None`` to give up.

        Args:
            now: By a steady clock.
            generated: Whether it has done something for somebody since it was ready.

        """
        self._losses.append(now)
        if generated or (self._ready_at is not None and now - self._ready_at >= SETTLED):
            self._losses.clear()
        self._ready_at = None
        self._failed = 0
        often = len(self._losses) == MOST_LOSSES and now - self._losses[0] < LOSS_WINDOW
        return None if often else DELAYS[0]

    def failed(self) -> float | None:
        """Note that an attempt to start failed; return how long to wait, ``None`` to give up."""
        self._failed += 1
        return DELAYS[self._failed] if self._failed < len(DELAYS) else None
