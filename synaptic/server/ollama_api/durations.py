"""Durations as Go writes them, and ``keep_alive`` in its three forms."""

from __future__ import annotations

import math
import re
from typing import Any

from synaptic.text import excerpt

FOREVER = (2**63 - 1) / 1e9
"""Seconds; the longest duration of Go, which Ollama puts for every negative one (292 years)."""

LONGEST = 64  # characters
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_TERM = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)")


def parse(text: str) -> float:
    """Return the seconds that a Go duration is: "5m", "1h30m", "-1.5s", "0".

    Raises:
        ValueError: If it is none; in Go's words.
    """
    shown = excerpt(text)
    if len(text) > LONGEST:
        raise ValueError(f'time: invalid duration "{shown}": it has more than {LONGEST} characters')
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    total, at = 0.0, 0
    while match := _TERM.match(rest, at):
        number, unit = match.groups()
        if not unit:
            raise ValueError(f'time: missing unit in duration "{shown}"')
        if unit not in _UNITS:
            raise ValueError(f'time: unknown unit "{excerpt(unit)}" in duration "{shown}"')
        total += float(number) * _UNITS[unit]
        at = match.end()
    if not rest or at != len(rest):
        raise ValueError(f'time: invalid duration "{shown}"')
    return sign * min(total, FOREVER)


def keep_alive(value: Any) -> float | None:
    """Return the seconds that ``keep_alive`` of a request means; ``None`` where it is not given.

    Raises:
        ValueError: If it is neither a number of seconds nor a Go duration; in Ollama's words.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"Unsupported type: '{_go_type(value)}'")
    seconds = parse(value) if isinstance(value, str) else float(value)
    return FOREVER if seconds < 0 or not math.isfinite(seconds) else min(seconds, FOREVER)


def keep_alive_default(text: str) -> float:
    """Return the seconds that ``OLLAMA_KEEP_ALIVE`` means, where a bare number is seconds too.

    Raises:
        ValueError: If it is neither.
    """
    bare = re.fullmatch(r"[+-]?\d+", text.strip())
    seconds = float(text) if bare else parse(text.strip())
    return FOREVER if seconds < 0 else min(seconds, FOREVER)


def _go_type(value: object) -> str:
    return {bool: "bool", dict: "map[string]interface {}", list: "[]interface {}"}.get(type(value), "string")
