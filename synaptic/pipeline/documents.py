"""Documents: inputs of the types ``file`` and ``files``, read once, when the run begins.

A value is ``{"name": file name, "path": the path as it was given, "text": …}``. Paths that a person gives are read as
any program reads them; paths that a pipeline file gives are relative to its folder and stay inside it.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from synaptic import paths
from synaptic.text import NotRegularFile, cut, did_you_mean, read_regular

MAX_FILE_BYTES: Final = 8 << 20
MAX_FILES: Final = 1000
MAX_ALL_BYTES: Final = 64 << 20

Text: TypeAlias = dict[str, str]
"""``name``, ``path`` and ``text`` of one document; unnamed text has no name and no path."""

_SHOWN: Final = 60
_PATTERN: Final = frozenset("*?[")


class Repeated(tuple[str, ...]):
    """The values of an input that stands several times on the command line, in their order."""

    __slots__ = ()


class FromFile(str):
    """The path of a file whose text is an input's value: ``@notes.txt`` on the command line."""

    __slots__ = ()


def read_files(value: Any, *, folder: Path | None = None) -> list[Text]:
    """Return the documents that ``value`` names.

    Args:
        value: A path, a pattern (``notes/*.txt``, ``**`` for any depth), several of them with commas between them, a
            list of all that, or documents themselves (mappings with ``text``).
        folder: Where relative paths begin, and what they may not leave; ``None``: the working directory, and any path.

    Raises:
        ValueError: With one message for each mistake (``args``), to be read after the input's name.

    """
    reader = _Reader(folder)
    for entry in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
        if isinstance(entry, Mapping):
            reader.add(document_of(entry))
        else:
            for path in reader.paths(entry):
                reader.read(path)
    reader.check()
    return reader.found


def read_file(value: Any, *, folder: Path | None = None) -> Text:
    """Return the document that ``value`` names: a path, taken literally, or a mapping with ``text``.

    Raises:
        ValueError: With one message for each mistake.

    """
    if isinstance(value, Mapping):
        return document_of(value)
    if not isinstance(value, (str, os.PathLike)):
        raise ValueError(f"must be the path of a file, not {value!r}")
    reader = _Reader(folder)
    reader.read(os.fspath(value))
    reader.check()
    return reader.found[0]


def document_of(value: Any) -> Text:
    """Return a document that is given as data: a mapping with ``text``, or the text itself, unnamed.

    Raises:
        ValueError: If it is neither.

    """
    if isinstance(value, str):
        return {"name": "", "path": "", "text": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("text"), str):
        what = f"must be a document (text, or a mapping with 'text'), not {_short(value)}"
        raise ValueError(what)
    return {"name": str(value.get("name") or ""), "path": str(value.get("path") or ""), "text": value["text"]}


def confined(path: str) -> None:
    """Check a path that stands in a pipeline file.

    Raises:
        ValueError: If it is absolute, or climbs out of the folder by its ``..``.

    """
    if Path(path).is_absolute() or path.startswith("~"):
        raise ValueError(f"names {path}, but a path in a pipeline is relative to the pipeline's folder")
    if ".." in Path(path).parts:
        raise ValueError(f"names {path}, which climbs out of the folder")


@dataclass(slots=True)
class _Reader:
    """Reads one file after the other, and counts."""

    folder: Path | None
    found: list[Text] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)
    _bytes: int = 0

    def paths(self, value: Any) -> list[str]:
        """Return the paths that one value names: itself if there is such a file, else what its parts match."""
        if isinstance(value, os.PathLike):
            return [str(os.fspath(value))]
        if not isinstance(value, str):
            self.mistakes.append(f"must be paths of files, not {_short(value)}")
            return []
        if os.path.lexists(self._place(value)):
            return [value]
        parts = [part.strip() for part in value.split(",") if part.strip()]
        return [path for part in parts or [value] for path in self._matches(part)]

    def read(self, path: str) -> None:
        """Read one file, if it was not read before."""
        if path in self._seen:
            return
        self._seen.add(path)
        if len(self._seen) > MAX_FILES:
            return
        try:
            self.add({"name": Path(path).name, "path": path, "text": self._text(path)})
        except ValueError as exc:
            self.mistakes.append(str(exc))
        except OSError as exc:
            self.mistakes.append(f"names {path}, which cannot be read: {exc.strerror or exc}")

    def add(self, document: Text) -> None:
        """Take a document."""
        self.found.append(document)

    def check(self) -> None:
        """Raise what went wrong.

        Raises:
            ValueError: With every message.

        """
        if len(self._seen) > MAX_FILES:
            self.mistakes.append(f"names {len(self._seen)} files; at most {MAX_FILES} are read")
        if self.mistakes:
            raise ValueError(*self.mistakes)

    def _matches(self, pattern: str) -> list[str]:
        if not _PATTERN.intersection(pattern) or os.path.lexists(self._place(pattern)):
            return [pattern]
        if self.folder is not None:
            try:
                confined(pattern)
            except ValueError as exc:
                self.mistakes.append(str(exc))
                return []
        given = pattern if self.folder is not None else os.path.expanduser(pattern)  # noqa: PTH111
        names = glob.glob(given, root_dir=self.folder, recursive=True)  # noqa: PTH207  (keeps the path as it is written)
        files = sorted(name for name in names if not self._place(name).is_dir())
        if not files:
            self.mistakes.append(f"names {pattern}, which matches no file")
        return files

    def _place(self, path: str) -> Path:
        if self.folder is not None:
            return self.folder / path
        return paths.expanded(path)

    def _text(self, path: str) -> str:
        place = self._place(path)
        if self.folder is not None:
            confined(path)
            if not place.resolve().is_relative_to(self.folder.resolve()):
                raise ValueError(f"names {path}, which leads out of the folder")
        data = self._data(path, place)
        self._bytes += len(data)
        if self._bytes > MAX_ALL_BYTES:
            raise ValueError(f"is too much: with {path}, the files hold more than {MAX_ALL_BYTES >> 20} MiB")
        return _decode(data, path)

    def _data(self, path: str, place: Path) -> bytes:
        try:
            data = read_regular(place, MAX_FILE_BYTES)
        except FileNotFoundError:
            raise ValueError(f"names {path}, which is not there; {_near(place)}") from None
        except IsADirectoryError:
            raise ValueError(f"names the folder {path}; write {path.rstrip('/')}/* for the files in it") from None
        except NotRegularFile as exc:
            raise ValueError(f"names {path}, which is no ordinary file: {exc.strerror}") from None
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"names {path}, which is longer than {MAX_FILE_BYTES >> 20} MiB")
        return data


def _decode(data: bytes, path: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise ValueError(f"names {path}, which is not UTF-8 text (line {line})") from None
    if "\0" in text:
        raise ValueError(f"names {path}, which is no text: it holds NUL characters")
    return text.replace("\r\n", "\n")


def _near(place: Path) -> str:
    """Return what may have been meant by a file that is not there."""
    if not place.parent.is_dir():
        return f"there is no folder {place.parent}"
    try:
        names = [entry.name for entry in place.parent.iterdir() if not entry.name.startswith(".")]
    except OSError:
        return "its folder cannot be listed"
    suggestion = did_you_mean(place.name, names)
    return suggestion if suggestion.startswith("did you mean") else f"there is no such file in {place.parent}"


def _short(value: object) -> str:
    return cut(repr(value), _SHOWN)
