"""Whether a process is still the one that it was: a number alone is given to another one sooner or later."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Self

import psutil

_STATE: Final = 0  # of the fields behind the name in /proc/PID/stat
_START: Final = 19
_DEAD: Final = frozenset("ZXx")
_UNKNOWN_BOOT: Final = "boot"


@dataclass(frozen=True, slots=True)
class MarkedProcess:
    """A process as a file names it that several processes read, on several machines perhaps.

    Attributes:
        machine: What its machine was called then; a laptop is called otherwise in another network.
        mark: What tells it from a later one of the same number.
        numbers: Where its number counts, see ``number_space``; "" where that is not known, or was not written yet.
    """

    machine: str
    pid: int
    mark: str
    numbers: str = ""

    @classmethod
    def of(cls, pid: int, **more: Any) -> Self:
        """Return a process of this machine; ``more`` is what else is to be said of it."""
        return cls(platform.node(), pid, process_mark(pid) or "", number_space(), **more)

    @property
    def here(self) -> bool:
        """Whether it runs, or ran, on this machine."""
        return self.machine == platform.node() or (bool(self.numbers) and self.numbers == number_space())

    @property
    def alive(self) -> bool | None:
        """Whether it still exists; ``None`` for one of another machine, of which nothing is known."""
        return process_mark(self.pid) == self.mark if self.here else None


def process_mark(pid: int) -> str | None:
    """Return what tells a living process from every other with its number, ``None`` if there is none (or a zombie).

    On Linux that is when it was started, counted from the boot, and which boot: unlike a time of day, it stays the
    same when the clock is set.
    """
    return _linux_mark(pid) if sys.platform == "linux" else _other_mark(pid)


@cache
def number_space() -> str:
    """Return where the numbers of processes count: the running system and its namespace; "" where that is not known."""
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return ""  # no Linux
    return "" if _boot() == _UNKNOWN_BOOT else f"{_boot()}/{namespace}"


def _linux_mark(pid: int) -> str | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError:
        return _other_mark(pid)
    fields = text.rpartition(")")[2].split()
    return None if fields[_STATE] in _DEAD else f"{_boot()}+{fields[_START]}"


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return _UNKNOWN_BOOT


def _other_mark(pid: int) -> str | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return None
    except psutil.Error:
        return "alive"
