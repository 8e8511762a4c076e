"""Numbers with units as people write them: ``30d``, ``500M``; and what ``5m`` means where a number belongs."""

from __future__ import annotations

import math
import re
from typing import Final

_WITH_UNIT: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(%|[A-Za-z]+)")
_BARE: Final = re.compile(r"[0-9]{1,15}\.[0-9]{1,15}")
_PARTS: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?\s*[A-Za-z]+\s*)+")
_OF_TIME: Final = re.compile(r"(?:^|_)(?:timeout|wait|idle|seconds|total|first_token)$")
_SECONDS: Final = {
    **dict.fromkeys(("ms", "msec", "millis", "milliseconds"), 0.001),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 86400.0),
    **dict.fromkeys(("y", "year", "years"), 365 * 86400.0),
}
_BYTES: Final = {
    **dict.fromkeys(("k", "kb"), 10.0**3),
    **dict.fromkeys(("m", "mb"), 10.0**6),
    **dict.fromkeys(("g", "gb"), 10.0**9),
    **dict.fromkeys(("t", "tb"), 10.0**12),
    "kib": 2.0**10,
    "mib": 2.0**20,
    "gib": 2.0**30,
}
_GIB: Final = {
    **dict.fromkeys(("g", "gb", "gib"), 1.0),
    **dict.fromkeys(("m", "mb", "mib"), 1 / 1024),
    **dict.fromkeys(("t", "tb", "tib"), 1024.0),
}
_COUNTS: Final = {"k": 1000.0, "m": 1e6}
_CONTEXT: Final = {"k": 1024.0, "m": 1024.0**2}


def written_duration(text: str) -> float:
    """Return the seconds of ``30d``, ``12h``, ``90min``, ``2w`` or ``45s``.

    Raises:
        ValueError: If it is no duration; the message continues "... must be ".
    """
    return _written(text, _SECONDS, "a number and s, min, h, d, w or y, as in 30d")


def written_size(text: str) -> int:
    """Return the bytes of ``500M``, ``2G``, ``800k`` or ``1GiB``; a number without a unit could be meant as anything.

    Raises:
        ValueError: If it is no size; the message continues "... must be ".
    """
    return int(_written(text, _BYTES, "a number and k, M or G, as in 500M"))


def _written(text: str, scales: dict[str, float], form: str) -> float:
    match = _WITH_UNIT.fullmatch(text.strip())
    factor = scales.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(form)
    return float(match[1]) * factor


def amount_meant(text: str, key: str) -> int | float | None:
    """Return the number that belongs under ``key``; ``None`` where the text is none, and none with a unit.

    Args:
        text: What was written, such as ``5m``, ``1h30m``, ``8k``, ``16 GB``, ``50%`` or ``0,5``.
        key: The name that it was written for, which says in what it is counted.
    """
    if _BARE.fullmatch(plain := text.strip().replace(",", ".")):
        number = float(plain)
        return int(number) if number.is_integer() else number
    scales = _scales(key)
    parts = _WITH_UNIT.findall(text) if _PARTS.fullmatch(text.strip()) or _WITH_UNIT.fullmatch(text.strip()) else []
    if not parts or (len(parts) > 1 and scales is not _SECONDS):
        return None
    other = math.nan if scales in (_SECONDS, _GIB) else 1.0  # "12 calls" is 12, and "5 lines" is no time
    total = sum(float(number) * (0.01 if unit == "%" else scales.get(unit.lower(), other)) for number, unit in parts)
    if not math.isfinite(total):
        return None
    return int(total) if total == int(total) else round(total, 6)


def _scales(key: str) -> dict[str, float]:
    if _OF_TIME.search(key):
        return _SECONDS
    if key.endswith("_gib"):
        return _GIB
    return _CONTEXT if "ctx" in key or "context" in key else _COUNTS
