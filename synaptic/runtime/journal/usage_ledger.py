"""The usage ledger: it takes each call as it ends; one thread writes them into the journal's file, many at a time."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Final, TypeAlias

from synaptic.errors import JournalError
from synaptic.messages import Reporter, ignore_report
from synaptic.processes import is_damage
from synaptic.runtime.journal.file_writer import FileWriter
from synaptic.runtime.journal.usage_rows import UsedCall, forget_old_calls, insert_calls

if TYPE_CHECKING:
    from pathlib import Path

GROUP_SECONDS: Final = 0.05
"""How long a call waits for others to be written with it."""

AGAIN_SECONDS: Final = 1.0
"""How long after a failure calls wait for the next try."""

MOST_WAITING: Final = 100_000
"""Calls that are kept for a file that cannot be written; older ones are given up."""

ABOUT: Final = "usage"


class UsageLedger(FileWriter):
    """Writes calls into one file; nothing is opened before the first.

    What goes wrong with the file fails no call: it is said once, and tried again with the calls that follow.

    Args:
        path: The journal's file.
        report: Hears of what went wrong.
    """

    def __init__(self, path: Path, *, report: Reporter = ignore_report) -> None:
        super().__init__(path, ABOUT, report)
        self._queue: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._hurried = threading.Event()

    def add(self, call: UsedCall) -> None:
        """Take a call; returns at once."""
        self._begin_thread()
        self._queue.put(call)
        self._say()

    async def settled(self) -> None:
        """Return once all that was taken is in the file, or could not be written."""
        if self._thread is not None:
            written = threading.Event()
            self._queue.put(written)
            self._hurried.set()
            await asyncio.to_thread(written.wait)
        self._say()

    def _tell_end(self) -> None:
        self._queue.put(None)
        self._hurried.set()

    # -- what the thread does ------------------------------------------------------------------------------

    def _work(self) -> None:
        calls: list[UsedCall] = []
        cleared = False
        while True:
            items = self._group(AGAIN_SECONDS if calls else None)
            calls += [item for item in items if isinstance(item, UsedCall)]
            del calls[:-MOST_WAITING]
            if calls and self._wrote(calls):
                calls = []
                if not cleared:
                    cleared = True
                    with contextlib.suppress(sqlite3.Error):  # they are in nobody's way until the next start
                        forget_old_calls(self._file.open(), time.time())
            for item in items:
                if isinstance(item, threading.Event):
                    item.set()
            if None in items:
                break
        self._file.close()

    def _group(self, patience: float | None) -> list[_Item]:
        """Return what came in while a group was waited for; nothing if nothing came in time."""
        items: list[_Item] = []
        try:
            items.append(self._queue.get(timeout=patience))
            # Asleep, and not in the queue: there, each call would wake the thread, which costs as much as its row.
            self._hurried.wait(GROUP_SECONDS)
            self._hurried.clear()
            while True:
                items.append(self._queue.get_nowait())
        except queue.Empty:
            return items

    def _wrote(self, calls: list[UsedCall]) -> bool:
        """Write calls; return whether they are in the file."""
        try:
            if self._file.is_replaced():
                self._file.close()
            try:
                insert_calls(self._file.open(), calls)
            except sqlite3.DatabaseError as exc:
                if not is_damage(exc):
                    raise
                self._move_aside(exc)
                insert_calls(self._file.open(), calls)
        except (OSError, sqlite3.Error, JournalError) as exc:
            self._file.close()
            self._complain(f"the usage of clients is not written: {self._reason(exc)}")
            return False
        self._went_well()
        return True


_Item: TypeAlias = UsedCall | threading.Event | None
"""A call, somebody who waits until all before is written, or the end."""
