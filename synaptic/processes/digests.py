"""What is in a file, known without reading it again: its SHA-256 is kept with what the system says of the file.

As Git's index does it: while size, times and inode of a file are as they were when it was read, so is its content.
That finds what was written since; what decays on the disk changes none of them, and is found by reading afresh.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from synaptic.processes.state_file import only_one, read_json, replace_json
from synaptic.text import open_regular

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK: Final = 1 << 20
SETTLED_NS: Final = 100_000_000
"""A file written to so shortly ago may be written to once more within one tick of the file system's clock."""
MOST_FILES: Final = 1000
LOCK_SECONDS: Final = 1.0


class Stamp(NamedTuple):
    """What the system says of a file; while it says the same, the bytes are the same.

    Attributes:
        ctime_ns: When anything of it changed last; no program can set it, as it can ``mtime_ns``.
    """

    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int

    @classmethod
    def of(cls, file: Path, *, linked: bool = False) -> Stamp | None:
        """Return the stamp of a file, ``None`` if there is none.

        Args:
            file: Which.
            linked: Whether it gets further links now and then, each of which changes its ``ctime_ns``: 0 stands there.

        Raises:
            OSError: If it cannot be looked at.
        """
        try:
            status = file.stat()
        except FileNotFoundError:
            return None
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, 0 if linked else status.st_ctime_ns)

    @property
    def settled(self) -> bool:
        """Whether a further change is sure to give another stamp."""
        age = time.time_ns() - max(self.mtime_ns, self.ctime_ns)
        return not 0 <= age < SETTLED_NS


_NEVER: Final = (Stamp(-1, 0, 0, 0), "")


class Digests:
    """SHA-256 of files, each of which is read once, and again when its stamp has changed. Everything here blocks.

    Args:
        file: Where they are kept. One that is missing, damaged or cannot be written costs time only.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, tuple[Stamp, str]] = {}

    def known(self, path: Path) -> str | None:
        """Return the digest of a file that has not changed since it was read, ``None`` for any other.

        Raises:
            OSError: If it cannot be looked at.
        """
        key, stamp = os.path.realpath(path), Stamp.of(path)
        if stamp is None:
            return None
        if self._known.get(key, _NEVER)[0] != stamp:
            self._known[key] = self._read().get(key, _NEVER)
        known_as, digest = self._known[key]
        return digest if known_as == stamp else None

    def has_changed(self, path: Path) -> bool:
        """Return whether a file was read once, and has changed since.

        Raises:
            OSError: If it cannot be looked at.
        """
        return self.known(path) is None and os.path.realpath(path) in self._read()

    def of(self, path: Path) -> str:
        """Return the digest of a file.

        Raises:
            OSError: If it cannot be read.
        """
        return self.known(path) or self.afresh(path)

    def afresh(self, path: Path, heard: Callable[[int], None] = lambda _: None) -> str:
        """Read a file, whatever is known of it, and return its digest.

        Args:
            path: Which.
            heard: Told of every part that has been read, in bytes; may raise to end it.

        Raises:
            OSError: If it cannot be read.
        """
        before = Stamp.of(path)
        digest = sha256_of(path, heard)
        if before is not None and before.settled and Stamp.of(path) == before:
            self._keep(os.path.realpath(path), before, digest)
        return digest

    def _keep(self, key: str, stamp: Stamp, digest: str) -> None:
        self._known[key] = (stamp, digest)
        with contextlib.suppress(OSError), only_one(self._file, patience=LOCK_SECONDS):
            entries = {name: found for name, found in self._read().items() if name != key and Path(name).exists()}
            newest = list({**entries, key: (stamp, digest)}.items())[-MOST_FILES:]
            replace_json(self._file, {name: [*found[0], found[1]] for name, found in newest})

    def _read(self) -> dict[str, tuple[Stamp, str]]:
        try:
            document = read_json(self._file, missing={})
            return {str(name): (Stamp(*map(int, entry[:-1])), str(entry[-1])) for name, entry in document.items()}
        except (OSError, ValueError, TypeError, AttributeError, LookupError):
            return {}


def sha256_of(path: Path, heard: Callable[[int], None] = lambda _: None) -> str:
    """Return the SHA-256 of a file, in hex. Blocking.

    Args:
        path: Which.
        heard: Told of every part that has been read, in bytes; may raise to end it.

    Raises:
        OSError: If it cannot be read.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(BLOCK):
            digest.update(block)
            heard(len(block))
    return digest.hexdigest()
