"""Opening what a person names: a regular file, and nothing that would be waited for.

To open a pipe is to wait for its other end, a device may give bytes for ever, and some files of ``/proc`` give none
until something happens. No signal is heard meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from synaptic import paths

if TYPE_CHECKING:
    from pathlib import Path

_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_NONBLOCK", 0)
)
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_KINDS = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a disk"))


class NotRegularFile(OSError):
    """What has that name is a pipe, a socket, a device, or gives nothing until something happens."""

    def __init__(self, kind: str, path: Path) -> None:
        super().__init__(errno.EINVAL, f"it is {kind}, not a regular file", str(path))


class LeadsOut(OSError):
    """What has that name lies outside the folder that it is looked for in."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.EXDEV, "it leads out of the folder", str(path))


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
    return _checked(os.open(path, _FLAGS), path)


def _checked(descriptor: int, path: Path) -> BinaryIO:
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
    return _read(open_regular(path), path, limit)


def _read(file: BinaryIO, path: Path, limit: int) -> bytes:
    with file:
        data = file.read(limit + 1)
    if data is None:  # what came without waiting was nothing
        raise NotRegularFile("something that would be waited for", path)
    return data


def read_beneath(folder: Path, path: Path, limit: int) -> bytes:
    """Return what :func:`read_regular` does of a file that lies in a folder, whatever becomes a link meanwhile.

    Where the path leads is looked up first; then each of its folders is opened in the one before, and no link followed.

    Raises:
        LeadsOut: If it lies elsewhere.
        OSError: As :func:`read_regular` does, and if a part of it became a link since it was looked up.
        ValueError: If it is no path.
    """
    root, place = paths.resolved(folder), paths.resolved(path)
    if not place.is_relative_to(root):
        raise LeadsOut(path)
    parts = place.relative_to(root).parts
    if not parts or os.open not in os.supports_dir_fd:
        return read_regular(place, limit)
    with contextlib.ExitStack() as opened:
        parent = os.open(root, _FOLDER)
        opened.callback(os.close, parent)
        for part in parts[:-1]:
            parent = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
            opened.callback(os.close, parent)
        _check(os.stat(parts[-1], dir_fd=parent, follow_symlinks=False).st_mode, path)
        descriptor = os.open(parts[-1], _FLAGS | os.O_NOFOLLOW, dir_fd=parent)
    return _read(_checked(descriptor, path), path, limit)


def _check(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
        raise NotRegularFile(kind, path)
