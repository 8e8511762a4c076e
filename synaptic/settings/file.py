"""Settings files on disk: read whole with positions, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synaptic.errors import ConfigError, Problem
from synaptic.paths import APP
from synaptic.processes import lock, replace_file, write_whole
from synaptic.settings.trusted import follow_change
from synaptic.text import JsonDocument, NotTextError, decoded, edits, parse_json, read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_BYTES = 1024 * 1024
NEW_FILE_MODE = 0o600
LOCK_SECONDS = 5.0
_MOST_SLIPS = 2
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


def read_settings_file(path: Path, *, shown: str | None = None) -> JsonDocument | None:
    """Read a JSON object with the position of every key.

    Args:
        path: The file.
        shown: Its name in messages; the path itself unless given.

    Returns:
        The document, or ``None`` if there is no such file. ``/dev/null`` is a file without settings.

    Raises:
        ConfigError: If it is there but is not a readable JSON object; nothing else is raised.
    """
    source = shown if shown is not None else str(path)
    data = _read(path, source)
    if data is None:
        return None
    if not data and str(path) == os.devnull:
        return JsonDocument(source, {})
    text = _decode(data, source)
    if not text.strip():
        raise _error(source, "the file is empty", suggestion="write {} into it, or remove it", line=1)
    document = parse_json(text, source)
    if not isinstance(document.value, dict):
        raise _error(source, "the file must hold one JSON object", suggestion='write {"model": "llama3.1:8b"}', line=1)
    return document


def write_settings_file(path: Path, value: Mapping[str, Any], *, before: JsonDocument | None = None) -> None:
    """Replace the file by ``value``, atomically: a reader sees the old text or the new, never a part.

    A symbolic link is written through. Mode and owner are kept; a new file is the user's alone.

    Args:
        path: The file.
        value: What it is to hold.
        before: What was read from it, if it was there: trust in that goes over to what is written.

    Raises:
        ConfigError: If it cannot be written; the old file is then as it was.
    """
    target = Path(os.path.realpath(path))
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    try:
        if target.exists() and not target.is_file():
            raise _error(str(path), "the file cannot be written: not a regular file", suggestion="name another")
        replace_file(target, text.encode())
        if before is not None:
            follow_change(path, before.text, text)
    except OSError as exc:
        raise _cannot("written", str(path), exc) from exc


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Keep other processes of ours from changing the file between reading it and writing it.

    Its directory is locked, which leaves nothing behind. Where that cannot be, or takes longer than 5 seconds, the
    change is made all the same: what is written is whole in any case.
    """
    try:
        descriptor = os.open(Path(os.path.realpath(path)).parent, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield  # there is nothing to lock, and writing will say so
        return
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            lock(descriptor, patience=LOCK_SECONDS)
        yield
    finally:
        os.close(descriptor)


def back_up(path: Path) -> Path:
    """Copy the file to ``NAME.bak`` beside it, or ``NAME.bak.1`` and so on: no backup is ever overwritten.

    Returns:
        The path of the backup.

    Raises:
        ConfigError: If the file cannot be read or the backup cannot be written.
    """
    try:
        data = read_regular(path, MAX_BYTES)
        number = 0
        while True:
            backup = path.with_name(f"{path.name}.bak" + (f".{number}" if number else ""))
            with contextlib.suppress(FileExistsError):
                descriptor = os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL, NEW_FILE_MODE)
                write_whole(descriptor, data, like=path)
                return backup
            number += 1
    except OSError as exc:
        raise _cannot("backed up", str(path), exc) from exc


def misnamed(right: Path) -> str:
    """Return the name of a file beside where a settings file belongs that is nearly called like it, "" if none is.

    Args:
        right: The settings file; where it is there, its neighbours do not matter.
    """
    with contextlib.suppress(OSError):
        if not os.path.lexists(right):
            return min(filter(_nearly_named, os.listdir(right.parent)), default="")  # noqa: PTH208 - a name is enough
    return ""


def _nearly_named(name: str) -> bool:
    stem, dot, ending = name.casefold().removesuffix(".txt").rpartition(".")
    letters = re.sub("[._ -]", "", stem)
    if not dot or not ending.startswith("json"):
        return False
    return letters == "synaptic" or (abs(len(letters) - len(APP)) <= _MOST_SLIPS >= edits(letters, APP))


def _read(path: Path, source: str) -> bytes | None:
    try:
        if str(path) == os.devnull:
            return b""
        data = read_regular(path, MAX_BYTES)
    except FileNotFoundError as exc:
        if path.is_symlink():
            raise _error(
                source, "a link to a file that does not exist", suggestion="remove the link or mend it"
            ) from exc
        return None
    except NotADirectoryError:
        return None
    except IsADirectoryError as exc:
        raise _error(
            source, "a directory, where a settings file belongs", suggestion="move it away, or name a file"
        ) from exc
    except (OSError, ValueError) as exc:
        raise _cannot("read", source, exc) from exc
    if len(data) > MAX_BYTES:
        raise _error(
            source, "the file is larger than 1 MiB, too large for settings", suggestion="check that it is the right one"
        )
    return data


def _decode(data: bytes, source: str) -> str:
    if data.startswith(_UTF16_BOMS):
        raise _error(source, "the file is written in UTF-16", suggestion="save it as UTF-8", line=1)
    try:
        return decoded(data)
    except NotTextError as exc:
        raise _error(source, f"the file {exc}", suggestion=exc.hint, line=exc.line) from None


def _cannot(done: str, source: str, exc: OSError | ValueError) -> ConfigError:
    reason = (exc.strerror if isinstance(exc, OSError) else str(exc)) or type(exc).__name__
    suggestion = "check its permissions and its owner" if isinstance(exc, PermissionError) else None
    return _error(source, f"the file cannot be {done}: {reason}", suggestion=suggestion)


def _error(source: str, message: str, *, suggestion: str | None, line: int | None = None) -> ConfigError:
    problem = Problem(message, source, line, None if line is None else 1, suggestion)
    return ConfigError(str(problem), problems=[problem])
