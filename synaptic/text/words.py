"""Small formatters that everything on the screen shares. Pure functions over text and numbers."""

from __future__ import annotations

from typing import Final

# C0 without newline and tab, DEL, and C1: what a terminal would obey instead of show.
_CONTROL: Final = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)))
del _CONTROL[ord("\n")], _CONTROL[ord("\t")]

_MINUTE: Final = 60.0
_KILO: Final = 1000


def printable(text: str) -> str:
    """Return ``text`` without the control characters that a terminal would obey; newline and tab stay."""
    return text if text.isprintable() else text.translate(_CONTROL)


def one_line(text: str, limit: int = 200) -> str:
    """Return ``text`` printable, its white space collapsed, cut to ``limit`` characters."""
    flat = printable(" ".join(text.split()))
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def seconds(value: float) -> str:
    """Return a duration as people write it: ``0.9 s``, ``2 min 5 s``."""
    if round(value, 1) < _MINUTE:
        return f"{max(value, 0.0):.1f} s"
    minutes, rest = divmod(round(value), int(_MINUTE))
    return f"{minutes} min {rest} s"


def size(count: float) -> str:
    """Return a number of bytes in decimal units: ``94 MB``, ``4.7 GB``."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if round(value) < _KILO:
            return f"{value:.0f} {unit}"
        value /= _KILO
    return f"{value:.1f} GB"


def plural(count: int, noun: str) -> str:
    """Return ``1 step``, ``2 steps``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
