"""What is read out of the journal's file: runs, their events as they were, and the texts of calls that were open."""

from __future__ import annotations

import heapq
import json
from base64 import b85decode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from synaptic.errors import RunDamaged
from synaptic.runtime.events import StepFinished, StepResult, TokenDelta
from synaptic.runtime.journal.bookends import read_beginning, read_end
from synaptic.runtime.journal.encoding import Decoder
from synaptic.runtime.journal.kept_texts import hash_of, lengths_read, to_text, unpack
from synaptic.runtime.journal.owner import Owner
from synaptic.runtime.journal.row_seal import COLUMNS, OPEN_TEXT, is_whole, unsealed
from synaptic.runtime.journal.run_ids import began
from synaptic.runtime.journal.run_rows import ENDS_TEXT, SPOKEN, EventRow

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from synaptic.runtime.events import Answer, Event, RunStatus
    from synaptic.runtime.journal.bookends import Beginning
    from synaptic.runtime.journal.kept_texts import Hash

KeptStatus: TypeAlias = "RunStatus | Literal['running', 'waiting', 'interrupted', 'damaged']"
"""``interrupted``: its process is gone, and it had not ended. ``damaged``: its row in the list is not what was written;
what it did may still be read, event by event."""

_NOBODY: Final = Owner("", 0, "")

_MOST_BASES: Final = 8
"""One text is packed against another, and that against none; only files of older versions have longer chains."""

