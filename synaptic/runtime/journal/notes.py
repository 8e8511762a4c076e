"""A few words that the journal keeps under a name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synaptic.runtime.journal.row_seal import NOTE, is_whole, seal_of

if TYPE_CHECKING:
    import sqlite3


def write_note(connection: sqlite3.Connection, name: str, text: str) -> None:
    """Keep words in the place of those that were there.

    Raises:
        sqlite3.Error: If that cannot be done.
    """
    row = (name, text)
    insert = f"INSERT OR REPLACE INTO notes ({NOTE}, seal) VALUES (?, ?, ?)"  # noqa: S608  (names)
    connection.execute(insert, (*row, seal_of(row)))


def read_note(connection: sqlite3.Connection, name: str) -> str | None:
    """Return what is kept under a name; ``None`` where nothing is, or it is damaged."""
    row = connection.execute(f"SELECT {NOTE}, seal FROM notes WHERE name = ?", (name,)).fetchone()  # noqa: S608  (names)
    return str(row[1]) if row is not None and is_whole(row[:-1], row[-1]) else None
