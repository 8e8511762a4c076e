"""Folders and files that the other users of the machine may not read: logs hold prompts and answers."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from synaptic import paths

if TYPE_CHECKING:
    from pathlib import Path


_ANY_OTHER: Final = 0o077
_WRITTEN_BY_OTHERS: Final = 0o022


def private_folder(path: Path) -> Path:
    """Make a folder that only its user may enter, or make it so.

    Raises:
        OSError: If that is not possible.
    """
    own_folder(path, 0o700)
    if path.stat().st_mode & _ANY_OTHER:
        path.chmod(0o700)
    return path


def own_folder(path: Path, mode: int = 0o755) -> Path:
    """Make a folder, and those above it, in which no other user can write, whatever the umask allows.

    What is there already of this program's own folders is made so, too.

    Raises:
        OSError: If that is not possible.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=mode, exist_ok=True)
    path.mkdir(exist_ok=True)  # says so where something else has that name
    names = [folder.name for folder in (path, *path.parents)]
    for folder in (path, *path.parents)[: names.index(paths.APP) + 1] if paths.APP in names else ():
        status = folder.stat()
        if status.st_mode & _WRITTEN_BY_OTHERS and status.st_uid == os.geteuid():
            folder.chmod(stat.S_IMODE(status.st_mode) & ~_WRITTEN_BY_OTHERS)
    return path


def open_private(path: str, flags: int) -> int:
    """Open a file that only its user may read: an ``opener`` of :func:`open`."""
    return os.open(path, flags, 0o600)