UNENDED: Final = "status IN ('running', 'waiting', 'failed', 'cancelled')"
"""The condition of rows among which all runs are that can go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRun:
    """A run as the journal lists it.

    Attributes:
        number: Of the run in this file.
        id: Its ULID.
        ended: ``None`` where it has not.
        query: The beginning of the question; ``None`` for a pipeline without one.
        model: What the run was routed to.
        calls: Requests that were sent.
        error: What it failed of.
        forked_at: The step from which on it differs from its parent.
        pinned: Whether it is kept when room is made.
        bytes: What it added to the file.
    """

    number: int
    id: str
    pipeline: str
    started: float
    ended: float | None
    status: KeptStatus
    query: str | None
    model: str | None
    calls: int
    tokens: int
    error: str | None
    parent: str | None
    forked_at: str | None
    session: str | None
    owner: Owner
    pinned: bool
    bytes: int

    @property
    def seconds(self) -> float | None:
        """How long it took, where it has ended."""
        return None if self.ended is None else self.ended - self.started

    @property
    def can_go_on(self) -> bool:
        """Whether it did not come to its end, and nobody works on it."""
        return self.status in {"interrupted", "failed", "cancelled", "waiting"} and not self.at_work

    @property
    def at_work(self) -> bool:
        """Whether a process works on it, or one of another machine may."""
        return self.status in {"running", "waiting"} and self.owner.alive is not False


def kept_run(whole: tuple[Any, ...]) -> KeptRun:
    """Return a row of :data:`COLUMNS`, with its seal behind it."""
    *row, seal = whole
    if not is_whole(row, seal):
        return _damaged(row[0], row[1])
    number, run_id, pipeline, started, ended, status, query, model, calls, tokens, error, *rest = row
    parent, forked_at, session, owner, pinned, size = rest
    owned = Owner.read(owner)
    if status == "running" and owned.alive is False:
        status = "interrupted"
    return KeptRun(
        number=number,
        id=run_id,
        pipeline=pipeline,
        started=started,
        ended=ended,
        status=status,
        query=query,
        model=model,
        calls=calls,
        tokens=tokens,
        error=error,
        parent=parent,
        forked_at=forked_at,
        session=session,
        owner=owned,
        pinned=bool(pinned),
        bytes=size,
    )


def _damaged(number: int, run_id: object) -> KeptRun:
    """Return a run of whose row nothing is believed but where it is."""
    return KeptRun(
        number=number,
        id=run_id if isinstance(run_id, str) else "",
        pipeline="",
        started=began(run_id) if isinstance(run_id, str) else 0.0,
        ended=None,
        status="damaged",
        query=None,
        model=None,
        calls=0,
        tokens=0,
        error="its row in the record of runs is damaged",
        parent=None,
        forked_at=None,
        session=None,
        owner=_NOBODY,
        pinned=False,
        bytes=0,
    )


def all_runs(connection: sqlite3.Connection, condition: str = "", values: Sequence[Any] = ()) -> Iterator[KeptRun]:
    """Yield the runs, the latest first: in the order in which they were begun, whatever the clock said."""
    where = f"WHERE {condition}" if condition else ""
    query = f"SELECT {COLUMNS}, seal FROM runs {where} ORDER BY n DESC"  # noqa: S608  (names of columns)
    return map(kept_run, connection.execute(query, values))


@dataclass(slots=True)
class FollowedRun:
    """A run that another process works on, and how much of it is known here.

    Attributes:
        seq: The number of the last event.
        steps: Those that have ended.
        parts: The last part of each open text, by the path of its step.
    """

    run: KeptRun
    seq: int = -1
    steps: list[StepResult] = field(default_factory=list)
    parts: dict[str, int] = field(default_factory=dict)


class Reader:
    """Reads one file through a connection; what is damaged in it is said, and never taken for what it was."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.decoder = Decoder(self.text)

    def text(self, name: Hash) -> str:
        """Return a kept text.

        Raises:
            RunDamaged: If it is damaged, or not there.
        """
        return to_text(self._bytes(name))

    def _bytes(self, name: Hash, *, below: int = 0) -> bytes:
        """Return a kept text; of one that others are packed against, ``below`` says how many are."""
        asked = "SELECT base, packed, size, body FROM blobs WHERE hash = ?"
        row = self._connection.execute(asked, (name,)).fetchone()
        if row is None:
            raise RunDamaged(f"the record of runs lacks a text ({name.hex()})")
        if below > _MOST_BASES:
            raise RunDamaged(f"a text in the record of runs is damaged ({name.hex()})")
        base, packed, size, body = row
        try:
            data = unpack(packed, size, body, lambda: self._bytes(base, below=below + 1))
        except ValueError as exc:
            raise RunDamaged(f"a text in the record of runs is damaged ({name.hex()})") from exc
        if hash_of(data) != name:
            raise RunDamaged(f"a text in the record of runs is damaged ({name.hex()})")
        return data

    def beginning(self, run: KeptRun) -> Beginning:
        """Return what a run was begun with.

        Raises:
            RunDamaged: If that is damaged, or not there.
        """
        told = self._last(run, "RunStarted")
        if told is None:
            raise RunDamaged(f"the record of {run.id} lacks its beginning")
        return read_beginning(told, self.decoder)

    def answer(self, run: KeptRun, *, earlier: bool = False) -> Answer | None:
        """Return the answer of a run; ``None`` of one that has not ended, or, with ``earlier``, that never had.

        Raises:
            RunDamaged: If it is damaged.
        """
        told = None if run.ended is None and not earlier else self._last(run, "RunFinished")
        answer: Answer | None = None if told is None else self.decoder.value(told["answer"])
        return answer

    def _last(self, run: KeptRun, kind: str) -> dict[str, Any] | None:
        """Return what the last event of a kind says; ``None`` where there is none."""
        query = "SELECT seq, at, kind, path, key, body FROM events WHERE run = ? AND kind = ? ORDER BY seq DESC LIMIT 1"
        row = self._connection.execute(query, (run.number, kind)).fetchone()
        told: dict[str, Any] | None = None if row is None else json.loads(unsealed(run.number, EventRow(*row)).body)
        return told

    def events(self, run: KeptRun) -> Iterator[Event]:
        """Yield the events of a run in their order, but for those that say that it begins.

        Raises:
            RunDamaged: If one is damaged.
        """
        steps: list[StepResult] = []
        pieces: list[tuple[int, TokenDelta]] = []
        query = "SELECT seq, at, kind, path, key, body FROM events WHERE run = ? ORDER BY seq"
        for row in self._connection.execute(query, (run.number,)):
            seq, at, kind, path, key, body = unsealed(run.number, EventRow(*row))
            while pieces and pieces[0][0] < seq:
                yield heapq.heappop(pieces)[1]
            told = json.loads(body)
            if kind == SPOKEN:
                for piece in self._pieces(seq, path or "", told):
                    heapq.heappush(pieces, piece)
            else:
                event = self._told(run, kind, {"at": at, "path": path, "key": key and key.hex(), **told}, steps)
                if event is not None:
                    yield event
        yield from (heapq.heappop(pieces)[1] for _ in range(len(pieces)))

    def news(self, followed: FollowedRun) -> Iterator[Event]:
        """Yield what a run has done since it was last asked for; its texts are in pieces as the file has got them.

        Raises:
            RunDamaged: If that is damaged.
        """
        run = followed.run
        query = "SELECT seq, at, kind, path, key, body FROM events WHERE run = ? AND seq > ? AND kind != ? ORDER BY seq"
        for row in self._connection.execute(query, (run.number, followed.seq, SPOKEN)).fetchall():
            followed.seq, at, kind, path, key, body = unsealed(run.number, EventRow(*row))
            told = {"at": at, "path": path, "key": key and key.hex(), **json.loads(body)}
            event = self._told(run, kind, told, followed.steps)
            if isinstance(event, ENDS_TEXT):
                followed.parts.pop(path or "", None)
            if event is not None:
                yield event
        query = f"{OPEN_TEXT} WHERE run = ? ORDER BY path, part"
        for *row, seal in self._connection.execute(query, (run.number,)).fetchall():
            _, path, part, text = row
            if part > followed.parts.get(path, -1) and is_whole(row, seal):
                followed.parts[path] = part
                yield TokenDelta(path, to_text(text))

    def _told(self, run: KeptRun, kind: str, told: dict[str, Any], steps: list[StepResult]) -> Any:
        """Return an event, ``None`` where it is none; ``steps`` gets those that end."""
        if kind == "RunFinished":
            return read_end(told, run.id, run.pipeline, steps, self.decoder)
        if kind == "RunStarted":
            steps.clear()  # of a run that was resumed, the last go is what its result tells of
            return None
        if kind != "StepFinished":
            return self.decoder.event(kind, told)
        result = self.decoder.event("StepResult", {**told, "id": told["path"]})
        steps.append(result)
        return StepFinished(result)

    def _pieces(self, seq: int, path: str, told: dict[str, Any]) -> Iterator[tuple[int, TokenDelta]]:
        text = self.decoder.value(told)
        sizes = _numbers(told.get("pieces", [len(text)]))
        gaps = _numbers(told["gaps"]) if "gaps" in told else [1] * (len(sizes) - 1)
        at = 0
        for size, gap in zip(sizes, [*gaps, 0], strict=True):
            yield seq, TokenDelta(path, text[at : at + size])
            at += size
            seq += gap

    def open_texts(self, run: KeptRun) -> dict[str, str]:
        """Return what each call had said that was open when the run's process ended, by its path.

        Raises:
            RunDamaged: If it is damaged.
        """
        query = f"{OPEN_TEXT} WHERE run = ? ORDER BY path, part"
        found: dict[str, list[bytes]] = {}
        for *row, seal in self._connection.execute(query, (run.number,)):
            if not is_whole(row, seal):
                raise RunDamaged(f"the text of an open call in the record of runs is damaged ({row[1]})")
            found.setdefault(row[1], []).append(row[3])
        return {path: to_text(b"".join(parts)) for path, parts in found.items()}

    def open_pieces(self, run: KeptRun) -> dict[str, int]:
        """Return in how many pieces each of those texts came; not where an older version wrote them: it began at 0."""
        query = "SELECT path, max(part) FROM open_text WHERE run = ? GROUP BY path HAVING min(part) > 0"
        return dict(self._connection.execute(query, (run.number,)))


def _numbers(told: list[int] | str) -> list[int]:
    return told if isinstance(told, list) else lengths_read(b85decode(told))
