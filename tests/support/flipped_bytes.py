"""Damage: a byte of a file that is another one."""

import os
import time
from pathlib import Path

from synaptic.processes import Stamp


def flip_byte(file: Path, place: int, bits: int = 0x01) -> None:
    """Change bits of the byte at ``place`` (negative: from the end), in place, as a bad disk or a slip would."""
    file.chmod(file.stat().st_mode | 0o200)
    with file.open("r+b") as stream:
        stream.seek(place, os.SEEK_SET if place >= 0 else os.SEEK_END)
        old = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([old[0] ^ bits]))


def settle(*files: Path) -> None:
    """Wait until the files are old enough for what is known of them to be kept."""
    while not all((stamp := Stamp.of(file)) is not None and stamp.settled for file in files):
        time.sleep(0.01)
