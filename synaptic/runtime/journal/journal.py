"""The journal as a library has it: what runs there are, and all that is known of each."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Self

from synaptic import paths
from synaptic.errors import JournalError, RunOwned
from synaptic.processes import SqliteFile, error_code, is_damage, is_out_of_room, transaction
from synaptic.runtime.journal.notes import read_note, write_note
from synaptic.runtime.journal.owner import Owner
from synaptic.runtime.journal.reader import UNENDED, Reader, all_runs
from synaptic.runtime.journal.retention import Pruned, last_pruned, prune, remove_runs, to_prune
from synaptic.runtime.journal.row_seal import resealed
from synaptic.runtime.journal.run_account import account_of
from synaptic.runtime.journal.run_ids import LENGTH, matching_ids
from synaptic.runtime.journal.run_rows import RunRows
from synaptic.runtime.journal.searching import search
from synaptic.runtime.journal.tables import migrate
from synaptic.runtime.journal.usage_rows import damaged_calls, sum_calls, tokens_by_key
from synaptic.runtime.journal.writing import write
from synaptic.text import nearest, reason_of, spelled, without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from synaptic.runtime.events import Answer, Event
    from synaptic.runtime.journal.bookends import AskedQuestion, Beginning
    from synaptic.runtime.journal.reader import FollowedRun, KeptRun, KeptStatus
    from synaptic.runtime.journal.run_account import RunAccount
    from synaptic.runtime.journal.searching import FoundText
    from synaptic.runtime.journal.usage_rows import UsageColumn, UsageSum

SHORT = 8
"""Characters at the end of a run's id that tell it from others, by all chance."""

