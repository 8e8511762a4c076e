"""Rows into the file: the one place that writes runs, in the one thread of its recorder."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from synaptic.processes import shrink, transaction
from synaptic.runtime.journal.owner import Owner
from synaptic.runtime.journal.row_seal import resealed, seal_of, seal_run, sealed
from synaptic.runtime.journal.tables import has_words

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from synaptic.processes import SqliteFile
    from synaptic.runtime.events import Descent, RunFinished
    from synaptic.runtime.journal.kept_texts import Packed
    from synaptic.runtime.journal.run_rows import Rows, RunHead, RunRows

INDEXED_CHARACTERS: Final = 1_000_000
"""Of one text, whose words are found."""

_USES_BASE: Final = (
    "INSERT OR IGNORE INTO uses SELECT base.n, ? FROM blobs JOIN blobs base ON base.hash = blobs.base"
    " WHERE blobs.hash = ?"
)
"""A text that another run has kept may be packed against one of that run's: it is needed here, too."""

_ALONE: Final = "UPDATE blobs SET base = NULL, packed = ?, size = ?, body = ? WHERE hash = ? AND base IS NOT NULL"
"""A text that another run has packed against one of its own: here others may be packed against it."""

_ROW_BYTES: Final = 40
_PAGES_GIVEN_BACK: Final = 1000
_NO_WORD: Final = re.compile(r"\w{40,}")
_SHOWN: Final = 1000


def write(file: SqliteFile, runs: Sequence[RunRows]) -> None:
    """Write what there is of the runs, as one whole.

    Raises:
        OSError: If the file cannot be opened.
        sqlite3.Error: If it cannot be written; nothing of it was.
        JournalTooNew: If it is not one that this version may write.
    """
    changed = [run for run in runs if run.has_rows]
    if not changed:
        return
    if all(run.number is None for run in runs) and file.is_replaced():
        file.close()
    connection = file.open()
    with transaction(connection):
        for run in changed:
            _write(connection, run)


def _write(connection: sqlite3.Connection, run: RunRows) -> None:
    rows = run.taken()
    fresh, used = run.texts.taken()
    if rows.begun is not None:
        run.number, first = _begin(connection, rows.begun)
        if first:
            rows.events = [row._replace(seq=row.seq + first) for row in rows.events]
            run.goes_on_from(first)
    if run.number is None:
        return
    number = run.number
    size = _put_texts(connection, fresh, number)
    if used:
        uses = "INSERT OR IGNORE INTO uses SELECT n, ? FROM blobs WHERE hash = ?"
        connection.executemany(uses, [(number, name) for name in used])
    if rows.events:
        insert = "INSERT INTO events (run, seq, at, kind, path, key, body) VALUES (?, ?, ?, ?, ?, ?, ?)"
        connection.executemany(insert, ((number, *row[:-1], sealed(number, row)) for row in rows.events))
        size += sum(len(row.body) + _ROW_BYTES for row in rows.events)
    if rows.closed:
        void = "DELETE FROM open_text WHERE run = ? AND path = ?"
        connection.executemany(void, [(number, path) for path in rows.closed])
    if rows.opened:
        grown = "INSERT OR REPLACE INTO open_text (run, path, part, text, seal) VALUES (?, ?, ?, ?, ?)"
        parts = [(number, *part) for part in rows.opened]
        connection.executemany(grown, [(*part, seal_of(part)) for part in parts])
    with resealed(connection, number):
        _update(connection, number, rows, size)


def _update(connection: sqlite3.Connection, number: int, rows: Rows, size: int) -> None:
    """Change the row of a run by what has come."""
    connection.execute(
        "UPDATE runs SET bytes = bytes + ?, calls = calls + ?, tokens = tokens + ? WHERE n = ?",
        (size, rows.calls, rows.tokens, number),
    )
    if rows.waits is not None:
        connection.execute("UPDATE runs SET status = ? WHERE n = ?", ("waiting" if rows.waits else "running", number))
    if rows.ended is not None:
        _end(connection, number, rows.ended, rows.error)


