"""Which runs make room, and what goes with them: a text goes with the last run that has it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from synaptic.errors import JournalError
from synaptic.processes import bytes_in_use, despite_full_disk, shrink, transaction
from synaptic.runtime.journal.notes import read_note, write_note
from synaptic.runtime.journal.reader import Reader, all_runs
from synaptic.runtime.journal.tables import has_words
from synaptic.runtime.journal.writing import indexed

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from synaptic.runtime.journal.reader import KeptRun

ROOM: Final = 0.9
"""The part of its bound that a record is brought to, so that not every run makes room again."""

_LAST: Final = "pruned"


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed.

    Attributes:
        runs: How many.
        bytes: By how much what is in use of the file became less.
        at: When, in seconds since the epoch.
    """

    runs: int
    bytes: int
    at: float


def prune(
    connection: sqlite3.Connection,
    *,
    keep: int | None = None,
    before: float | None = None,
    max_bytes: int | None = None,
    in_place: bool = True,
) -> Pruned:
    """Remove runs, the oldest first; pinned ones and those that are at work stay.

    Args:
        connection: Of the journal.
        keep: The latest so many stay, whatever else is asked; asked alone, all others go.
        before: Those that were begun before this time go, in seconds since the epoch.
        max_bytes: The oldest go until so much of the file is in use.
        in_place: Whether the file may be changed in place where the disk is full; then it is this connection's alone
            until that is closed.

    Raises:
        sqlite3.Error: If the file cannot be written; each run is removed as a whole, or not at all.
    """
    began = bytes_in_use(connection)

    with despite_full_disk(connection, may=in_place) as do:

        def without(run: KeptRun, _: int) -> int:
            do(lambda: _remove(connection, run))
            return bytes_in_use(connection)

        count = len(_go(connection, keep, before, max_bytes, without))
        do(lambda: shrink(connection))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return Pruned(count, began - bytes_in_use(connection), time.time())


def to_prune(
    connection: sqlite3.Connection,
    *,
    keep: int | None = None,
    before: float | None = None,
    max_bytes: int | None = None,
) -> list[KeptRun]:
    """Return the runs that :func:`prune` would remove, the oldest first; with ``max_bytes``, about these."""
    return _go(connection, keep, before, max_bytes, lambda run, in_use: in_use - run.bytes)


def _go(
    connection: sqlite3.Connection,
    keep: int | None,
    before: float | None,
    max_bytes: int | None,
    without: Callable[[KeptRun, int], int],
) -> list[KeptRun]:
    """Return the runs that go, the oldest first; ``without`` lets one go and returns the bytes in use then."""
    alone = keep is not None and before is None and max_bytes is None
    in_use = bytes_in_use(connection)
    gone: list[KeptRun] = []
    for run in removable(list(all_runs(connection)), keep):
        by_age = before is not None and run.started < before
        if by_age or alone or (max_bytes is not None and in_use > max_bytes):
            in_use = without(run, in_use)
            gone.append(run)
        elif before is None:
            break
    return gone


def removable(runs: Sequence[KeptRun], keep: int | None) -> Iterator[KeptRun]:
    """Yield the runs that may go, the oldest first; ``runs`` has the latest first."""
    for run in reversed(runs[keep or 0 :]):
        if not run.pinned and not run.at_work:
            yield run


def remove_runs(connection: sqlite3.Connection, runs: Iterable[KeptRun]) -> None:
    """Remove these runs, pinned or not.

    Raises:
        sqlite3.Error: If the file cannot be written; each run is removed as a whole, or not at all.
    """
    with despite_full_disk(connection) as do:
        for run in runs:
            do(partial(_remove, connection, run))
        do(lambda: shrink(connection))


def make_room(connection: sqlite3.Connection, max_bytes: int) -> None:
    """Remove the oldest runs of a record that has outgrown its bound, and note it."""
    if bytes_in_use(connection) <= max_bytes:
        return
    pruned = prune(connection, max_bytes=int(max_bytes * ROOM), in_place=False)
    if pruned.runs:
        write_note(connection, _LAST, json.dumps(asdict(pruned)))


def last_pruned(connection: sqlite3.Connection) -> Pruned | None:
    """Return what was removed the last time that the record made room by itself."""
    text = read_note(connection, _LAST)
    return None if text is None else Pruned(**json.loads(text))


def _remove(connection: sqlite3.Connection, run: KeptRun) -> None:
    with transaction(connection):
        texts = [row[0] for row in connection.execute("SELECT blob FROM uses WHERE run = ?", (run.number,))]
        for table, column in (("events", "run"), ("open_text", "run"), ("uses", "run"), ("runs", "n")):
            connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (run.number,))  # noqa: S608  (constants)
        unused = "SELECT n, hash FROM blobs WHERE n = ? AND NOT EXISTS (SELECT 1 FROM uses WHERE blob = n)"
        gone = [row for number in texts for row in connection.execute(unused, (number,))]
        if has_words(connection):
            _forget_words(connection, gone)
        connection.executemany("DELETE FROM blobs WHERE n = ?", [(number,) for number, _ in gone])


def _forget_words(connection: sqlite3.Connection, gone: Sequence[tuple[int, bytes]]) -> None:
    reader = Reader(connection)
    for number, name in gone:
        try:
            text = reader.text(name)
        except JournalError:
            continue  # it is damaged: its words lead to nothing from now on
        forget = "INSERT INTO words (words, rowid, text) VALUES ('delete', ?, ?)"
        connection.execute(forget, (number, indexed(text)))
