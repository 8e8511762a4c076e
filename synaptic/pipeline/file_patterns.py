"""Patterns of file names: what they match, in a bounded time, whatever links a folder has."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MOST_FOLDERS: Final = 20_000
"""That are looked into for one pattern; a few links that lead back would make any number of them."""

_MAGIC: Final = re.compile(r"[*?\[]")
_SEPARATORS: Final = re.compile(r"[\\/]+" if os.sep == "\\" else "/+")


def has_pattern(text: str) -> bool:
    """Return whether a text may match several names."""
    return _MAGIC.search(text) is not None


def matching(pattern: str, folder: Path | None = None) -> Iterator[str]:
    """Yield the paths that a pattern matches, as it is written: ``**`` is folders of any depth, but no links.

    Names that begin with a dot are matched by patterns that do.

    Args:
        pattern: Relative to ``folder``, or absolute.
        folder: The working directory unless it is said.

    Raises:
        ValueError: If more folders are to be looked into than is sensible.
    """
    drive, path = os.path.splitdrive(pattern)
    parts = _SEPARATORS.split(path)
    start = drive + (os.sep if len(parts) > 1 and not parts[0] else "")
    wanted = [part for part in parts if part]
    once = [part for part, before in zip(wanted, [None, *wanted], strict=False) if (part, before) != ("**", "**")]
    yield from _Search(pattern, folder).below(start, once)


class _Search:
    """One search, and how much it has looked into."""

    def __init__(self, pattern: str, folder: Path | None) -> None:
        self._pattern = pattern
        self._root = "" if folder is None else str(folder)
        self._left = MOST_FOLDERS

    def below(self, start: str, parts: list[str]) -> Iterator[str]:
        """Yield what the parts of a pattern match in a folder; ``start`` is "" for the one where it begins."""
        if not parts:
            return
        part, *rest = parts
        if part == "**":
            for here in self._folders(start):
                yield from self.below(here, rest or ["*"])
            return
        names = self._names(start, part) if has_pattern(part) else [part]
        for name in names:
            place = os.path.join(start, name)  # noqa: PTH118  (a Path would not stay as it was written)
            if rest:
                yield from self.below(place, rest)
            elif os.path.lexists(self._place(place)):
                yield place

    def _folders(self, start: str) -> Iterator[str]:
        """Yield a folder and all that are inside it."""
        waiting = [start]
        while waiting:
            yield (here := waiting.pop())
            for name in self._names(here, "*"):
                place = os.path.join(here, name)  # noqa: PTH118
                full = self._place(place)
                if os.path.isdir(full) and not os.path.islink(full):  # noqa: PTH112, PTH114
                    waiting.append(place)

    def _names(self, folder: str, part: str) -> list[str]:
        if self._left == 0:
            raise ValueError(f"names {self._pattern}, for which more than {MOST_FOLDERS} folders would be looked into")
        self._left -= 1
        try:
            names = os.listdir(self._place(folder) or ".")  # noqa: PTH208
        except OSError:
            return []
        return sorted(name for name in names if name[0] != "." or part[0] == "." if fnmatch(name, part))

    def _place(self, path: str) -> str:
        return os.path.join(self._root, path)  # noqa: PTH118