def _begin(connection: sqlite3.Connection, begun: RunHead) -> tuple[int, int]:
    """Return the number of a run and of its first event: one that is known goes on, one that was only asked begins."""
    owner = Owner.this().written()
    known = connection.execute("SELECT n, text FROM runs WHERE id = ?", (begun.run_id,)).fetchone()
    if known is not None and known[1] is not None:
        anew = "UPDATE runs SET status = 'running', ended = NULL, error = NULL, owner = ? WHERE n = ?"
        with resealed(connection, known[0]):
            connection.execute(anew, (owner, known[0]))
        (last,) = connection.execute("SELECT max(seq) FROM events WHERE run = ?", (known[0],)).fetchone()
        return known[0], 0 if last is None else last + 1
    descent = begun.descent
    row = {
        "id": begun.run_id,
        "pipeline": begun.pipeline,
        "text": begun.text,
        "started": begun.at,
        "status": "running",
        "query": None if begun.query is None else _sayable(begun.query),
        "model": begun.model,
        "parent": descent.parent,
        "forked_at": descent.forked_at,
        "owner": owner,
    }
    if known is not None:
        connection.execute("DELETE FROM events WHERE run = ?", known[:1])
        change = ", ".join(f"{name} = :{name}" for name in row)
        with resealed(connection, known[0]):
            connection.execute(f"UPDATE runs SET {change} WHERE id = :id", row)  # noqa: S608  (names of columns)
        return known[0], 0
    row["session"] = begun.run_id if _is_overtaken(connection, descent) else descent.session
    names = ", ".join(row)
    places = ", ".join(f":{name}" for name in row)
    made = connection.execute(f"INSERT INTO runs ({names}) VALUES ({places})", row)  # noqa: S608  (names of columns)
    assert made.lastrowid is not None, "an inserted row has a number"
    seal_run(connection, made.lastrowid)
    return made.lastrowid, 0


def _is_overtaken(connection: sqlite3.Connection, descent: Descent) -> bool:
    """Return whether something was begun in a conversation since it was looked at; here no program comes between."""
    if descent.session is None or descent.last is None:
        return False
    query = "SELECT id FROM runs WHERE session = ? ORDER BY n DESC LIMIT 1"
    last = connection.execute(query, (descent.session,)).fetchone()
    return last is not None and last[0] != descent.last


def _end(connection: sqlite3.Connection, number: int, event: RunFinished, error: str | None) -> None:
    result = event.result
    connection.execute(
        "UPDATE runs SET ended = ?, status = ?, error = ? WHERE n = ?",
        (result.ended_at, result.status, None if error is None else _sayable(error), number),
    )
    connection.execute("DELETE FROM open_text WHERE run = ?", (number,))


def _put_texts(connection: sqlite3.Connection, fresh: list[Packed], number: int) -> int:
    """Write texts that are not in the file yet, and the words in them; return the bytes that they take."""
    size = 0
    words = has_words(connection) if fresh else False
    for each in fresh:
        made = connection.execute(
            "INSERT OR IGNORE INTO blobs (hash, base, packed, size, body) VALUES (?, ?, ?, ?, ?)",
            (each.hash, each.base, each.packed, each.size, each.body),
        )
        if not made.rowcount:
            if each.base is None:
                connection.execute(_ALONE, (each.packed, each.size, each.body, each.hash))
            connection.execute(_USES_BASE, (number, each.hash))
            continue
        size += len(each.body) + _ROW_BYTES
        if words:
            connection.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (made.lastrowid, indexed(each.text)))
    return size


def give_back(file: SqliteFile) -> None:
    """Give pages back that hold nothing any more, as many as take a moment."""
    shrink(file.open(), _PAGES_GIVEN_BACK)


def leave(file: SqliteFile, run_ids: Sequence[str]) -> None:
    """Have runs be interrupted that have ended here without having been recorded to their end."""
    if not run_ids:
        return
    here = Owner.this()
    gone = replace(here, mark=f"{here.mark} gave it up")
    still_here = "SELECT n FROM runs WHERE id = ? AND status IN ('running', 'waiting') AND owner = ?"
    connection = file.open()
    for run_id in run_ids:
        with transaction(connection):
            for (number,) in connection.execute(still_here, (run_id, here.written())).fetchall():
                with resealed(connection, number):
                    connection.execute("UPDATE runs SET owner = ? WHERE n = ?", (gone.written(), number))


def indexed(text: str) -> str:
    """Return what of a text is in the index of words: not what is no word at all, as in encoded data."""
    return _NO_WORD.sub(" ", _sayable(text, INDEXED_CHARACTERS))


def _sayable(text: str, limit: int = _SHOWN) -> str:
    """Return the beginning of a text as SQLite takes it: without halves of characters."""
    return text[:limit].encode("utf-8", "replace").decode()
