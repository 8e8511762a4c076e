"""Lets a person change a text in the editor of their own choice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from synaptic.errors import SynapticError

if TYPE_CHECKING:
    from collections.abc import Iterator


class EditorFailed(SynapticError):
    """The editor could not be started, or said that it failed; the text is as it was."""


def editor_command() -> list[str] | None:
    """Return the words of ``$VISUAL``, else of ``$EDITOR``; ``None`` where neither says anything."""
    for name in ("VISUAL", "EDITOR"):
        words = _words(os.environ.get(name, ""))
        if words:
            return words
    return None


async def edit(text: str, command: list[str], *, suffix: str, terminal: int) -> str:
    """Return the text as the person saved it; if the call is cancelled, the editor ends.

    Args:
        text: What the editor opens with.
        command: The editor, with its options; the file's name is put behind them.
        suffix: What the file's name ends with, so that the editor knows what it is.
        terminal: Descriptor of the terminal that the editor runs on.

    Raises:
        EditorFailed: If it cannot be started, its exit code is not 0, or what it saved is no text.
    """
    try:
        with _file_of(text, suffix) as path:
            await _run([*command, str(path)], terminal)
            return _saved(path)
    except (OSError, UnicodeDecodeError) as exc:
        raise EditorFailed(f"{command[0]}: {exc.strerror if isinstance(exc, OSError) else exc}") from exc


@contextlib.contextmanager
def _file_of(text: str, suffix: str) -> Iterator[Path]:
    descriptor, name = tempfile.mkstemp(prefix="synaptic-", suffix=suffix)  # readable by this person alone
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text if text.endswith("\n") else f"{text}\n")
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _saved(path: Path) -> str:
    return path.read_text(encoding="utf-8").removesuffix("\n")


async def _run(command: list[str], terminal: int) -> None:
    # Standard output may be a file: the answer's. An editor draws on the terminal.
    process = await asyncio.create_subprocess_exec(*command, stdin=terminal, stdout=sys.stderr, stderr=sys.stderr)
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        if process.returncode is None:
            process.terminate()
            await process.wait()
        raise
    if code:
        raise EditorFailed(f"{command[0]} ended with exit code {code}")


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # an open quote: then it is no command line, but maybe a path
        return [text]
