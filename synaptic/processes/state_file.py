"""Small JSON files that several processes of one person change: one at a time, and whole at every moment."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from synaptic.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_SECONDS: Final = 5.0
MAX_BYTES: Final = 4 * 1024 * 1024
_POLL = 0.01


@contextmanager
def only_one(file: Path, *, patience: float = LOCK_SECONDS) -> Iterator[None]:
    """Keep every other process out that asks for the same file; the lock ends with this process.

    Args:
        file: Which.
        patience: How many seconds to wait for somebody else to leave.

    Raises:
        OSError: If the lock cannot be had: :class:`TimeoutError` if somebody keeps it for too long.

    """
    file.parent.mkdir(parents=True, exist_ok=True)
    # Beside the file, which is replaced: a lock on the file itself would be one on its predecessor.
    descriptor = os.open(file.with_name(f".{file.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, file, patience)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def told(file: Path, about: str, done: str, *, if_damaged: str = "") -> Iterator[None]:
    """Say what is wrong with a file of the person's state, in the words of a person.

    Args:
        file: Which, or the directory of several.
        about: What it is: ``which says who holds which worker``.
        done: ``read`` or ``written``.
        if_damaged: What to do if it does not say that; "" where the block minds that itself.

    Raises:
        UsageError: If the block could not read or write it.

    """
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{file}, {about}, cannot be {done}: {error.strerror or error}",
            hint="mend that, or set XDG_STATE_HOME to a directory that can be written",
        ) from error
    except (ValueError, LookupError, TypeError) as error:
        if not if_damaged:
            raise
        raise UsageError(
            f"{file} does not say {about.removeprefix('which says ')}: {error}", hint=if_damaged
        ) from error


def read_json(file: Path, *, missing: Any) -> Any:
    """Return the document in a file, ``missing`` if there is no such file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no JSON, or far larger than it may be.

    """
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return missing
    if len(data) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes")
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def replace_json(file: Path, document: Any) -> None:
    """Put a document in the place of what was there; a reader finds the one or the other.

    Raises:
        OSError: If it cannot be written; what was there stays.

    """
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(json.dumps(document, indent=2) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _lock(descriptor: int, file: Path, patience: float) -> None:
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > end:
                raise TimeoutError(f"{file} is locked by another process for more than {patience:g} s") from error
            time.sleep(_POLL)
        else:
            return
