"""The tables of the journal's file, and how a file of an older version becomes one of this version."""

from __future__ import annotations

import sqlite3
from typing import Final

from synaptic.errors import JournalTooNew
from synaptic.runtime.journal.row_seal import seal_all, seal_others

_RUNS: Final = """
CREATE TABLE runs (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    pipeline TEXT NOT NULL,
    text BLOB,
    started REAL NOT NULL,
    ended REAL,
    status TEXT NOT NULL,
    query TEXT,
    model TEXT,
    calls INTEGER NOT NULL DEFAULT 0,
    tokens INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    parent TEXT,
    forked_at TEXT,
    session TEXT,
    owner TEXT NOT NULL,
    pinned INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0
)
"""
_EVENTS: Final = """
CREATE TABLE events (
    run INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    path TEXT,
    key BLOB,
    body TEXT NOT NULL,
    PRIMARY KEY (run, seq)
) WITHOUT ROWID
"""
_VALUES: Final = """
CREATE TABLE blobs (
    n INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    base BLOB,
    packed INTEGER NOT NULL,
    size INTEGER NOT NULL,
    body BLOB NOT NULL
)
"""
_USES: Final = "CREATE TABLE uses (blob INTEGER NOT NULL, run INTEGER NOT NULL, PRIMARY KEY (blob, run)) WITHOUT ROWID"
_OPEN_TEXT: Final = """
CREATE TABLE open_text (
    run INTEGER NOT NULL,
    path TEXT NOT NULL,
    part INTEGER NOT NULL,
    text BLOB NOT NULL,
    PRIMARY KEY (run, path, part)
) WITHOUT ROWID
"""
_WORDS: Final = (
    "CREATE VIRTUAL TABLE words USING fts5"
    "(text, content='', columnsize=0, detail=none, tokenize='unicode61 remove_diacritics 2')"
)
"""Which words are in which value. It keeps neither texts nor places of words: a value that has all is looked into."""

_CALLS: Final = """
CREATE TABLE calls (
    n INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    client TEXT,
    dialect TEXT NOT NULL,
    model TEXT NOT NULL,
    node TEXT,
    status TEXT NOT NULL,
    prompt INTEGER NOT NULL,
    completion INTEGER NOT NULL,
    estimated INTEGER NOT NULL,
    seconds REAL NOT NULL
)
"""
"""The usage ledger: the calls of a gateway's clients, without anything of what was said."""

_RESPONSES: Final = """
CREATE TABLE responses (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    client TEXT NOT NULL,
    previous TEXT,
    at REAL NOT NULL,
    body BLOB NOT NULL
)
"""
"""What clients of a gateway have been told, and may go on from."""

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        _RUNS,
        "CREATE INDEX runs_by_start ON runs (started)",
        _EVENTS,
        "CREATE INDEX events_by_key ON events (key) WHERE key IS NOT NULL AND kind = 'StepFinished'",
        _VALUES,
        _USES,
        "CREATE INDEX uses_by_run ON uses (run)",
        _OPEN_TEXT,
        "CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
        _WORDS,
    ),
    ("ALTER TABLE runs ADD COLUMN seal TEXT", "ALTER TABLE open_text ADD COLUMN seal TEXT"),
    (_CALLS, "CREATE INDEX calls_by_time ON calls (at)"),
    (_RESPONSES, "CREATE INDEX responses_by_time ON responses (at)"),
    tuple(f"ALTER TABLE {table} ADD COLUMN seal TEXT" for table in ("calls", "responses", "notes")),
)
"""From each version to the next, the first from an empty file."""

VERSION: Final = len(MIGRATIONS)
_SEALED: Final = 2
"""From this version on, each row of runs and of open texts has a seal."""

_ALL_SEALED: Final = 5
"""From this version on, each row of the usage ledger, of responses and of notes has one, too."""


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a file to this version, inside the caller's transaction.

    Raises:
        JournalTooNew: If a newer version of the program wrote it; nothing was changed.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise JournalTooNew(
            f"the journal was written by a newer version of this program (its form {version}, known here {VERSION})",
            hint="update this program; or move the file away, and a new one is begun",
        )
    if version == VERSION:
        return
    for steps in MIGRATIONS[version:]:
        for step in steps:
            _execute(connection, step)
    if version < _SEALED:
        seal_all(connection)
    if version < _ALL_SEALED:
        seal_others(connection)
    connection.execute(f"PRAGMA user_version = {VERSION}")


def has_words(connection: sqlite3.Connection) -> bool:
    """Return whether there is an index of words: a few builds of SQLite cannot make one."""
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'words'").fetchone() is not None


def _execute(connection: sqlite3.Connection, step: str) -> None:
    try:
        connection.execute(step)
    except sqlite3.OperationalError as exc:
        if "no such module" not in str(exc):
            raise
