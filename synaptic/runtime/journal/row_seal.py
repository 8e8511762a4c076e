"""Each row has a digest of itself: SQLite finds damage in its own structure, not in what is kept."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from synaptic.errors import RunDamaged

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from synaptic.runtime.journal.run_rows import EventRow

COLUMNS: Final = (
    "n, id, pipeline, started, ended, status, query, model, calls, tokens, error, parent, forked_at, session, owner,"
    " pinned, bytes"
)
"""Of a row of runs; its seal is over these."""

OPEN_TEXT: Final = "SELECT run, path, part, text, seal FROM open_text"
"""The text of an open call, with its seal, which is over all before it."""

CALL: Final = "at, client, dialect, model, node, status, prompt, completion, estimated, seconds"
RESPONSE: Final = "id, client, previous, at, body"
NOTE: Final = "name, value"
"""Of a row of the usage ledger, of responses, of notes; its seal is over these."""

_DIGITS: Final = 8
_END_OF_JSON: Final = "}"
"""What the body of a row ends with that an older version wrote, without a digest; no digest does."""


def sealed(run: int, row: EventRow) -> str:
    """Return the body of a row of a run with the row's digest behind it."""
    return row.body + _digest(run, row)


def unsealed(run: int, row: EventRow) -> EventRow:
    """Return a row as it was before its body was :func:`sealed`.

    Raises:
        RunDamaged: If it has changed since.
    """
    if row.body.endswith(_END_OF_JSON):
        return row
    whole = row._replace(body=row.body[:-_DIGITS])
    if row.body[-_DIGITS:] != _digest(run, whole):
        raise RunDamaged(f"an event in the record of runs is damaged ({row.kind}, number {row.seq})")
    return whole


def is_whole(values: Sequence[Any], seal: object) -> bool:
    """Return whether a row of :data:`COLUMNS` or :data:`OPEN_TEXT` is as it was sealed."""
    return seal == seal_of(values)


def seal_run(connection: sqlite3.Connection, number: int) -> None:
    """Seal the row of a run as it is now."""
    row = connection.execute(f"SELECT {COLUMNS} FROM runs WHERE n = ?", (number,)).fetchone()  # noqa: S608  (names)
    connection.execute("UPDATE runs SET seal = ? WHERE n = ?", (seal_of(row), number))


@contextmanager
def resealed(connection: sqlite3.Connection, number: int) -> Iterator[None]:
    """Seal the row of a run that the block changes; one that was damaged before stays known as that."""
    row = connection.execute(f"SELECT {COLUMNS}, seal FROM runs WHERE n = ?", (number,)).fetchone()  # noqa: S608
    whole = row is not None and is_whole(row[:-1], row[-1])
    yield
    if whole:
        seal_run(connection, number)


def seal_all(connection: sqlite3.Connection) -> None:
    """Seal what a version wrote that had no seals for it."""
    for (number,) in connection.execute("SELECT n FROM runs").fetchall():
        seal_run(connection, number)
    for *row, _ in connection.execute(OPEN_TEXT).fetchall():
        seal = "UPDATE open_text SET seal = ? WHERE run = ? AND path = ? AND part = ?"
        connection.execute(seal, (seal_of(row), *row[:3]))


def seal_others(connection: sqlite3.Connection) -> None:
    """Seal the rows of the usage ledger, of responses and of notes that a version wrote that had no seals for them."""
    teach_seals(connection)
    for table, columns in (("calls", CALL), ("responses", RESPONSE), ("notes", NOTE)):
        connection.execute(f"UPDATE {table} SET seal = seal_of({columns})")  # noqa: S608  (names)


def teach_seals(connection: sqlite3.Connection) -> None:
    """Let queries of this connection use ``seal_of(COLUMN, ...)``."""
    connection.create_function("seal_of", -1, lambda *values: seal_of(values), deterministic=True)


def seal_of(values: Sequence[Any]) -> str:
    """Return the digest of what a row has."""
    return hashlib.blake2b(repr(tuple(values)).encode(), digest_size=_DIGITS // 2).hexdigest()


def _digest(run: int, row: EventRow) -> str:
    return seal_of((run, *row))
