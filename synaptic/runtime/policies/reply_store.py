"""Replies on disk: one SQLite file that several processes share. A cache: whatever goes wrong with it fails no call."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from synaptic.messages import BackendNotice, Reporter, ignore_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")

MAX_BYTES = 256 * 1024 * 1024
BUSY_SECONDS = 5.0
"""How long a process waits for another one that writes; a write takes milliseconds."""

SCHEMA_VERSION = 1
_TABLE = (
    "CREATE TABLE IF NOT EXISTS replies "
    "(key TEXT PRIMARY KEY, text TEXT NOT NULL, model TEXT, node TEXT, stored_at REAL NOT NULL)"
)
_INDEX = "CREATE INDEX IF NOT EXISTS by_age ON replies (stored_at)"
_PRIMARY_CODE = 0xFF  # of SQLite's extended error codes
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


@dataclass(frozen=True, slots=True)
class StoredReply:
    """A complete reply, and who gave it."""

    text: str
    model: str | None
    node: str | None


class ReplyStore:
    """Replies by key. Work on the file is done in a thread of its own; the file is opened at the first use.

    A damaged file is moved aside and a new one begun. A file that cannot be used at all is reported once; nothing is
    found then, and nothing is kept.

    Args:
        path: The file; made, with its folder, if it is not there. Only its owner may read it.
        report: Hears of what went wrong.
        max_bytes: How large the file may grow; the oldest replies go first.

    """

    def __init__(self, path: Path, report: Reporter = ignore_report, *, max_bytes: int = MAX_BYTES) -> None:
        self._database = _Database(path, max_bytes)
        self._report = report
        self._thread: ThreadPoolExecutor | None = None
        self._closed = False

    async def get(self, key: str, max_age: float) -> StoredReply | None:
        """Return the reply stored under ``key`` no longer than ``max_age`` seconds ago."""
        return await self._in_thread(lambda: self._database.get(key, max_age))

    async def put(self, key: str, reply: StoredReply) -> None:
        """Store a reply; it takes the place of an older one."""
        await self._in_thread(lambda: self._database.put(key, reply))

    async def remove(self, key: str) -> None:
        """Forget the reply."""
        await self._in_thread(lambda: self._database.remove(key))

    async def aclose(self) -> None:
        """Close the file and end the thread; nothing is found or kept afterwards."""
        self._closed = True
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                await asyncio.get_running_loop().run_in_executor(thread, self._database.close)
            finally:
                thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], T]) -> T | None:
        if self._closed:
            return None
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "replies")
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(self._thread, self._database.guarded, work)
        while self._database.complaints:
            self._report(BackendNotice("cache", self._database.complaints.pop(0), "warning"))
        return result


class _Database:
    """The file, as the one thread sees it."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.complaints: list[str] = []
        self._path = path
        self._max_bytes = max_bytes
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._has_complained = False

    def guarded(self, work: Callable[[], T]) -> T | None:
        """Do ``work``; ``None`` if the file cannot be used."""
        try:
            try:
                return work()
            except sqlite3.DatabaseError as exc:
                if not _is_damage(exc):
                    raise
                self._move_aside(exc)
                return work()
        except UnicodeError:
            return None  # half a character, as a model's JSON may have it, is not a text that SQLite takes
        except (sqlite3.Error, OSError) as exc:
            self.close()
            if not self._has_complained:
                self._has_complained = True
                self.complaints.append(f"replies are not kept for now: {self._path} cannot be used ({exc})")
            return None

    def get(self, key: str, max_age: float) -> StoredReply | None:
        found = self._open().execute("SELECT text, model, node, stored_at FROM replies WHERE key = ?", (key,))
        row, now = found.fetchone(), time.time()
        if row is None or now - row[3] > max_age:
            return None
        if row[3] > now:  # the clock was set back: it is as old as it can be known to be from now on
            self._open().execute("UPDATE replies SET stored_at = ? WHERE key = ?", (now, key))
        return StoredReply(row[0], row[1], row[2])

    def put(self, key: str, reply: StoredReply) -> None:
        connection = self._open()
        row = (key, reply.text, reply.model, reply.node, time.time())
        with _transaction(connection):
            connection.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?)", row)
            self._make_room(connection)

    def remove(self, key: str) -> None:
        self._open().execute("DELETE FROM replies WHERE key = ?", (key,))

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            self._inode = self._path.stat().st_ino
            self._connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
            _prepare(self._connection)
        return self._connection

    def _make_room(self, connection: sqlite3.Connection) -> None:
        """Delete the oldest replies, a tenth at a time, until the pages in use are within the bound."""
        while _bytes_in_use(connection) > self._max_bytes:
            (count,) = connection.execute("SELECT count(*) FROM replies").fetchone()
            if not count:
                return
            oldest = "SELECT key FROM replies ORDER BY stored_at LIMIT ?"
            connection.execute(f"DELETE FROM replies WHERE key IN ({oldest})", (max(1, count // 10),))  # noqa: S608  (two constants)

    def _move_aside(self, damage: sqlite3.DatabaseError) -> None:
        """Start an empty store, unless another process has replaced the file already."""
        self.close()
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_ino != self._inode:
                return
        aside = self._path.with_name(f"{self._path.name}.damaged")
        for ending in ("-wal", "-shm"):
            self._path.with_name(self._path.name + ending).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self._path.replace(aside)
        self.complaints.append(f"the kept replies were damaged ({damage}): moved to {aside}, and an empty file begun")


def _prepare(connection: sqlite3.Connection) -> None:
    """Make the table; several processes may do so at once."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            break
        except sqlite3.OperationalError as exc:
            # SQLite does not wait for the lock that this change takes.
            if _code(exc) not in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED} or time.monotonic() > until:
                raise
            time.sleep(0.01)
    connection.execute("PRAGMA synchronous = NORMAL")
    with _transaction(connection):
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version not in {0, SCHEMA_VERSION}:
            connection.execute("DROP TABLE IF EXISTS replies")
        connection.execute(_TABLE)
        connection.execute(_INDEX)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _bytes_in_use(connection: sqlite3.Connection) -> int:
    pages, unused, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - unused) * size)


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary error code; 0 where Python's own module complains."""
    return int(getattr(error, "sqlite_errorcode", 0)) & _PRIMARY_CODE


def _is_damage(error: sqlite3.Error) -> bool:
    return _code(error) in _DAMAGED
