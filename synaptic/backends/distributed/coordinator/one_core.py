"""The one core that a coordinator runs on.

For each message to a worker, two threads of ``llama-server`` hand over to each other and back (``rpc_dispatcher`` in
``ggml-rpc.cpp``): some seven messages a worker and token, and only one of the threads ever has something to do. On one
core that is a switch of microseconds; a thread on another core, which sleeps meanwhile, takes 50 and more to wake.
Measured with two and three workers of one machine: 0.94 and 0.88 of the local speed instead of 0.85 and 0.77.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NEARLY_AS_FAST: Final = 0.95
"""Of two kinds of cores in one processor the slower ones are left out."""
ALIKE_SECONDS: Final = 0.03
"""The system counts in hundredths of a second; cores that were idle for about as long are alike."""


class CoreWatch:
    """Watches how busy the cores are from its making on. It does nothing where a process cannot be kept on a core."""

    def __init__(self) -> None:
        self._before = _idle_seconds()

    def keep(self, pid: int) -> int | None:
        """Keep a process that has only just been started on the core with the least to do; return which that is."""
        try:
            allowed = psutil.Process().cpu_affinity()
            core = idlest(allowed, self._before, _idle_seconds(), _speeds(allowed))
            if core is not None:
                psutil.Process(pid).cpu_affinity([core])
        except (AttributeError, OSError, ValueError, psutil.Error):
            return None  # no such thing on this system, or not for us
        return core


def idlest(
    allowed: Iterable[int], before: Mapping[int, float], after: Mapping[int, float], speeds: Mapping[int, float]
) -> int | None:
    """Return the core that was idle for longest, of the fastest kind; ``None`` if there is no choice.

    Args:
        allowed: Cores that we may use.
        before: How long each had been idle at one time, in seconds.
        after: The same some time later.
        speeds: The most that each is clocked with; none where that is not told.
    """
    cores = [core for core in allowed if core in before and core in after]
    if len(cores) <= 1:
        return None
    fastest = max(speeds.get(core, 0.0) for core in cores)
    cores = [core for core in cores if speeds.get(core, 0.0) >= NEARLY_AS_FAST * fastest]
    longest = max(after[core] - before[core] for core in cores)
    # The first cores have the most interrupts.
    return max(core for core in cores if after[core] - before[core] >= longest - ALIKE_SECONDS)


def _idle_seconds() -> dict[int, float]:
    return dict(enumerate(times.idle for times in psutil.cpu_times(percpu=True)))


def _speeds(cores: Iterable[int]) -> dict[int, float]:
    """Return the most that cores are clocked with, where the system tells.

    Not by psutil, which asks for the present clock as well: that takes some cores a millisecond each.
    """
    found = {}
    for core in cores:
        with suppress(OSError, ValueError):
            found[core] = float(Path(f"/sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq").read_text())
    return found
