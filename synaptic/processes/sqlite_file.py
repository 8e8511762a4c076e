"""An SQLite file that several processes of one person share: opened with care, and moved aside where it is damaged."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from typing import TYPE_CHECKING, Final

from synaptic.processes.private_files import open_private, own_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BUSY_SECONDS: Final = 5.0
"""How long a process waits for another one that writes; a write takes milliseconds."""

_PRIMARY_CODE: Final = 0xFF  # of SQLite's extended error codes
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_NO_ROOM: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_BUSY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_BESIDE: Final = ("-wal", "-shm")


class SqliteFile:
    """One file, its connection, and which file that connection is to. For one thread at a time.

    Args:
        path: The file; made, with its folder, if it is not there. Only its owner may read it.
        prepare: Makes the tables of a file that was opened, inside a transaction.
        busy_seconds: How long to wait for another process that writes.
        brief: Whether it is open for a moment only: where the disk has no room for what SQLite keeps beside the file
            for several processes to share, this one keeps all others out meanwhile.
    """

    def __init__(
        self,
        path: Path,
        prepare: Callable[[sqlite3.Connection], None],
        *,
        busy_seconds: float = BUSY_SECONDS,
        brief: bool = False,
    ) -> None:
        self.path = path
        self._prepare = prepare
        self._busy_seconds = busy_seconds
        self._brief = brief
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    def open(self) -> sqlite3.Connection:
        """Return the connection; the file is opened, and its tables made, the first time.

        Raises:
            OSError: If the file cannot be made or opened.
            sqlite3.Error: If it is damaged, or another process keeps it.
        """
        if self._connection is None:
            own_folder(self.path.parent, 0o700)
            self._make()
            self._inode = self.path.stat().st_ino
            try:
                self._connection = self._opened()
            except sqlite3.Error as exc:
                if self._brief and is_out_of_room(exc):
                    self._connection = self._opened(alone=True)
                elif self._brief and self._cannot_change():
                    self._connection = self._opened_to_read()
                else:
                    raise
        return self._connection

    def _cannot_change(self) -> bool:
        """Return whether all of the file is in its place, on a disk that may only be read."""
        log = self.path.with_name(self.path.name + "-wal")
        read_only = hasattr(os, "ST_RDONLY") and bool(os.statvfs(self.path).f_flag & os.ST_RDONLY)
        return read_only and not (log.exists() and log.stat().st_size)

    def _opened_to_read(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?immutable=1", uri=True, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA trusted_schema = OFF")
            _refuse_programs(connection)
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _opened(self, *, alone: bool = False) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False
        )
        try:
            if alone:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            if connection.execute("PRAGMA page_count").fetchone() == (0,):
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # so that it can be made smaller later
            connection.execute("PRAGMA trusted_schema = OFF")
            _refuse_programs(connection)
            self._write_ahead(connection)
            if not self._is_prepared(connection):
                with transaction(connection):
                    self._prepare(connection)
        except UnicodeDecodeError as exc:  # SQLite quotes the damaged words of a schema, which are none then
            connection.close()
            raise _damage("its schema is damaged") from exc
        except BaseException:
            connection.close()
            raise
        return connection

    def _is_prepared(self, connection: sqlite3.Connection) -> bool:
        """Return whether there is nothing to prepare: then nobody waits for a process that writes."""
        connection.execute("PRAGMA query_only = ON")
        try:
            self._prepare(connection)
        except sqlite3.OperationalError as exc:
            if error_code(exc) != sqlite3.SQLITE_READONLY:
                raise
            return False
        else:
            return True
        finally:
            connection.execute("PRAGMA query_only = OFF")

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def is_replaced(self) -> bool:
        """Return whether another file, or none, is where the opened one was."""
        try:
            return self.path.stat().st_ino != self._inode
        except OSError:
            return True

    def move_aside(self, aside: Path) -> bool:
        """Move a damaged file to ``aside``, unless another process has done so already; return whether it was moved.

        What was written and is not in the file proper yet goes with it: somebody may still want to save it.
        """
        self.close()
        with contextlib.suppress(FileNotFoundError):
            if self._inode and self.path.stat().st_ino != self._inode:
                return False
        moved = False
        for ending in ("", *_BESIDE):
            with contextlib.suppress(FileNotFoundError):
                self.path.with_name(self.path.name + ending).replace(aside.with_name(aside.name + ending))
                moved = True
        return moved

    def _make(self) -> None:
        """Make the file where there is none, so that only its owner may read it.

        One that is there is not opened here: to close it again would take from this process every lock that its other
        connections hold on it, and the next process to close the file would remove the log that they write to
        (SQLite documentation, "How To Corrupt An SQLite Database File", section 2.2).
        """
        with contextlib.suppress(FileExistsError):
            os.close(open_private(os.path.realpath(self.path), os.O_RDWR | os.O_CREAT | os.O_EXCL))

    def _write_ahead(self, connection: sqlite3.Connection) -> None:
        until = time.monotonic() + self._busy_seconds
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL").fetchone()
            except sqlite3.OperationalError as exc:
                # SQLite does not wait for the lock that this change takes.
                if error_code(exc) not in _BUSY or time.monotonic() > until:
                    raise
                time.sleep(0.01)
            else:
                break
        connection.execute("PRAGMA synchronous = NORMAL")


def _refuse_programs(connection: sqlite3.Connection) -> None:
    """Refuse a file that holds queries of its own, which would run when ours do: we make none.

    Raises:
        sqlite3.DatabaseError: As for any other damage.
    """
    found = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('view', 'trigger')").fetchone()
    if found is not None:
        raise _damage(f"it has a view or a trigger, {found[0]!r}, which is not ours")


def _damage(what: str) -> sqlite3.DatabaseError:
    damage = sqlite3.DatabaseError(what)
    damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return damage


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Do what the block does as a whole, or not at all; waits for another process that writes.

    Raises:
        sqlite3.Error: If it cannot be done.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def despite_full_disk(
    connection: sqlite3.Connection, *, may: bool = True
) -> Iterator[Callable[[Callable[[], object]], None]]:
    """Give what does things that make the file smaller, also where the disk has no room for what SQLite writes before.

    Then, where that ``may`` be, the file is changed in place: it is damaged if the system fails at that very moment, or
    the process is killed; no other process may have it open, nor can one open it before the connection is closed.

    Raises:
        sqlite3.Error: If it cannot be done.
    """
    in_place = False

    def do(change: Callable[[], object]) -> None:
        nonlocal in_place
        if not in_place:
            try:
                change()
            except sqlite3.Error as exc:
                if not may or not is_out_of_room(exc):
                    raise
                _keep_others_out(connection, exc)
                in_place = True
            else:
                return
        change()
        shrink(connection)

    try:
        yield do
    finally:
        if in_place:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            connection.execute("PRAGMA locking_mode = NORMAL").fetchone()


def _keep_others_out(connection: sqlite3.Connection, full: sqlite3.Error) -> None:
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchone()
        connection.execute("PRAGMA journal_mode = MEMORY").fetchone()
    except sqlite3.Error as exc:
        connection.execute("PRAGMA locking_mode = NORMAL").fetchone()
        raise (full if error_code(exc) in _BUSY else exc) from exc  # another process has it open


def bytes_in_use(connection: sqlite3.Connection) -> int:
    """Return what the pages take that hold something."""
    pages, unused, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - unused) * size)


def shrink(connection: sqlite3.Connection, pages: int = 0) -> None:
    """Give pages back that hold nothing any more, at most so many; 0 is all."""
    # As a script: of a statement without columns, Python does one step only, and each step gives one page back.
    connection.executescript(f"PRAGMA incremental_vacuum({pages})")


def error_code(error: sqlite3.Error) -> int:
    """Return SQLite's primary error code; 0 where Python's own module complains."""
    return int(getattr(error, "sqlite_errorcode", 0)) & _PRIMARY_CODE


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether the file is damaged, or no database at all."""
    return error_code(error) in _DAMAGED


def is_out_of_room(error: sqlite3.Error) -> bool:
    """Return whether the disk may be full: of a file beside the database that does not fit, SQLite says no more."""
    return error_code(error) in _NO_ROOM