_NO_ROW_OF_OURS = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading a row raises that was not written so."""

_PATIENT = "PRAGMA busy_timeout = 1000"
"""So long a question waits for another process that writes: a person waits for it, and its run is recorded, too."""

_NEAR = 200  # latest runs among which a misspelt id is looked for


class Journal:
    """Reads the record of runs; use it with ``with``. For one thread at a time.

    Args:
        path: Its file; default: the person's own. Where there is none, there are no runs.
        brief: Whether it is read for a moment only; see ``SqliteFile``.
    """

    def __init__(self, path: Path | None = None, *, brief: bool = True) -> None:
        self.path = path or paths.journal_file()
        self._file = SqliteFile(self.path, migrate, brief=brief)
        self._version: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def runs(
        self,
        *,
        limit: int | None = None,
        status: KeptStatus | None = None,
        pipeline: str | None = None,
        session: str | None = None,
        after: float | None = None,
        below: int | None = None,
    ) -> list[KeptRun]:
        """Return the runs, the latest first.

        Args:
            limit: How many at most.
            status: Only those that ended so.
            pipeline: Only those of this pipeline.
            session: Only those of this conversation.
            after: Only those that began then or later, in seconds since the epoch.
            below: Only those whose number is less: the page behind the run of that number.

        Raises:
            JournalError: If the file cannot be read.
        """
        with self._opened() as connection:
            if connection is None:
                return []
            found = all_runs(connection, *_conditions(pipeline=pipeline, session=session, after=after, below=below))
            wanted = (run for run in found if status is None or run.status == status)
            return list(islice(wanted, limit))

    def resumable_first(
        self, *, limit: int | None = None, pipeline: str | None = None, after: float | None = None
    ) -> list[KeptRun]:
        """Return first the runs that did not come to their end and can go on, then the others, the latest first.

        Args:
            limit: How many at most. Up to half of them are runs that can go on, however long ago they began.
            pipeline: Only those of this pipeline.
            after: Only those that began then or later, in seconds since the epoch.

        Raises:
            JournalError: If the file cannot be read.
        """
        with self._opened() as connection:
            if connection is None:
                return []
            condition, values = _conditions(pipeline=pipeline, after=after)
            unended = all_runs(connection, " AND ".join(part for part in (UNENDED, condition) if part), values)
            first = list(islice((run for run in unended if run.can_go_on), limit if limit is None else limit // 2))
            known = {run.number for run in first}
            rest = (run for run in all_runs(connection, condition, values) if run.number not in known)
            latest = list(islice(rest, limit if limit is None else limit - len(first)))
            return first + sorted(latest, key=lambda run: not run.can_go_on)

    def session_ids(self, written: str | None = None) -> list[str]:
        """Return the ids of conversations, the one that was spoken in last first.

        Args:
            written: Only those that are, begin or end with this.

        Raises:
            JournalError: If the file cannot be read.
        """
        condition, values = ("1", []) if written is None else matching_ids("session", written)
        query = (
            f"SELECT session FROM runs WHERE session IS NOT NULL AND {condition} GROUP BY session ORDER BY max(n) DESC"  # noqa: S608  (a constant)
        )
        with self._opened() as connection:
            return [] if connection is None else [row[0] for row in connection.execute(query, values)]

    def run(self, run_id: str) -> KeptRun:
        """Return a run by its id, or by a beginning or an end of that which no other has.

        Raises:
            JournalError: If there is none, or more than one; or if the file cannot be read.
        """
        wanted = str(run_id).strip()
        if not wanted.isalnum():
            raise JournalError(f"{run_id!r} is no id of a run", hint="'synaptic runs list' shows them")
        with self._opened() as connection:
            if connection is None:
                raise JournalError(f"no run {wanted} is recorded: there is no record of runs yet")
            found = list(all_runs(connection, *matching_ids("id", wanted)))
            if len(found) == 1:
                return found[0]
            if found:
                several = ", ".join(run.id for run in found[:3])
                raise JournalError(f"several runs match {wanted}: {several}", hint="write more of the id")
            latest = [row[0] for row in connection.execute("SELECT id FROM runs ORDER BY n DESC LIMIT ?", (_NEAR,))]
        raise JournalError(f"no run {wanted} is recorded", hint=_did_you_mean(wanted.upper(), latest))

    def free_run(self, run_id: str) -> KeptRun:
        """Return a run that no living process works on; else as `run`.

        Raises:
            JournalError: As `run` does.
            RunOwned: If one works on it.
        """
        run = self.run(run_id)
        _refuse_if_owned(run)
        return run

    def claim(self, run_id: str) -> KeptRun:
        """Make a run this process's, and return it as it was before; of several processes, one gets it.

        Raises:
            JournalError: As `run` does.
            RunOwned: If another process works on it.
        """
        run = self.run(run_id)
        with self._opened() as connection:
            assert connection is not None, "the run was found in it"
            with transaction(connection), resealed(connection, run.number):
                found = next(all_runs(connection, "n = ?", [run.number]), None)
                if found is None:
                    raise JournalError(f"the run {run.id} has been removed")
                _refuse_if_owned(found)
                claim = "UPDATE runs SET status = 'running', owner = ? WHERE n = ?"
                if found.status != "damaged":
                    connection.execute(claim, (Owner.this().written(), run.number))
        return found

    def give_back(self, run: KeptRun) -> None:
        """Make a run that was claimed what it was before, unless it has ended meanwhile.

        Raises:
            JournalError: If the file cannot be written.
        """
        with self._opened() as connection:
            if connection is not None and run.status != "damaged":
                status = "running" if run.status == "interrupted" else run.status
                before = "UPDATE runs SET status = ?, owner = ? WHERE n = ? AND status = 'running' AND owner = ?"
                values = (status, run.owner.written(), run.number, Owner.this().written())
                with transaction(connection), resealed(connection, run.number):
                    connection.execute(before, values)

    def beginning(self, run: KeptRun) -> Beginning:
        """Return what a run was begun with.

        Raises:
            JournalError: If the file cannot be read, or is damaged there.
        """
        with self._reading() as reader:
            return reader.beginning(run)

    def events(self, run: KeptRun) -> Iterator[Event]:
        """Yield the events of a run as they were, in order, but for ``RunStarted``: `beginning` tells of that.

        Raises:
            JournalError: If the file cannot be read, or is damaged there.
        """
        with self._reading() as reader:
            yield from reader.events(run)

    def is_changed(self) -> bool:
        """Return whether anybody else has written to the file since this was last asked; the first time, it is.

        Raises:
            JournalError: If the file cannot be read.
        """
        if self._file.is_replaced():
            self._file.close()
            self._version = None
        with self._opened() as connection:
            now = None if connection is None else int(connection.execute("PRAGMA data_version").fetchone()[0])
        before, self._version = self._version, now
        return now != before

    def at_work(self, *, among: int) -> list[KeptRun]:
        """Return the runs that are under way or wait for a person, of the latest so many; the latest first.

        Raises:
            JournalError: If the file cannot be read.
        """
        with self._opened() as connection:
            if connection is None:
                return []
            latest = "status IN ('running', 'waiting') AND n > (SELECT max(n) FROM runs) - ?"
            return list(all_runs(connection, latest, [among]))

    def news(self, followed: FollowedRun) -> list[Event]:
        """Return what a run of another process has done since this was last asked for; texts in larger pieces.

        Raises:
            JournalError: If the file cannot be read, or is damaged there.
        """
        with self._opened() as connection:
            if connection is None:
                return []
            connection.execute("BEGIN")  # so that its texts are as old as its events
            try:
                run = next(all_runs(connection, "n = ?", [followed.run.number]), None)
                if run is None:
                    raise JournalError(f"the run {followed.run.id} has been removed")
                followed.run = run
                return list(Reader(connection).news(followed))
            finally:
                connection.execute("ROLLBACK")

    def open_texts(self, run: KeptRun) -> dict[str, str]:
        """Return what the calls had said that were open when the run's process ended, by the path of their step.

        Raises:
            JournalError: If the file cannot be read.
        """
        with self._reading() as reader:
            return reader.open_texts(run)

    def open_pieces(self, run: KeptRun) -> dict[str, int]:
        """Return in how many pieces each of the `open_texts` came, where that is known.

        Raises:
            JournalError: If the file cannot be read.
        """
        with self._reading() as reader:
            return reader.open_pieces(run)

    def account(self, run: KeptRun) -> RunAccount:
        """Return a whole run, step by step.

        Raises:
            JournalError: If the file cannot be read, or is damaged there.
        """
        with self._reading() as reader:
            return account_of(run, reader.beginning(run), reader.events(run), reader.open_texts(run))

    def answer(self, run: KeptRun, *, earlier: bool = False) -> Answer | None:
        """Return the answer of a run; ``None`` of one that has not ended, or, with ``earlier``, that never had.

        Raises:
            JournalError: If the file cannot be read, or is damaged there.
        """
        with self._reading() as reader:
            return reader.answer(run, earlier=earlier)

    def count(self) -> int:
        """Return how many runs are recorded.

        Raises:
            JournalError: If the file cannot be read.
        """
        with self._opened() as connection:
            return 0 if connection is None else int(connection.execute("SELECT count(*) FROM runs").fetchone()[0])

    def grep(self, text: str, *, limit: int | None = None, below: int | None = None) -> list[FoundText]:
        """Return the runs that were asked a text or said it, the latest first, each once.

        Case, accents and the kind of white space do not count. The text begins with the beginning of a word.

        Args:
            text: What to look for.
            limit: How many at most.
            below: Only those whose number is less, as in `runs`.

        Raises:
            UsageError: If the text is empty.
            JournalError: If the file cannot be read.
        """
        with self._opened() as connection:
            return [] if connection is None else list(islice(search(connection, text, below), limit))

    def usage(self, *by: UsageColumn, after: float = 0.0, key: str | None = None) -> list[UsageSum]:
        """Return the calls of a gateway's clients, added up by columns; those with most tokens first.

        Rows that are damaged are left out: see `damaged_calls`.

        Args:
            by: What the calls of a sum have in common; without any, there is one sum of all, or none.
            after: Only calls that began then or later, in seconds since the epoch.
            key: Only calls with this key.

        Raises:
            JournalError: If the file cannot be read.
        """
        with self._opened() as connection:
            return [] if connection is None else sum_calls(connection, by, after, key)

    def tokens_by_key(self, *, after: float, beyond: int = 0) -> tuple[int, dict[str, int]]:
        """Return the tokens of each key in calls of a gateway's clients, and the number of the last call of all.

        Args:
            after: Only calls that began then or later, in seconds since the epoch.
            beyond: Only calls whose number is greater: those that came since this returned that number.

        Raises:
            JournalError: If the file cannot be read.
        """
        with self._opened() as connection:
            return (0, {}) if connection is None else tokens_by_key(connection, after, beyond)

    def damaged_calls(self, *, after: float = 0.0) -> int:
        """Return how many calls of a gateway's clients are recorded, and cannot be read any more.

        Args:
            after: Only calls that began then or later, in seconds since the epoch.

        Raises:
            JournalError: If the file cannot be read.
        """
        with self._opened() as connection:
            return 0 if connection is None else damaged_calls(connection, after)

    def prune(self, *, keep: int | None = None, before: float | None = None, max_bytes: int | None = None) -> Pruned:
        """Remove runs, the oldest first; those that are pinned or at work stay.

        Args:
            keep: The latest so many stay, whatever else is asked; asked alone, all others go.
            before: Those that were begun before this time go, in seconds since the epoch.
            max_bytes: The oldest go until so much of the file is in use.

        Raises:
            JournalError: If the file cannot be written.
        """
        with self._opened() as connection:
            if connection is None:
                return Pruned(0, 0, 0.0)
            return prune(connection, keep=keep, before=before, max_bytes=max_bytes)

    def to_prune(
        self, *, keep: int | None = None, before: float | None = None, max_bytes: int | None = None
    ) -> list[KeptRun]:
        """Return the runs that `prune` would remove, the oldest first; with ``max_bytes``, about these.

        Raises:
            JournalError: If the file cannot be read.
        """
        with self._opened() as connection:
            if connection is None:
                return []
            return to_prune(connection, keep=keep, before=before, max_bytes=max_bytes)

    def pin(self, run_id: str, *, pinned: bool = True) -> KeptRun:
        """Keep a run when room is made, or no longer; return it. Raises as `run` does."""
        run = self.run(run_id)
        with self._opened() as connection:
            assert connection is not None, "the run was found in it"
            with transaction(connection), resealed(connection, run.number):
                connection.execute("UPDATE runs SET pinned = ? WHERE n = ?", (int(pinned), run.number))
        return replace(run, pinned=pinned)

    def last_pruned(self) -> Pruned | None:
        """Return what was removed the last time that the record made room by itself.

        Raises:
            JournalError: If the file cannot be read.
        """
        with self._opened() as connection:
            return None if connection is None else last_pruned(connection)

    def note(self, name: str, text: str) -> None:
        """Keep a few words under a name, in the place of those that were there; nothing where there is no file.

        Raises:
            JournalError: If the file cannot be written.
        """
        with self._opened() as connection:
            if connection is not None:
                write_note(connection, name, text)

    def noted(self, name: str) -> str | None:
        """Return what `note` has kept under a name; ``None`` where it has kept nothing, or that is damaged.

        Raises:
            JournalError: If the file cannot be read.
        """
        with self._opened() as connection:
            return None if connection is None else read_note(connection, name)

    def remove(self, runs: Sequence[KeptRun]) -> None:
        """Remove runs with all that only they have.

        Raises:
            RunOwned: If one of them is at work; nothing is removed then.
            JournalError: If the file cannot be written.
        """
        for run in runs:
            if run.at_work:
                raise RunOwned(f"the run {run.id} is at work in process {run.owner.pid}")
        with self._opened() as connection:
            if connection is not None:
                remove_runs(connection, runs)

    def move(self, runs: Sequence[KeptRun], session: str) -> None:
        """Make runs turns of another conversation.

        Raises:
            JournalError: If the file cannot be written.
        """
        with self._opened() as connection:
            if connection is not None:
                for run in runs:
                    with transaction(connection), resealed(connection, run.number):
                        connection.execute("UPDATE runs SET session = ? WHERE n = ?", (session, run.number))

    def ask(self, asked: AskedQuestion, secrets: Iterable[str] = ()) -> str | None:
        """Record a question before anything that may take long; the run of that id takes its place when it begins.

        Args:
            asked: What is asked.
            secrets: Texts that never enter the file, however they are spelled.

        Returns:
            The conversation that it is part of: its own, where another run was begun in the one that it names.

        Raises:
            JournalError: If the file cannot be written.
        """
        rows = RunRows(partial(without_secrets, spellings=spelled(secrets)))
        rows.take_question(asked)
        with self._opened(make=True) as connection:
            assert connection is not None, "it was made"
            connection.execute(_PATIENT)
            write(self._file, [rows])
            (session,) = connection.execute("SELECT session FROM runs WHERE id = ?", (asked.run_id,)).fetchone()
        found: str | None = session
        return found

    def forget_question(self, run_id: str) -> None:
        """Remove a question that was asked, unless its run has begun.

        Raises:
            JournalError: If the file cannot be written.
        """
        with self._opened() as connection:
            if connection is not None:
                remove_runs(connection, list(all_runs(connection, "id = ? AND text IS NULL", [run_id])))

    @contextmanager
    def _reading(self) -> Iterator[Reader]:
        with self._opened() as connection:
            if connection is None:
                raise JournalError(f"there is no record of runs at {self.path}")
            yield Reader(connection)

    @contextmanager
    def _opened(self, *, make: bool = False) -> Iterator[sqlite3.Connection | None]:
        """Give the connection, ``None`` where there is no file, and none is made; say what is wrong with it."""
        try:
            yield self._file.open() if make or self.path.exists() else None
        except sqlite3.DatabaseError as exc:
            if is_damage(exc):
                hint = "move it away, and the next run begins a new one; a run that meets the damage does so itself"
                raise JournalError(f"the record of runs is damaged: {self.path}: {exc}", hint=hint) from exc
            room = "is there room on the disk?" if is_out_of_room(exc) else None
            verb = "written" if error_code(exc) == sqlite3.SQLITE_READONLY else "read"
            raise JournalError(f"the record of runs cannot be {verb}: {self.path}: {exc}", hint=room) from exc
        except OSError as exc:
            raise JournalError(f"the record of runs cannot be read: {self.path}: {reason_of(exc)}") from exc
        except _NO_ROW_OF_OURS as exc:
            raise JournalError(f"the record of runs is damaged: {self.path}: {exc}") from exc


def _conditions(**wanted: str | float | None) -> tuple[str, list[str | float]]:
    """Return what SQL asks of a run that is wanted so, and the values in it."""
    texts = {"pipeline": "pipeline = ?", "session": "session = ?", "after": "started >= ?", "below": "n < ?"}
    asked = {name: value for name, value in wanted.items() if value is not None}
    return " AND ".join(texts[name] for name in asked), list(asked.values())


def _refuse_if_owned(run: KeptRun) -> None:
    """Raise ``RunOwned`` if another process works on a run."""
    if run.at_work and not run.owner.is_this:
        at_work = f"the run {run.id} is at work in process {run.owner.pid}"
        if run.owner.alive:
            raise RunOwned(at_work)
        there = run.owner.machine
        again = f"a run that begins with all that this one has done: synaptic runs rerun {run.id}"
        raise RunOwned(f"{at_work} on {there}", hint=f"if {there} has ended without it: {again}")


def _did_you_mean(wanted: str, known: list[str]) -> str:
    """Return which known run is nearest to what was written: a whole id, or the end of one."""
    ends = {run_id[-len(wanted) :]: run_id for run_id in reversed(known)} if len(wanted) < LENGTH else {}
    found = nearest(wanted, [*known, *ends])
    if found is None:
        return "'synaptic runs list' shows them"
    return f"did you mean {ends.get(found, found)}?"
