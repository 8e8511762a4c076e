"""The books of the tensor cache: which files are whole, by what they were recognised, and when they were last read."""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from synaptic.processes import only_one, read_json, replace_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

THRESHOLD: Final = 10 * 1024 * 1024
"""llama.cpp caches tensors that are larger than this (``HASH_THRESHOLD`` in ggml-rpc.cpp)."""
LOCK_SECONDS: Final = 60.0

_NAME: Final = re.compile("[0-9a-f]{16}")
_UNREAD_NS: Final = 1
"""A time of last access that no read leaves: whatever is later was read since. A system that notes no reads at all
(``noatime``) leaves it, too; then the time at which a file came counts."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor whose bytes were found to be what its name says.

    Attributes:
        size: Bytes.
        mtime_ns: When the file was last written, as it was then: while both are the same, so are the bytes.
        used_at: When it was last read, or came; seconds since the epoch.

    """

    size: int
    mtime_ns: int
    used_at: float

    def fits(self, status: os.stat_result) -> bool:
        """Return whether a file still looks as it did when its bytes were read."""
        return self.size == status.st_size and self.mtime_ns == status.st_mtime_ns


class Books:
    """The index of a store of tensors, shared by processes. A damaged one counts as empty: all is read anew."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "index.json"

    def read(self) -> tuple[dict[str, Entry], dict[str, str]]:
        """Return the tensors by name, and names of tensors by where in which model they were found.

        Raises:
            OSError: If the file is there and cannot be read.

        """
        try:
            document = read_json(self._file, missing={})
            entries = {str(name): Entry(**entry) for name, entry in document.get("tensors", {}).items()}
            return entries, {str(key): str(name) for key, name in document.get("sources", {}).items()}
        except (ValueError, TypeError, AttributeError):
            return {}, {}

    @contextlib.contextmanager
    def changed(self) -> Iterator[tuple[dict[str, Entry], dict[str, str]]]:
        """Hand out both for a change that nobody else can come into, and write them.

        Raises:
            OSError: If that cannot be; the file stays as it was.

        """
        with only_one(self._file, patience=LOCK_SECONDS):
            entries, sources = self.read()
            yield entries, sources
            tensors: Mapping[str, Any] = {name: asdict(entry) for name, entry in entries.items()}
            replace_json(self._file, {"tensors": tensors, "sources": sources})


def is_tensor_name(name: str) -> bool:
    """Return whether a file may be a tensor of llama.cpp's cache: 16 hexadecimal digits."""
    return _NAME.fullmatch(name) is not None


def files_in(directory: Path) -> list[Path]:
    """Return what is in a directory, none if it does not exist."""
    try:
        return sorted(directory.iterdir())
    except FileNotFoundError:
        return []


def status_of(file: Path) -> os.stat_result | None:
    """Return what the system knows of a file, ``None`` if there is none."""
    try:
        return file.stat()
    except FileNotFoundError:
        return None


def mark_unread(file: Path, status: os.stat_result) -> None:
    """Note that a file was not read yet; a system that does not let us loses nothing but an order."""
    with contextlib.suppress(OSError):
        os.utime(file, ns=(_UNREAD_NS, status.st_mtime_ns))


def last_read(status: os.stat_result) -> float | None:
    """Return when a file was read since :func:`mark_unread`, ``None`` if it was not, as far as the system notes."""
    return status.st_atime if status.st_atime_ns > _UNREAD_NS else None


def to_evict(entries: Mapping[str, Entry], limit: int | None) -> list[str]:
    """Return the names that have to go, least recently used first, so that the rest takes ``limit`` bytes or less."""
    excess = 0 if limit is None else sum(entry.size for entry in entries.values()) - limit
    gone: list[str] = []
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].used_at, item[0])):
        if excess <= 0:
            break
        gone.append(name)
        excess -= entry.size
    return gone


def new_entry(status: os.stat_result) -> Entry:
    """Return the entry of a file whose bytes were just found right."""
    return Entry(status.st_size, status.st_mtime_ns, time.time())


def remove(files: Iterable[Path]) -> None:
    """Remove files, as far as they are there."""
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            file.unlink()


def copy_range(source: Path, offset: int, size: int, target: Path) -> bool:
    """Write a part of a file into a new one, and onto the disk; return whether all of it was there.

    Raises:
        OSError: If it cannot be read or written.

    """
    with source.open("rb") as reader, target.open("wb") as writer:
        reader.seek(offset)
        while size:
            block = reader.read(min(size, 4 * 1024 * 1024))
            if not block:
                return False
            writer.write(block)
            size -= len(block)
        writer.flush()
        os.fsync(writer.fileno())
    return True
