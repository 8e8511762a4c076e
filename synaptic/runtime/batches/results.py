"""The file of a batch's results: it grows by a line a run, and says what need not be run again.

Beside it, while the batch is not complete, stands ``.NAME.open``: which run works on which item, written before the
run begins, so that the journal goes on with the runs that were cut off. A Parquet file cannot grow by a row: its rows
are lines in ``.NAME.rows`` while a batch is at work, and the table is made of them, whole, when that ends.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self, TextIO

from synaptic import paths
from synaptic.errors import UsageError
from synaptic.processes import lock, replace_file
from synaptic.runtime.batches.parquet import check_tables, is_table, result_rows, result_table
from synaptic.text import read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

MOST_BYTES: Final = 16 << 30
DONE: Final = frozenset({"succeeded", "stopped"})
"""How a run ended that is not tried again."""
_FIRST: Final = '{"key": "'
"""How every row begins."""


@dataclass(slots=True)
class Results:
    """What is known of a batch, and where more is written.

    Attributes:
        done: Keys of the items that succeeded.
        runs: The last run of each item that did not: to be gone on with.
    """

    file: Path
    done: set[str] = field(default_factory=set)
    runs: dict[str, str] = field(default_factory=dict)
    _made_by: str = ""
    _out: TextIO | None = None
    _open: TextIO | None = None

    @classmethod
    def open(cls, file: Path, made_by: str) -> Self:
        """Return the results that a file has; rows of failed runs go, and so does a row that was cut off.

        Args:
            file: Where they are or will be: lines of JSON, or a table where it ends in ``.parquet``.
            made_by: What tells the pipeline and the model from others.

        Raises:
            UsageError: If the file holds something else, results of another pipeline, cannot be written, or another
                program writes it; of a table also if pyarrow is not installed.
        """
        if not file.name:
            raise UsageError(f"{file}: this is no name of a file of results")
        if is_table(file):
            check_tables()
        if not paths.is_dir(file.parent):
            raise UsageError(f"{file}: there is no folder {file.parent}", hint="make it first, or name another one")
        results = cls(file)
        try:
            results._begin(made_by)
        except OSError as exc:
            results.close(begun=False)
            raise UsageError(f"{file}: results cannot be written there: {exc.strerror or exc}") from exc
        except BaseException:
            results.close(begun=False)
            raise
        return results

    @property
    def _open_file(self) -> Path:
        return self.file.with_name(f".{self.file.name}.open")

    @property
    def _lines(self) -> Path:
        return self.file.with_name(f".{self.file.name}.rows") if is_table(self.file) else self.file

    def _begin(self, made_by: str) -> None:
        self._open = os.fdopen(_appended(self._open_file), "a+", encoding="utf-8")
        if not lock(self._open.fileno()):
            self._open.close()
            self._open = None  # it is the other one's
            raise UsageError(f"another program writes to {self.file}", hint="wait for it, or name another file with -o")
        kept = []
        source = self.file if self.file.exists() and not self._lines.exists() else self._lines
        for number, row in self._kept(source):
            if not isinstance(row.get("key"), str) or "status" not in row:
                raise UsageError(
                    f"{source}:{number} is no result of a batch", hint="name another file with -o: it stays as it is"
                )
            if row.get("made_by") != made_by:
                raise UsageError(
                    f"{source} holds results of another pipeline, of an earlier text of it, or of another model",
                    hint="name another file with -o, or move it away",
                )
            if row["status"] in DONE:
                self.done.add(row["key"])
                kept.append(row)
            elif row.get("run_id"):
                self.runs[row["key"]] = row["run_id"]
        for _, row in self._rows(self._open_file):
            key, run_id = row.get("key"), row.get("run_id")
            if (
                row.get("made_by") == made_by
                and isinstance(key, str)
                and isinstance(run_id, str)
                and key not in self.done
            ):
                self.runs[key] = run_id
        self._made_by = made_by
        replace_file(self._lines, "".join(map(_line, kept)).encode())
        self._out = self._lines.open("a", encoding="utf-8")

    def _kept(self, source: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        if source == self._lines:
            return self._rows(source)
        return iter(enumerate(result_rows(source, limit=MOST_BYTES), 1))

    @staticmethod
    def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the rows of a file with their numbers: an empty one for what is none; without one that was cut off."""
        if not file.exists():
            return
        *lines, last = read_text(file, "result", UsageError, limit=MOST_BYTES).split("\n")
        if not last.startswith(_FIRST[: len(last)]):
            lines.append(last)
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = {}
            yield number, row if isinstance(row, dict) else {}

    def begin(self, key: str, run_id: str) -> None:
        """Have it known that a run works on an item; a kill of this process does not lose that.

        Raises:
            UsageError: If it cannot be written.
        """
        self._append(self._open, {"key": key, "run_id": run_id, "made_by": self._made_by})

    def add(self, key: str, row: Mapping[str, Any]) -> None:
        """Write the result of an item, as one line.

        Raises:
            UsageError: If it cannot be written.
        """
        self._append(self._out, {"key": key, **row, "made_by": self._made_by})

    def _append(self, stream: TextIO | None, row: Mapping[str, Any]) -> None:
        assert stream is not None
        try:
            stream.write(_line(row))
            stream.flush()
        except OSError as exc:
            raise UsageError(f"{self.file}: no result can be written any more: {exc.strerror or exc}") from exc

    def put_in_order(self, keys: Iterable[str]) -> None:
        """Put the rows in the order of their items.

        Raises:
            UsageError: If the file cannot be written anew: the rows stay as they were.
        """
        assert self._out is not None
        rows = {row["key"]: row for _, row in self._rows(self._lines)}
        try:
            replace_file(self._lines, "".join(_line(rows[key]) for key in keys if key in rows).encode())
        except OSError as exc:
            what = f"{self.file}: all results are there, but cannot be put in order: {exc.strerror or exc}"
            raise UsageError(what, hint="make room, and the same command does so; or give --as-they-end") from exc

    def close(self, *, complete: bool = False, begun: bool = True) -> None:
        """Close the files; what says which runs are open goes if there are none.

        Args:
            complete: Whether all results are there.
            begun: Whether anything was begun.

        Raises:
            UsageError: If a table cannot be written: its rows stay where they are.
        """
        try:
            if self._out is not None:
                with contextlib.suppress(OSError):
                    os.fsync(self._out.fileno())
                with contextlib.suppress(OSError):
                    self._out.close()
                if is_table(self.file):
                    self._make_table()
        finally:
            if self._open is not None:
                if complete or (not begun and not os.fstat(self._open.fileno()).st_size):
                    self._open_file.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # it holds what could not be written, and that was said
                    self._open.close()

    def _make_table(self) -> None:
        rows = [row for _, row in self._rows(self._lines)]
        try:
            if rows or self.file.exists():
                replace_file(self.file, result_table(rows))
        except OSError as exc:
            raise UsageError(f"{self.file}: the table cannot be written: {exc.strerror or exc}") from exc
        self._lines.unlink()


def _appended(file: Path) -> int:
    """Open a file whose name others can guess, to write at its end: no link of theirs leads to another one."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
    return os.open(file, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o600)


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
