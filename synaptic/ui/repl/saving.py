"""Writes a text to a file, whole or not at all, and never over another one unasked."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from synaptic.errors import UsageError


def save(path: Path, text: str, *, force: bool = False) -> None:
    """Write ``text`` to ``path``.

    Raises:
        UsageError: If the file is there and ``force`` is off, or it cannot be written; nothing has changed then.

    """
    reserved = False
    try:
        if not force:
            path.open("x").close()
            reserved = True
        _replace(path, text)
    except FileExistsError as exc:
        raise UsageError(f"{path} exists", hint="choose another name, or add --force to replace it") from exc
    except (OSError, ValueError) as exc:
        if reserved:
            path.unlink(missing_ok=True)
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise UsageError(f"{path} cannot be written: {reason}") from exc


def _replace(path: Path, text: str) -> None:
    """Put a new file in the place of the old one, with the old one's mode; a link is written through."""
    target = Path(os.path.realpath(path))
    mode = target.stat().st_mode & 0o777 if target.is_file() else None
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            if mode is not None:
                os.fchmod(file.fileno(), mode)
        Path(name).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
