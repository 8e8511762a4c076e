"""The time of day as it goes on from when the program began, whatever is done to the clock meanwhile.

A clock that is set, by a person or after a machine slept, would make durations negative or hours too long.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable


class SteadyClock:
    """Seconds since the epoch that never jump: two of them are a duration.

    Args:
        wall: The clock that may jump; it is read once.
        elapsed: One that does not, from wherever it counts.

    """

    def __init__(self, wall: Callable[[], float], elapsed: Callable[[], float]) -> None:
        self._elapsed = elapsed
        self._began = wall() - elapsed()

    def __call__(self) -> float:
        """Return the time."""
        return self._began + self._elapsed()


# Linux stops its monotonic clock while the machine sleeps.
_counting: Final = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
steady_time: Final = SteadyClock(time.time, _counting)
