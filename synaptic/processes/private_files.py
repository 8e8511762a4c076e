"""Folders and files that the other users of the machine may not read: logs hold prompts and answers."""

from __future__ import annotations

import logging.handlers
import os
from typing import IO, TYPE_CHECKING, cast

if TYPE_CHECKING:
    from pathlib import Path


def private_folder(path: Path) -> Path:
    """Make a folder that only its user may enter, or make it so.

    Raises:
        OSError: If that is not possible.

    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)
    return path


def open_private(path: str, flags: int) -> int:
    """Open a file that only its user may read: an ``opener`` of :func:`open`."""
    return os.open(path, flags, 0o600)


class PrivateLog(logging.handlers.RotatingFileHandler):
    """A log in UTF-8 that only its user may read, and that is turned over at its bound, once; its folder is made.

    Raises:
        OSError: If it cannot be written.

    """

    def __init__(self, path: Path, most_bytes: int) -> None:
        private_folder(path.parent)
        super().__init__(path, maxBytes=most_bytes, backupCount=1, encoding="utf-8")

    def _open(self) -> IO[str]:  # type: ignore[override]
        return cast("IO[str]", open(self.baseFilename, self.mode, encoding=self.encoding, opener=open_private))
