"""Files that several processes use: one at a time, and whole at every moment."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
import time
from pathlib import Path
from typing import Final

POLL: Final = 0.01  # seconds between two looks at a lock that another process holds


def lock(descriptor: int, *, patience: float = 0.0) -> bool:
    """Lock an open file or directory for this process alone; closing it, or the end of the process, gives it back.

    Args:
        descriptor: Of the file that is the lock. It must not be a file that is replaced: the lock would be on the
            predecessor.
        patience: Seconds to wait for the process that holds it.

    Returns:
        Whether the lock is held now.

    Raises:
        OSError: If the file system has no locks.
    """
    end = time.monotonic() + patience
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(POLL)


def replace_file(path: Path, data: bytes) -> None:
    """Put a file with this content in the place of the old one; a reader, or a power cut, finds the one or the other.

    A symbolic link is written through. Mode and owner of the old file are kept; a new file is the user's alone (0600).

    Raises:
        OSError: If it cannot be written; what was there stays.
    """
    target = Path(os.path.realpath(path))
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    try:
        write_whole(descriptor, data, like=target)
        Path(name).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    _sync_directory(target.parent)


def write_whole(descriptor: int, data: bytes, *, like: Path) -> None:
    """Write an open, empty file to the disk, with the mode and the owner of another file if there is one; close it."""
    with os.fdopen(descriptor, "wb") as file:
        with contextlib.suppress(FileNotFoundError):
            _keep_owner_and_mode(descriptor, like.stat())
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _keep_owner_and_mode(descriptor: int, before: os.stat_result) -> None:
    if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
        # Only root may give a file away; any other user then owns what they were allowed to replace.
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, before.st_uid, before.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(before.st_mode))


def _sync_directory(directory: Path) -> None:
    # The rename itself must survive a power cut; some file systems refuse to sync a directory, which is no failure.
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
