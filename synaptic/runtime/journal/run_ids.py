"""Names of runs that sort by when they began: ULIDs, 48 bits of milliseconds and 80 of chance in 26 characters.

Source: https://github.com/ulid/spec, whose rule for one millisecond holds for a clock that was set back, too.
"""

from __future__ import annotations

import secrets
import threading
import time
from typing import Final

LENGTH: Final = 26
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CHANCE_BITS: Final = 80


class RunIds:
    """Makes names; one made later sorts later, also where the clock was set back meanwhile."""

    def __init__(self) -> None:
        self._last = 0
        self._turn = threading.Lock()

    def __call__(self) -> str:
        """Return a new name."""
        with self._turn:
            now = int(time.time() * 1000)
            if now > self._last >> _CHANCE_BITS:
                self._last = now << _CHANCE_BITS | secrets.randbits(_CHANCE_BITS)
            else:
                self._last += 1
            return spelled(self._last)


def began(run_id: str) -> float:
    """Return when the run of a name was begun, in seconds since the epoch; 0 for what is no such name."""
    if len(run_id) != LENGTH or not set(run_id) <= set(_ALPHABET):
        return 0.0
    return sum(_ALPHABET.index(digit) << 5 * place for place, digit in enumerate(run_id[9::-1])) / 1000


def matching_ids(column: str, written: str) -> tuple[str, list[str]]:
    """Return an SQL condition, and its values, of names that are, begin or end with what a person wrote.

    Of what can be no part of a name, none is.
    """
    wanted = written.strip().upper()
    if not wanted.isalnum():  # and so has no wildcards of LIKE
        return "0", []
    if len(wanted) == LENGTH:
        return f"{column} = ?", [wanted]
    return f"({column} LIKE ? OR {column} LIKE ?)", [f"{wanted}%", f"%{wanted}"]


def spelled(number: int) -> str:
    """Return the characters of a name."""
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(5 * (LENGTH - 1), -1, -5))


new_run_id: Final = RunIds()
