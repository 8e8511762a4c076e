"""Small JSON files that several processes of one person change: one at a time, and whole at every moment."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from synaptic.errors import UsageError
from synaptic.processes.files import lock, replace_file
from synaptic.text import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_SECONDS: Final = 5.0
MAX_BYTES: Final = 4 * 1024 * 1024


@contextmanager
def only_one(file: Path, *, patience: float = LOCK_SECONDS) -> Iterator[None]:
    """Keep every other process out that asks for the same file; the lock ends with this process.

    Args:
        file: Which.
        patience: How many seconds to wait for the process that holds it.

    Raises:
        OSError: If the lock cannot be had: :class:`TimeoutError` if another process keeps it for longer.

    """
    file.parent.mkdir(parents=True, exist_ok=True)
    # Beside the file, which is replaced: a lock on the file itself would be one on its predecessor.
    descriptor = os.open(file.with_name(f".{file.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not lock(descriptor, patience=patience):
            raise TimeoutError(f"{file} is locked by another process for more than {patience:g} s")
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
        ValueError: If it is not JSON, or far larger than it may be.

    """
    try:
        data = read_regular(file, MAX_BYTES)
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
    replace_file(file, (json.dumps(document, indent=2) + "\n").encode())
