"""How durations, sizes and texts are written for people. Pure functions over text and numbers."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

from synaptic.text.unseen import printable

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_WEEK: Final = 7 * _DAY
_KILO: Final = 1000
_MIB: Final = 1024**2
_GIB: Final = 1024**3


def cut(text: str, limit: int) -> str:
    """Return ``text``, or its first ``limit - 1`` characters and an ellipsis where it is longer than ``limit``."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def reason_of(error: BaseException) -> str:
    """Return what went wrong, in the words of the system and without its numbers."""
    said = error.strerror if isinstance(error, OSError) else ""
    return said or str(error) or type(error).__name__


def one_line(text: str, limit: int = 200) -> str:
    """Return ``text`` printable, its white space collapsed, cut to ``limit`` characters."""
    return cut(printable(" ".join(text.split())), limit)


def seconds(value: float) -> str:
    """Return a duration to a tenth of a second: ``0.9 s``, ``2 min 5 s``, ``3 h 5 min``."""
    return f"{max(value, 0.0):.1f} s" if round(value, 1) < _MINUTE else whole_seconds(value)


def whole_seconds(value: float) -> str:
    """Return a duration to the second: ``4 s``, ``12 min 3 s``, ``3 h 5 min``."""
    whole = max(round(value), 0)
    if whole < _MINUTE:
        return f"{whole} s"
    great, small, units = (_HOUR, _MINUTE, ("h", "min")) if whole >= _HOUR else (_MINUTE, 1, ("min", "s"))
    rest = whole % great // small
    return f"{whole // great} {units[0]} {rest} {units[1]}" if rest else f"{whole // great} {units[0]}"


def rough_seconds(value: float) -> str:
    """Return a guessed or long duration in one unit: ``40 s``, ``4 min``, ``3 h``, ``12 d``."""
    if value < _MINUTE:
        return f"{max(10 * round(value / 10), 10)} s"
    for unit, name in ((_DAY, "d"), (_HOUR, "h")):
        if value >= unit:
            return f"{value // unit:.0f} {name}"
    return f"{round(value / _MINUTE)} min"


def ago(value: float) -> str:
    """Return how long ago something was: ``now``, ``5 min ago``, ``3 h ago``, ``12 d ago``."""
    return "now" if value < _MINUTE else f"{rough_seconds(value)} ago"


def when(at: float) -> str:
    """Return a time as lists show it, from seconds since the epoch: ``5 min ago``; from a week on ``2026-11-02``."""
    since = max(0.0, time.time() - at)
    return ago(since) if since < _WEEK else moment(at)[:10]


def moment(at: float) -> str:
    """Return a time of this place in full, from seconds since the epoch: ``2026-11-02 17:05:09``."""
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def latency(value: float) -> str:
    """Return a short time in seconds with two digits: ``28 µs``, ``0.31 ms``, ``42 ms``; from a second on ``3.1 s``."""
    if value <= 0:
        return "0"
    milliseconds = value * 1e3
    if milliseconds < 0.1:
        return f"{value * 1e6:.0f} µs"
    if milliseconds < 10:
        return f"{milliseconds:.2g} ms"
    return f"{milliseconds:.0f} ms" if round(milliseconds) < _KILO else seconds(value)


def size(count: float) -> str:
    """Return a number of bytes in decimal units, as files and networks have them: ``94 MB``, ``4.7 GB``."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if round(value) < _KILO:
            return f"{value:.0f} {unit}"
        value /= _KILO
    return f"{value:.1f} GB"


def gib(count: float) -> str:
    """Return a number of bytes in binary units, as memory has them: ``3.4 GiB``, ``0.34 GiB``, ``34 MiB``."""
    value = count / _GIB
    if value < 0.1:
        return f"{count / _MIB:.0f} MiB"
    return f"{value:.1f} GiB" if value >= 1 else f"{value:.2f} GiB"


def without_subject(text: str, subject: str) -> str:
    """Return ``text`` without the ``subject`` that it begins with, for a place that has named it already."""
    return text.removeprefix(f"{subject} ")


def plural(count: int, noun: str) -> str:
    """Return ``1 step``, ``2 steps``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
