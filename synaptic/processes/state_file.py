"""Small JSON files that several processes of one person change: one at a time, and whole at every moment.

Each ends with a checksum of itself, so that a byte that changes on the disk is damage, and never another value.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from synaptic.errors import UsageError
from synaptic.processes.files import lock, replace_file
from synaptic.processes.private_files import own_folder
from synaptic.text import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_SECONDS: Final = 5.0
MAX_BYTES: Final = 4 * 1024 * 1024
CHECKSUM: Final = "checksum"
"""The key, beside the document's own, of the SHA-256 of the rest."""


@contextmanager
def only_one(file: Path, *, patience: float = LOCK_SECONDS) -> Iterator[None]:
    """Keep every other process out that asks for the same file; the lock ends with this process.

    ``patience`` is how many seconds to wait for the process that holds it.

    Raises:
        OSError: If the lock cannot be had: :class:`TimeoutError` if another process keeps it for longer.
    """
    own_folder(file.parent)
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
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        if not if_damaged:
            raise
        raise UsageError(
            f"{file} does not say {about.removeprefix('which says ')}: {error}", hint=if_damaged
        ) from error


def read_json(file: Path, *, missing: Any) -> Any:
    """Return the document in a file, ``missing`` if there is no such file.

    One without a checksum, as an older version wrote it, counts as it is.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no JSON object, not as it was written, or far larger than it may be.
    """
    try:
        data = read_regular(file, MAX_BYTES)
    except FileNotFoundError:
        return missing
    if len(data) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes")
    try:
        document = json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if isinstance(document, dict):
        checksum = document.pop(CHECKSUM, None)
        if checksum is not None and checksum != _checksum(document):
            raise ValueError("its checksum is wrong: it was changed, or has decayed, since it was written")
        return document
    raise ValueError("it is no object")


def replace_json(file: Path, document: dict[str, Any]) -> None:
    """Put a document in the place of what was there; a reader finds the one or the other.

    Raises:
        OSError: If it cannot be written; what was there stays.
    """
    own_folder(file.parent)
    sealed = {**document, CHECKSUM: _checksum(document)}
    replace_file(file, (json.dumps(sealed, indent=2) + "\n").encode())


def _checksum(document: dict[str, Any]) -> str:
    """Return what is the same for a document and for what comes of it through JSON."""
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()
