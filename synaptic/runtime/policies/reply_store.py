"""Replies on disk: one SQLite file that several processes share. A cache: whatever goes wrong with it fails no call.

Each row has a digest of itself: SQLite finds damage in its own structure, but not in what is kept in it.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from synaptic.messages import BackendNotice, Reporter, ignore_report
from synaptic.processes import SqliteFile, bytes_in_use, is_damage, transaction
from synaptic.text import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

MAX_BYTES = 256 * 1024 * 1024
SCHEMA_VERSION = 2
_TABLE = (
    "CREATE TABLE IF NOT EXISTS replies "
    "(key TEXT PRIMARY KEY, text TEXT NOT NULL, model TEXT, node TEXT, stored_at REAL NOT NULL, digest TEXT NOT NULL)"
)
_INDEX = "CREATE INDEX IF NOT EXISTS by_age ON replies (stored_at)"


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
        self._file = SqliteFile(path, _prepare)
        self._max_bytes = max_bytes
        self._has_complained = False

    def guarded(self, work: Callable[[], T]) -> T | None:
        """Do ``work``; ``None`` if the file cannot be used."""
        try:
            try:
                return work()
            except sqlite3.DatabaseError as exc:
                if not is_damage(exc):
                    raise
                self._move_aside(exc)
                return work()
        except UnicodeError:
            return None  # half a character, as a model's JSON may have it, is not a text that SQLite takes
        except (sqlite3.Error, OSError) as exc:
            self.close()
            if not self._has_complained:
                self._has_complained = True
                what = f"{self._file.path} cannot be used ({reason_of(exc)})"
                self.complaints.append(f"replies are not kept for now: {what}")
            return None

    def get(self, key: str, max_age: float) -> StoredReply | None:
        # As bytes: what is damaged need not be UTF-8, nor of the type that its column has.
        query = "SELECT CAST(text AS BLOB), CAST(model AS BLOB), CAST(node AS BLOB), stored_at, digest FROM replies"
        row = self._file.open().execute(f"{query} WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        *said, stored_at, digest = row
        if digest != _digest(key, *said, stored_at):
            self.remove(key)
            self.complaints.append(f"a kept reply was damaged, and is asked for again ({self._file.path})")
            return None
        now = time.time()
        if now - stored_at > max_age:
            return None
        text, model, node = (None if part is None else part.decode() for part in said)
        reply = StoredReply(text or "", model, node)
        if stored_at > now:  # the clock was set back: it is as old as it can be known to be from now on
            self.put(key, reply)
        return reply

    def put(self, key: str, reply: StoredReply) -> None:
        connection, now = self._file.open(), time.time()
        said = (reply.text, reply.model, reply.node)
        digest = _digest(key, *(None if part is None else part.encode() for part in said), now)
        with transaction(connection):
            connection.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?)", (key, *said, now, digest))
            self._make_room(connection)

    def remove(self, key: str) -> None:
        self._file.open().execute("DELETE FROM replies WHERE key = ?", (key,))

    def close(self) -> None:
        self._file.close()

    def _make_room(self, connection: sqlite3.Connection) -> None:
        """Delete the oldest replies, a tenth at a time, until the pages in use are within the bound."""
        while bytes_in_use(connection) > self._max_bytes:
            (count,) = connection.execute("SELECT count(*) FROM replies").fetchone()
            if not count:
                return
            oldest = "SELECT key FROM replies ORDER BY stored_at LIMIT ?"
            connection.execute(f"DELETE FROM replies WHERE key IN ({oldest})", (max(1, count // 10),))  # noqa: S608  (two constants)

    def _move_aside(self, damage: sqlite3.DatabaseError) -> None:
        """Start an empty store, unless another process has replaced the file already."""
        path = self._file.path
        aside = path.with_name(f"{path.name}.damaged")
        if self._file.move_aside(aside):
            said = f"the kept replies were damaged ({damage}): moved to {aside}, and an empty file begun"
            self.complaints.append(said)


def _digest(key: str, *columns: object) -> str:
    """Return the digest of a row, of whatever types its columns have by now."""
    return hashlib.sha256(repr((key, *columns)).encode()).hexdigest()


def _prepare(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version not in {0, SCHEMA_VERSION}:
        connection.execute("DROP TABLE IF EXISTS replies")
    connection.execute(_TABLE)
    connection.execute(_INDEX)
    if version != SCHEMA_VERSION:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
