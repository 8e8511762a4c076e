"""Two clocks: a time of day that never jumps, and the time for which this process was awake.

A machine that sleeps stops the monotonic clock of Linux and macOS by itself; a process that is stopped finds its clock
ahead when it goes on, and whoever it waits for overdue, while the answer lies in its sockets and pipes.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


LOOK_SECONDS: Final = 0.5
"""Look at such a clock about that often while it matters."""
GAP_SECONDS: Final = 2.0
"""More between two looks, and we were held up: nothing of it counts."""


class AwakeClock:
    """Seconds, from anywhere, without those between two looks that are too far apart.

    Args:
        elapsed: A clock that does not jump back.
    """

    def __init__(self, elapsed: Callable[[], float]) -> None:
        self._elapsed = elapsed
        self._seen = elapsed()
        self._awake = 0.0

    def __call__(self) -> float:
        """Return the time; this is a look."""
        now = self._elapsed()
        gap, self._seen = now - self._seen, now
        if gap <= GAP_SECONDS:
            self._awake += gap
        return self._awake


awake_time: Final = AwakeClock(time.monotonic)
"""That of this process. It goes on only while something looks at it."""


@asynccontextmanager
async def awake_timeout(seconds: float) -> AsyncIterator[None]:
    """Bound a block as :func:`asyncio.timeout` does, by the seconds for which this process is awake meanwhile.

    Raises:
        TimeoutError: If the block takes longer.
    """
    loop = asyncio.get_running_loop()
    clock = AwakeClock(loop.time)
    timer: asyncio.TimerHandle | None = None

    def look() -> None:
        nonlocal timer
        left = seconds - clock()
        timer = loop.call_later(min(left, LOOK_SECONDS), look) if left > 0 else None
        if timer is None:
            bound.reschedule(loop.time())

    async with asyncio.timeout(None) as bound:
        look()
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()


class SteadyClock:
    """Seconds since the epoch that never jump: two of them are a duration, also where the clock is set meanwhile.

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
