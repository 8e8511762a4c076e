"""The graphs that every side builds, as plain data; and what a side answers with."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

REPLY = "ok"
"""What every step answers."""

STEP_SECONDS = 0.02
LANES = {"a": (0.05, 0.005, 0.05, 0.005), "b": (0.005, 0.05, 0.005, 0.05)}
"""The stagger: two independent lanes; each sums up to 110 ms."""

LIMIT = 2
CRITICAL = 6
BRANCHES = 12
"""Priorities: a chain of CRITICAL steps and BRANCHES single steps, all ready at once, LIMIT at a time."""


@dataclass(frozen=True, slots=True)
class Lap:
    """Seconds of the clock and seconds of this process's processor time."""

    wall: float
    cpu: float


Laps: TypeAlias = dict[str, Lap]
"""What one turn measured, by layer."""
Case: TypeAlias = "Callable[..., Awaitable[Laps]]"


class Stopwatch:
    """Measures from its making."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def lap(self) -> Lap:
        """Return what has passed."""
        return Lap(time.perf_counter() - self._wall, time.process_time() - self._cpu)


def total(laps: list[Lap]) -> Lap:
    """Return the sum."""
    return Lap(sum(lap.wall for lap in laps), sum(lap.cpu for lap in laps))


def runs_of(steps: int) -> int:
    """Return how many runs one lap holds: a run of few steps is repeated until there are about 1000 steps."""
    return max(1, 1000 // steps)


def expect(what: str, found: int, wanted: int) -> None:
    """Refuse a measurement in which not every step ran exactly once.

    Raises:
        RuntimeError: If the count is another one.

    """
    if found != wanted:
        raise RuntimeError(f"{what}: {found} steps ran, not {wanted}: the measurement means nothing")


async def pause(seconds: float) -> str:
    """Answer like a step, after a while; without one, at once and without a turn of the event loop."""
    if seconds > 0:
        await asyncio.sleep(seconds)
    return REPLY


def lane_steps() -> list[tuple[str, str | None, float]]:
    """Return the stagger's steps: name, the step before it in its lane, seconds."""
    return [
        (f"{lane}{index}", f"{lane}{index - 1}" if index else None, seconds)
        for lane, delays in LANES.items()
        for index, seconds in enumerate(delays)
    ]


def contended_steps() -> list[tuple[str, str | None]]:
    """Return the steps of the priorities case, side branches first as in the worst file: name, the step before."""
    branches: list[tuple[str, str | None]] = [(f"side{index}", None) for index in range(BRANCHES)]
    chain = [(f"chain{index}", f"chain{index - 1}" if index else None) for index in range(CRITICAL)]
    return branches + chain


def contended_bound() -> float:
    """Return the seconds below which no schedule of the priorities case can get: the longer of path and work."""
    return STEP_SECONDS * max(CRITICAL, (CRITICAL + BRANCHES) / LIMIT)
