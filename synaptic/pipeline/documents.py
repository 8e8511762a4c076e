"""Documents: inputs of the types ``file`` and ``files``, read once, when the run begins.

A value is ``{"name": file name, "path": the path as it was given, "text": …}``. Paths that a person gives are read as
any program reads them; paths that a pipeline file gives are relative to its folder and stay inside it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from synaptic import paths
from synaptic.pipeline.file_patterns import has_pattern, matching
from synaptic.pipeline.file_texts import is_binary, text_of
from synaptic.text import LeadsOut, NotRegularFile, broken_link, cut, did_you_mean, one_line, read_beneath, read_regular

MAX_FILE_BYTES: Final = 8 << 20
MAX_FILES: Final = 1000
MAX_ALL_BYTES: Final = 64 << 20
MAX_IN_FOLDER: Final = 200
"""Files that are read where only their folder is named; a pattern says that more are meant."""

LEFT_OUT: Final = frozenset({"__pycache__", "node_modules", "venv", "build", "dist", "target"})
"""Folders inside a folder that are not read, nor those whose names begin with a dot: nobody wrote what is in them."""

Text: TypeAlias = dict[str, str]
"""``name``, ``path`` and ``text`` of one document; unnamed text has no name and no path."""

_SHOWN: Final = 60
_LONGEST_PATH: Final = 4095  # bytes, on Linux
_FIRST_BYTES: Final = 4096


class Repeated(tuple[str, ...]):
    """The values of an input that stands several times on the command line, in their order."""

    __slots__ = ()


class FromFile(str):
    """The path of a file whose text is an input's value: ``@notes.txt`` on the command line."""

    __slots__ = ()


class ClientText(str):
    """What a client of the gateway wrote, who may not name files of this machine: it is a document, and no path."""

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


def refuse_blank(found: Sequence[Text], named: Sequence[str] = ()) -> None:
    """Refuse files that hold no text: a model would make up what stands in them.

    One file of many may be empty, as those of a folder or a pattern are; not one that is named by itself.

    Raises:
        ValueError: With a message for each file.
    """
    blank = [document["path"] for document in found if document["path"] and not document["text"].strip()]
    refused = blank if len(blank) == len(found) else [path for path in blank if path in named]
    if refused:
        raise ValueError(*(f"names {path}, which is empty; name a file with text in it" for path in refused))


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
            return self._matches(value)
        if "\n" in value or len(os.fsencode(value)) > _LONGEST_PATH:
            self.mistakes.append(f"takes paths, and this is a text: {one_line(value, _SHOWN)}; pipe it in, or ask it")
            return []
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
        if self.folder is None and paths.is_dir(self._place(pattern)):
            return self._inside(pattern)
        if not has_pattern(pattern) or os.path.lexists(self._place(pattern)):
            return [pattern]
        if self.folder is not None:
            try:
                confined(pattern)
            except ValueError as exc:
                self.mistakes.append(str(exc))
                return []
        given = pattern if self.folder is not None else os.path.expanduser(pattern)  # noqa: PTH111
        try:
            files = sorted({name for name in matching(given, self.folder) if not paths.is_dir(self._place(name))})
        except ValueError as exc:
            self.mistakes.append(str(exc))
            return []
        if not files:
            self.mistakes.append(f"names {pattern}, which matches no file")
        return files

    def _inside(self, folder: str) -> list[str]:
        """Return the files in a folder and in those inside it, but what no person reads: pictures, programs, caches."""
        found: list[str] = []
        start = self._place(folder)
        inside = paths.resolved(start)
        for here, folders, names in os.walk(start):
            folders[:] = sorted(name for name in folders if name not in LEFT_OUT and not name.startswith("."))
            for name in sorted(names):
                file = Path(here) / name
                if name.startswith(".") or not paths.is_file(file) or _is_binary(file):
                    continue
                if paths.resolved(file).is_relative_to(inside):  # who names a folder knows not where its links lead
                    found.append(str(Path(folder) / file.relative_to(start)))
                if len(found) > MAX_IN_FOLDER:
                    what = f"names the folder {folder}, in which there are more than {MAX_IN_FOLDER} files"
                    self.mistakes.append(f"{what}; write a pattern, such as {folder.rstrip('/')}/*.md")
                    return []
        if not found:
            self.mistakes.append(f"names the folder {folder}, in which there is no text")
        return found

    def _place(self, path: str) -> Path:
        if self.folder is not None:
            return self.folder / path
        return paths.expanded(path)

    def _text(self, path: str) -> str:
        place = self._place(path)
        if self.folder is not None:
            confined(path)
        data = self._data(path, place)
        self._bytes += len(data)
        if self._bytes > MAX_ALL_BYTES:
            raise ValueError(f"is too much: with {path}, the files hold more than {MAX_ALL_BYTES >> 20} MiB")
        return text_of(data, path)

    def _data(self, path: str, place: Path) -> bytes:
        try:
            if self.folder is None:
                data = read_regular(place, MAX_FILE_BYTES)
            else:
                data = read_beneath(self.folder, place, MAX_FILE_BYTES)
        except LeadsOut:
            raise ValueError(f"names {path}, which leads out of the folder") from None
        except FileNotFoundError:
            raise ValueError(f"names {path}, which is not there; {_near(place)}") from None
        except IsADirectoryError:
            raise ValueError(f"names the folder {path}; write {path.rstrip('/')}/* for the files in it") from None
        except NotRegularFile as exc:
            raise ValueError(f"names {path}: {exc.strerror}") from None
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"names {path}, which is longer than {MAX_FILE_BYTES >> 20} MiB")
        return data


def _is_binary(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return is_binary(opened.read(_FIRST_BYTES))
    except OSError:
        return False  # reading it says what is wrong


def _near(place: Path) -> str:
    """Return what may have been meant by a file that is not there."""
    if link := broken_link(place):
        return link
    if not paths.is_dir(place.parent):
        return f"there is no folder {place.parent}"
    try:
        names = [entry.name for entry in place.parent.iterdir() if not entry.name.startswith(".")]
    except OSError:
        return "its folder cannot be listed"
    suggestion = did_you_mean(place.name, names)
    return suggestion if suggestion.startswith("did you mean") else f"there is no such file in {place.parent}"


def _short(value: object) -> str:
    return cut(repr(value), _SHOWN)
