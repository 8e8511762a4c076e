"""Who records runs: it takes their events as they happen, and a thread of its own writes them, many at a time.

Whatever goes wrong with the file fails no run: it is said once, and the runs go on without being recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from synaptic.errors import JournalError
from synaptic.messages import Reporter, ignore_report
from synaptic.processes import error_code, is_damage
from synaptic.runtime.events import (
    ApprovalAsked,
    ApprovalGiven,
    BackendReported,
    Event,
    RunFinished,
    RunStarted,
    StepAsked,
    StepFinished,
)
from synaptic.runtime.journal.file_writer import FileWriter
from synaptic.runtime.journal.retention import make_room
from synaptic.runtime.journal.run_rows import OPEN_SECONDS, RunRows
from synaptic.runtime.journal.writing import give_back, leave, write
from synaptic.text import spelled, without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from synaptic.messages import BackendReport

JournalMode: TypeAlias = Literal["off", "normal", "full"]

GROUP_SECONDS: Final = 0.05
SOON_SECONDS: Final = 0.002
"""How long events wait for others to be written with them: less where it would be dear to lose them."""
_SOON: Final = frozenset({RunStarted, StepFinished, StepAsked, ApprovalAsked, ApprovalGiven, RunFinished})
ABOUT: Final = "journal"

_TRIES: Final = 2
"""How often another process that writes is waited for, as long as a file is waited for each time."""
_LATE_SECONDS: Final = 600.0
"""How long what that process keeps out of the file is kept in memory, once it was waited for in vain."""


class Recording:
    """Takes the events of one run."""

    def __init__(self, recorder: Recorder, rows: RunRows, take: Callable[[_Item], None]) -> None:
        self._recorder = recorder
        self._rows = rows
        self._take = take

    def handle(self, event: Event) -> None:
        """Take an event; returns at once."""
        self._take((self._rows, event))
        if type(event) in _SOON:
            self._recorder.write_soon()
            if type(event) is RunFinished:
                self._recorder.forget(self)


class Recorder(FileWriter):
    """Writes runs into one file; nothing is opened before the first of them.

    Args:
        path: The file.
        mode: ``full`` waits for the disk wherever :meth:`settled` is awaited; ``normal`` survives the end of the
            process, but of the last moments before a power cut some may be lost.
        secrets: Texts that never enter the file, however they are spelled.
        report: Hears once of what went wrong.
    """

    def __init__(
        self,
        path: Path,
        mode: JournalMode = "normal",
        *,
        max_bytes: int | None = None,
        secrets: Iterable[str] = (),
        report: Reporter = ignore_report,
    ) -> None:
        super().__init__(path, ABOUT, report)
        self.mode = mode
        self._max_bytes = max_bytes
        self._secrets = spelled(secrets)
        self._recordings: list[Recording] = []
        self._left: list[str] = []
        self._queue: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._urgent = threading.Event()
        self._at_once = threading.Event()
        self._late: dict[RunRows, None] = {}
        self._late_since = 0.0

    # -- what the loop calls -------------------------------------------------------------------------------

    def begin(self) -> Recording:
        """Return what takes the events of a run that is about to begin."""
        self._say()
        self._begin_thread()
        hold_back = max(map(len, self._secrets), default=1) - 1
        recording = Recording(self, RunRows(self._cleaned, hold_back), self._queue.put)
        self._recordings.append(recording)
        return recording

    async def add(self, events: Iterable[Event]) -> None:
        """Record a few events of a run that is known and goes on later; return once they are in the file."""
        recording = self.begin()
        for event in events:
            recording.handle(event)
        self.forget(recording)
        await self.settled()

    def forget(self, recording: Recording) -> None:
        """Note that a run has ended."""
        self._recordings.remove(recording)

    def write_soon(self) -> None:
        """Let what was taken be written within a few milliseconds; say what went wrong with what was taken before."""
        if not self._urgent.is_set():
            self._urgent.set()
        self._say()

    def reported(self, report: BackendReport) -> None:
        """Take a report of a backend: it belongs to all runs that are under way."""
        for recording in self._recordings:
            recording.handle(BackendReported(report))

    async def settled(self) -> None:
        """Return once all that was taken is in the file, or will not be soon."""
        if self._thread is not None:
            loop = asyncio.get_running_loop()
            done = loop.create_future()
            self._at_once.set()
            self._urgent.set()
            self._queue.put(_Settled(loop, done))
            await done
        self._say()

    def _tell_end(self) -> None:
        self._at_once.set()
        self._urgent.set()
        self._queue.put(None)

    def _cleaned(self, text: str) -> str:
        return without_secrets(text, self._secrets)

    # -- what the thread does ------------------------------------------------------------------------------

    def _work(self) -> None:
        open_runs: dict[RunRows, None] = {}
        while True:
            items = self._group(patience=OPEN_SECONDS if open_runs or self._late else None)
            taken: dict[RunRows, list[Event]] = {run: [] for run in (*self._late, *open_runs)}
            waiting = []
            for item in items:
                if isinstance(item, tuple):
                    taken.setdefault(item[0], []).append(item[1])
                elif item is not None:
                    waiting.append(item)
            self._record(taken, to_the_end=None in items)
            for run, events in taken.items():
                if run.lost:
                    self._left += [event.result.run_id for event in events if isinstance(event, RunFinished)]
            for settled in waiting:
                settled.tell()
            if None in items:
                break
            open_runs = {run: None for run in taken if run.has_open_text}
        with contextlib.suppress(sqlite3.Error, OSError, JournalError):
            give_back(self._file)
        self._file.close()

    def _group(self, patience: float | None) -> list[_Item]:
        """Return what came in while a group was waited for; nothing if nothing came in time."""
        items: list[_Item] = []
        try:
            items.append(self._queue.get(timeout=patience))
            if self._urgent.wait(GROUP_SECONDS):
                self._at_once.wait(SOON_SECONDS)
            self._urgent.clear()
            self._at_once.clear()
            while True:
                items.append(self._queue.get_nowait())
        except queue.Empty:
            return items

    def _record(self, taken: dict[RunRows, list[Event]], *, to_the_end: bool) -> None:
        """Write the events of some runs; what cannot be written is put off where that can help, else given up."""
        for run, events in taken.items():
            run.take_all(events)
        runs = [run for run in taken if not run.lost]
        begun = [run for run in runs if run.number is not None]
        if begun and self._file.is_replaced():
            self._give_up(begun, JournalError(f"{self._file.path} was removed, or another file put in its place"))
            runs = [run for run in runs if not run.lost]
        try:
            self._write(runs, 1 if self._late and not to_the_end else _TRIES)
        except sqlite3.DatabaseError as exc:
            if error_code(exc) == sqlite3.SQLITE_BUSY and not to_the_end:
                self._put_off(runs, exc)
            elif is_damage(exc):
                self._begin_anew(taken, exc)
            else:
                self._give_up(runs, exc)
        except (OSError, JournalError) as exc:
            self._give_up(runs, exc)
        else:
            if runs:
                self._wrote()

    def _wrote(self) -> None:
        """Have runs be interrupted of which the end could not be written, now that the file can be."""
        self._late.clear()
        self._went_well()
        with contextlib.suppress(sqlite3.Error, OSError, JournalError):
            leave(self._file, self._left)
            self._left.clear()

    def _write(self, runs: list[RunRows], tries: int) -> None:
        for left in reversed(range(tries)):
            try:
                write(self._file, runs)
                if self._max_bytes is not None and any(run.ended for run in runs):
                    make_room(self._file.open(), self._max_bytes)
            except sqlite3.OperationalError as exc:
                if error_code(exc) != sqlite3.SQLITE_BUSY or not left:
                    raise
            else:
                return

    def _begin_anew(self, taken: dict[RunRows, list[Event]], damage: sqlite3.DatabaseError) -> None:
        """Move the damaged file aside, and go on in a new one with the runs that have just begun."""
        self._late.clear()
        try:
            self._move_aside(damage)
            begun = [run for run, events in taken.items() if events and isinstance(events[0], RunStarted)]
            for run in taken:
                run.lost = run not in begun
            for run in begun:
                run.restart()
                run.take_all(taken[run])
            self._write(begun, _TRIES)
        except (sqlite3.Error, OSError, JournalError) as exc:
            self._give_up(list(taken), exc)

    def _put_off(self, runs: list[RunRows], error: Exception) -> None:
        """Keep what another process keeps out of the file until that is done: its rows are not taken yet."""
        now = time.monotonic()
        if not self._late:
            self._late_since = now
        elif now - self._late_since > _LATE_SECONDS:
            self._give_up(runs, error)
            return
        self._late = dict.fromkeys(run for run in runs if run.has_rows)
        if self._late:
            self._complain(f"what runs now is not recorded yet: {self._reason(error)}; it is kept until it can be")

    def _give_up(self, runs: list[RunRows], error: Exception) -> None:
        """Record nothing more of some runs, and say so."""
        self._file.close()
        self._late.clear()
        for run in runs:
            run.lost = True
        self._complain(f"what runs now is not recorded: {self._reason(error)}")


@dataclass(frozen=True, slots=True)
class _Settled:
    """Somebody who waits until all before is in the file."""

    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]

    def tell(self) -> None:
        """Say that it is; the loop may be gone by now."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


_Item: TypeAlias = tuple[RunRows, Event] | _Settled | None
"""An event of a run, somebody who waits, or the end."""
