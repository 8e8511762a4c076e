"""Damage: a byte of a file that is another one."""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from synaptic.errors import JournalError
from synaptic.processes import Stamp


def flip_byte(file: Path, place: int, bits: int = 0x01) -> None:
    """Change bits of the byte at ``place`` (negative: from the end), in place, as a bad disk or a slip would."""
    file.chmod(file.stat().st_mode | 0o200)
    with file.open("r+b") as stream:
        stream.seek(place, os.SEEK_SET if place >= 0 else os.SEEK_END)
        old = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([old[0] ^ bits]))


def flip_through(file: Path, places: Iterable[int], told: Callable[[Path], set[Any]]) -> tuple[int, list[Any]]:
    """Flip a bit at each place in turn; return how many were found, and what was told then that is not told else."""
    right, content, found, wrong = told(file), file.read_bytes(), 0, []
    for place in places:
        flip_byte(file, place, 1 << place * 5 % 8)
        try:
            now = told(file)
        except JournalError:
            found += 1
        else:
            found += now != right
            wrong += [(place, fact) for fact in now - right]
        file.write_bytes(content)
    return found, wrong


def settle(*files: Path) -> None:
    """Wait until the files are old enough for what is known of them to be kept."""
    while not all((stamp := Stamp.of(file)) is not None and stamp.settled for file in files):
        time.sleep(0.01)
