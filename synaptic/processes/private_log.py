"""A log that the other users of the machine may not read: it holds prompts and answers."""

from __future__ import annotations

import logging.handlers
from typing import IO, TYPE_CHECKING, cast

from synaptic.processes.private_files import open_private, private_folder

if TYPE_CHECKING:
    from pathlib import Path


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
