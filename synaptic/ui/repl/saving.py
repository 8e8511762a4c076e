"""Writes a text to a file, whole or not at all, and never over another one unasked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synaptic.errors import UsageError
from synaptic.processes import replace_file

if TYPE_CHECKING:
    from pathlib import Path


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
        replace_file(path, text.encode())
    except FileExistsError as exc:
        raise UsageError(f"{path} exists", hint="choose another name, or add --force to replace it") from exc
    except (OSError, ValueError) as exc:
        if reserved:
            path.unlink(missing_ok=True)
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise UsageError(f"{path} cannot be written: {reason}") from exc
