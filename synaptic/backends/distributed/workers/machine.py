"""What this machine really has for workers: available memory, its processor. The RPC protocol tells neither."""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MIB: Final = 1024 * 1024
_UNLIMITED: Final = 1 << 60  # version 1 of control groups writes a huge number where there is no limit
_NOT_OURS: Final = ("RPC", "CPU", "BLAS")
_DEVICE: Final = re.compile(r"(?P<name>\S+): (?P<title>.*) \((?P<total>\d+) MiB, (?P<free>\d+) MiB free\)")


class LocalDevice(NamedTuple):
    """A device beside the processor, as ``llama-server --list-devices`` prints it.

    Attributes:
        name: ``CUDA0``.
        title: ``NVIDIA H200``.
        total: Bytes.
        free: Bytes that were free then.
    """

    name: str
    title: str
    total: int
    free: int


def parse_devices(lines: Iterable[str]) -> tuple[LocalDevice, ...]:
    """Return the devices that these lines name; workers of other machines and the processor are none."""
    return tuple(
        LocalDevice(match["name"], match["title"], int(match["total"]) * _MIB, int(match["free"]) * _MIB)
        for line in lines
        if (match := _DEVICE.fullmatch(line.strip())) is not None and not match["name"].startswith(_NOT_OURS)
    )


def available_bytes() -> int:
    """Return the bytes that may be allocated here without swapping, within the limits of our control group."""
    return max(0, min([int(psutil.virtual_memory().available), *_group_rests()]))


def cpu_name() -> str:
    """Return what the processor calls itself."""
    return _cpu_name(Path("/proc/cpuinfo"))


@cache
def _cpu_name(file: Path) -> str:
    try:
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def group_rest(limit: str, used: str, statistics: str) -> int | None:
    """Return the bytes that a control group may still take, ``None`` where it has no limit.

    Args:
        limit: Its ``memory.max`` (or ``memory.limit_in_bytes``).
        used: Its ``memory.current`` (or ``memory.usage_in_bytes``), which counts cached files, too.
        statistics: Its ``memory.stat``: cached files that are not in use make room when it is needed.
    """
    if not limit.strip().isdecimal() or int(limit) >= _UNLIMITED:
        return None
    cached = re.search(r"^(?:total_)?inactive_file (\d+)$", statistics, re.MULTILINE)
    return int(limit) - int(used) + (int(cached[1]) if cached else 0)


def _group_rests(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Yield what our control group and those around it may still take."""
    for place, limit, used in _group_places(root, own):
        try:
            texts = [(place / name).read_text(encoding="ascii") for name in (limit, used, "memory.stat")]
            rest = group_rest(*texts)
        except (OSError, ValueError):
            continue
        if rest is not None:
            yield rest


def _group_places(root: Path, own: Path) -> Iterator[tuple[Path, str, str]]:
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        inner = Path(path.lstrip("/"))
        if not controllers:
            names, base = ("memory.max", "memory.current"), root
        elif "memory" in controllers.split(","):
            names, base = ("memory.limit_in_bytes", "memory.usage_in_bytes"), root / "memory"
        else:
            continue
        for one in (inner, *inner.parents):
            yield base / one, *names
