"""A thread that writes into the journal's file for a program: how it begins and ends, and what it says of the file."""

from __future__ import annotations

import asyncio
import atexit
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from synaptic.errors import JournalError
from synaptic.messages import BackendNotice
from synaptic.processes import SqliteFile
from synaptic.runtime.journal.run_ids import new_run_id
from synaptic.runtime.journal.tables import migrate
from synaptic.text import reason_of

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from synaptic.messages import Reporter

CLOSING_SECONDS: Final = 10.0
"""How long the end of the program waits for what is not written yet."""


class FileWriter(ABC):
    """Owns the thread; what it takes and how it writes that, its kinds know.

    Args:
        path: The journal's file; nothing is opened before the thread begins.
        about: What the thread is called, and its notices are about.
        report: Hears once of each thing that went wrong; again once that has gone well in between.
    """

    def __init__(self, path: Path, about: str, report: Reporter) -> None:
        self._file = SqliteFile(path, migrate)
        self._about = about
        self._report = report
        self._thread: threading.Thread | None = None
        self._complaints: list[str] = []
        self._said: set[str] = set()

    @abstractmethod
    def _work(self) -> None:
        """Do what the thread does, until it is told to end."""

    @abstractmethod
    def _tell_end(self) -> None:
        """Have the thread write what there is, at once, and end."""

    async def aclose(self) -> None:
        """Write what there is and end the thread."""
        if self._thread is not None:
            await asyncio.to_thread(self.close)
        self._say()

    def close(self) -> None:
        """Do what :meth:`aclose` does, and wait for it."""
        thread, self._thread = self._thread, None
        if thread is not None:
            atexit.unregister(self.close)
            self._tell_end()
            thread.join(CLOSING_SECONDS)
            if thread.is_alive():
                self._complain(f"not all is written: another process keeps {self._file.path}, or its disk is slow")

    def _begin_thread(self) -> None:
        """Start the thread, if it does not run."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._about, daemon=True)
            self._thread.start()
            atexit.register(self.close)

    def _say(self) -> None:
        """Report what the thread has complained of."""
        while self._complaints:
            self._report(BackendNotice(self._about, self._complaints.pop(0), "warning"))

    def _complain(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._complaints.append(text)

    def _went_well(self) -> None:
        """Note that the file was written: what goes wrong from now on is said again."""
        self._said.clear()

    def _move_aside(self, damage: sqlite3.DatabaseError) -> None:
        """Put the damaged file beside, so that an empty one is begun."""
        path = self._file.path
        aside = path.with_name(f"{path.name}.damaged-{new_run_id()}")
        if self._file.move_aside(aside):
            self._complain(f"the record of runs was damaged ({damage}): moved to {aside}, and an empty one begun")

    def _reason(self, error: Exception) -> str:
        """Return why the file cannot be written."""
        return error.message if isinstance(error, JournalError) else f"{self._file.path}: {reason_of(error)}"
