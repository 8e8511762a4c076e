"""Which folders a person trusts: remembered by folder, file and content, so that what changes is asked about again.

What is in a folder may come from anyone who writes in it. What a file there says counts in full once the person has
seen it (``synaptic trust``), or for one call (``--trust-folder``). The text that is compared is the one that is used:
no file is read twice.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from synaptic import paths
from synaptic.processes import only_one, read_json, replace_json, told
from synaptic.text import legible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

VARIABLE: Final = "SYNAPTIC_TRUST_FOLDER"
ADVICE: Final = "to see and allow it: synaptic trust"

Record: TypeAlias = "dict[str, dict[str, str]]"
"""Folder -> file in it -> digest of its text."""

_ON: Final = frozenset({"1", "true", "yes", "on"})
_ABOUT: Final = "which says which folders are trusted"
_MOST_NAMED: Final = 8
_for_this_call: ContextVar[bool] = ContextVar("folders are trusted", default=False)


@contextmanager
def trusting() -> Iterator[None]:
    """Trust every folder until the block ends: for one command line."""
    token = _for_this_call.set(True)
    try:
        yield
    finally:
        _for_this_call.reset(token)


def is_trusted(folder: Path, name: str, text: str, environ: Mapping[str, str] | None = None) -> bool:
    """Return whether a file counts in full.

    Its name is that in the folder, as in ``agents/editor.md``; ``environ`` is the process's own unless given.
    """
    if _for_this_call.get() or (os.environ if environ is None else environ).get(VARIABLE, "").strip().lower() in _ON:
        return True
    return _recorded().get(_key(folder), {}).get(name) == _digest(text)


def trust_folder(folder: Path, texts: Mapping[str, str]) -> None:
    """Remember that the person trusts a folder with these files (name -> text), and no others.

    Raises:
        UsageError: If that cannot be written.
    """
    _change(_key(folder), {name: _digest(text) for name, text in texts.items()})


def forget_folder(folder: Path) -> bool:
    """Trust a folder no longer, and return whether it was.

    Raises:
        UsageError: If that cannot be written.
    """
    return _change(_key(folder), None)


def follow_change(file: Path, before: str, after: str) -> None:
    """Let trust in a file go on after a change that the person asked this program for.

    Raises:
        UsageError: If that cannot be written.
    """
    files = _recorded().get(_key(file.parent), {})
    if files.get(file.name) == _digest(before):
        _change(_key(file.parent), {**files, file.name: _digest(after)})


def trusted_folders() -> Record:
    """Return every folder that is trusted, and which files are, with the digest of each.

    Raises:
        UsageError: If the file that says so is damaged.
    """
    file = paths.trusted_folders_file()
    with told(file, _ABOUT, "read", if_damaged=f"remove {file}"):
        return _checked(read_json(file, missing={}))


def left_out_line(folder: Path, what: Sequence[str]) -> str:
    """Return one line that says what of a folder does not count, "" if that is nothing."""
    if not what:
        return ""
    why = "has changed since it was trusted" if _key(folder) in _recorded() else "is not trusted"
    more = len(what) - _MOST_NAMED
    named = ", ".join([*what[:_MOST_NAMED], *([f"{more} more"] if more > 0 else [])])
    return f"this folder {why}; left out: {legible(named)}; {ADVICE}"


def advice_for(folder: Path) -> str:
    """Return how a person trusts a folder that need not be the one they are in."""
    return f"{ADVICE} {shlex.quote(str(folder.absolute()))}"


def _key(folder: Path) -> str:
    return os.path.realpath(folder)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _recorded() -> Record:
    """Return what is recorded; nothing where that cannot be read: then nothing is trusted."""
    try:
        return _checked(read_json(paths.trusted_folders_file(), missing={}))
    except (OSError, ValueError):
        return {}


def _checked(document: Any) -> Record:
    if not isinstance(document, dict) or not all(isinstance(files, dict) for files in document.values()):
        raise ValueError("it is no table of folders")
    return document


def _change(key: str, files: dict[str, str] | None) -> bool:
    """Put the files of a folder into the record, or take it out; return whether it was there."""
    file = paths.trusted_folders_file()
    with told(file, _ABOUT, "written", if_damaged=f"remove {file}"), only_one(file):
        record = _checked(read_json(file, missing={}))
        known = record.pop(key, None) is not None
        if files is not None:
            record[key] = files
        if known or files is not None:
            replace_json(file, record)
    return known
