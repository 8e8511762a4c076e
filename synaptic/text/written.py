"""Numbers that are printed as they were written: ``1.10`` and ``007`` are a version and a name as often as amounts."""

from __future__ import annotations

import re
from typing import Any, Final

MAX_INTEGER_DIGITS: Final = 18  # fits 64 bits
_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_NUMBER: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


class WrittenInt(int):
    """A whole number whose text is not what Python would write: ``007``, ``+5``."""

    written: str

    def __str__(self) -> str:
        return self.written


class WrittenFloat(float):
    """A number whose text is not what Python would write: ``1.10``, ``1e3``."""

    written: str

    def __str__(self) -> str:
        return self.written


def written_number(text: str) -> int | float | None:
    """Return the number that ``text`` is, which ``str`` writes in the same way; ``None`` where it is none.

    A whole number of more than 18 digits is none: it is a name.
    """
    if _INTEGER.fullmatch(text):
        return _kept(int(text), text, WrittenInt) if len(text) <= MAX_INTEGER_DIGITS else None
    return _kept(float(text), text, WrittenFloat) if _NUMBER.fullmatch(text) else None


def _kept(value: Any, text: str, kind: type[WrittenInt | WrittenFloat]) -> int | float:
    if str(value) == text:
        return value  # type: ignore[no-any-return]
    kept = kind(value)
    kept.written = text
    return kept
