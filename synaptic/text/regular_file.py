"""Opening what a person names: a regular file, and nothing that would be waited for.

To open a pipe is to wait for its other end, a device may give bytes for ever, and some files of ``/proc`` give none
until something happens. No signal is heard meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_NONBLOCK", 0)
)
_KINDS = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a disk"))


class NotRegularFile(OSError):
    """What has that name is a pipe, a socket, a device, or gives nothing until something happens."""

    def __init__(self, kind: str, path: Path) -> None:
        super().__init__(errno.EINVAL, f"it is {kind}, not a regular file", str(path))


def broken_link(path: Path) -> str | None:
    """Return what to say of a name that is a link to nothing; ``None`` where it is no such link."""
    try:
        if not path.is_symlink():
            return None
        path.stat()
    except FileNotFoundError:
        return f"it is a link to {path.readlink()}, which is not there"
    except OSError as error:
        return "it is a link that leads back to itself" if error.errno == errno.ELOOP else None
    return None


def open_regular(path: Path) -> BinaryIO:
    """Return the file, opened to be read.

    Raises:
        NotRegularFile: If it is something else; what that is, is not opened where that can be known before.
        IsADirectoryError: If it is a directory.
        OSError: If it cannot be opened.
        ValueError: If it is no path.
    """
    _check(path.stat().st_mode, path)
    descriptor = os.open(path, _FLAGS)
    try:
        _check(os.fstat(descriptor).st_mode, path)  # it may be another one by now
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, limit: int) -> bytes:
    """Return the file's first ``limit`` bytes, and one more where it is longer.

    Raises:
        OSError: As :func:`open_regular` does, and if it cannot be read.
        ValueError: If it is no path.
    """
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if data is None:  # what came without waiting was nothing
        raise NotRegularFile("something that would be waited for", path)
    return data


def _check(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
        raise NotRegularFile(kind, path)
