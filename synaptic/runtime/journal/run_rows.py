"""The events of one run on their way into rows: what each becomes, in order, and the texts of calls that are open."""

from __future__ import annotations

import json
import time
from base64 import b85encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from synaptic.errors import SynapticError
from synaptic.runtime.events import (
    ApprovalAsked,
    ApprovalGiven,
    BackendReported,
    Event,
    RunFinished,
    RunStarted,
    StepFinished,
    StepRepaired,
    StepRetried,
    StepThought,
    TokenDelta,
)
from synaptic.runtime.journal.bookends import tell_beginning, tell_end, tell_question
from synaptic.runtime.journal.encoding import TEXT, Encoder
from synaptic.runtime.journal.kept_texts import Hash, RunTexts, lengths, name_spelled, to_bytes
from synaptic.waiting import steady_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from synaptic.runtime.events import Descent, StepResult
    from synaptic.runtime.journal.bookends import AskedQuestion

SPOKEN: Final = "Spoken"
"""The kind of a row that stands for the pieces of a text, one event each."""

OPEN_SECONDS: Final = 0.15
OPEN_PIECES: Final = 64
"""How old, and how many pieces long, the text of an open call may become before it is written.

It then waits for others to be written with it, and for the file: together a quarter of a second is lost at most.
"""

_KEY: Final = frozenset({"key"})
_json: Final = json.JSONEncoder(separators=(",", ":")).encode
_FEW: Final = 24
ENDS_TEXT: Final = (StepFinished, StepThought, StepRetried, StepRepaired)
"""Events that end the text of a step, or make it void."""


class EventRow(NamedTuple):
    """One row of ``events``, without its run."""

    seq: int
    at: float
    kind: str
    path: str | None
    key: bytes | None
    body: str


@dataclass(slots=True)
class _Spoken:
    """The text of an open call: its pieces, their numbers among the events, and how much of it is in the file.

    Attributes:
        parts: The number of the last part that is in the file: about how many pieces are in it up to there.
    """

    pieces: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    parts: int = 0
    written: int = 0
    pieces_written: int = 0
    since: float = 0.0


class RunHead(NamedTuple):
    """What the row of a run says from its beginning on.

    Attributes:
        pipeline: Its name.
        text: Of the pipeline; ``None`` before there is a plan.
        query: The question.
    """

    run_id: str
    at: float
    pipeline: str
    text: Hash | None
    query: str | None
    model: str | None
    descent: Descent


@dataclass(slots=True)
class Rows:
    """What is to be written of one run.

    Attributes:
        begun: What it begins with, where the first event is among them.
        ended: The last one.
        error: What it failed of.
        waits: Whether it waits for a person now, where that has changed.
        closed: Paths whose open text is void.
        opened: Path, number and text of what open texts have grown by.
    """

    events: list[EventRow] = field(default_factory=list)
    begun: RunHead | None = None
    ended: RunFinished | None = None
    error: str | None = None
    waits: bool | None = None
    closed: list[str] = field(default_factory=list)
    opened: list[tuple[str, int, bytes]] = field(default_factory=list)
    calls: int = 0
    tokens: int = 0


_NOTHING: Final = Rows()


class RunRows:
    """Turns the events of one run into rows.

    Args:
        cleaned: Takes out of a text what may not be kept.
        hold_back: Characters at the end of an open text that are not written yet: a secret might begin there.

    Attributes:
        texts: The texts on their way.
        number: The run's number in the file, once it has one.
        lost: Whether nothing more of it can be written.
        ended: Whether its last event was taken.
    """

    def __init__(self, cleaned: Callable[[str], str], hold_back: int = 0) -> None:
        self._cleaned = cleaned
        self._hold_back = hold_back
        self.lost = False
        self.restart()

    def restart(self) -> None:
        """Forget everything: the run begins in another file."""
        self.texts = RunTexts()
        self.number: int | None = None
        self._encoder = Encoder(self.texts.put, self._cleaned)
        self._rows = Rows()
        self._seq = 0
        self._open: dict[str, _Spoken] = {}
        self._goes_on = False
        self._asked: set[str] = set()
        self._begun: RunStarted | None = None
        self.ended = False

    @property
    def has_open_text(self) -> bool:
        """Whether a call is open that has said something, and it is not known to be in the file."""
        return any(len(spoken.pieces) > spoken.pieces_written for spoken in self._open.values())

    @property
    def has_rows(self) -> bool:
        """Whether there is anything to write."""
        return self._rows != _NOTHING

    def take_all(self, events: Iterable[Event]) -> None:
        """Turn events into what they become, and note what open texts have grown by."""
        if not self.lost:
            for event in events:
                self.take(event)
            self._spoken_so_far()

    def goes_on_from(self, seq: int) -> None:
        """Number the events after those that are in the file already: the run began in another process."""
        self._goes_on = True
        self._seq += seq
        for spoken in self._open.values():
            spoken.numbers = [number + seq for number in spoken.numbers]

    def take(self, event: Event) -> None:
        """Turn one event into what it becomes."""
        seq, self._seq = self._seq, self._seq + 1
        if isinstance(event, TokenDelta):
            self._speak(event, seq)
        elif isinstance(event, StepFinished):
            self._step_ended(event.result, seq)
        elif isinstance(event, RunStarted):
            again, self._begun = self._begun, event
            if again is not None and again.plan is event.plan and again.descent == event.descent:
                self._seq = seq
                return
            told = tell_beginning(event, self._encoder)
            if again is None:
                plan, name = event.plan, name_spelled(told["pipeline"]["text"][TEXT])
                query = self._query(plan.inputs.get("query"))
                self._rows.begun = RunHead(
                    event.run_id, event.at, plan.pipeline.name, name, query, plan.route.model, event.descent
                )
            self._row(event, seq, event.at, told)
        elif isinstance(event, RunFinished):
            for still_open in list(self._open):
                self._close(still_open)
            self.ended = True
            self._rows.ended = event
            error = event.result.error
            text = error.headline if isinstance(error, SynapticError) else str(error or "")
            self._rows.error = self._cleaned(text) or None
            self._row(event, seq, event.result.ended_at, tell_end(event, self._encoder))
        else:
            path = None if isinstance(event, BackendReported) else getattr(event, "path", None)
            if isinstance(event, ENDS_TEXT) and path is not None:
                self._close(path)
            if isinstance(event, ApprovalAsked):
                self._asked.add(event.path)
                self._rows.waits = True
            elif isinstance(event, ApprovalGiven):
                self._is_answered(event.path)
            told = self._encoder.event(event, _KEY)
            told.pop("path", None)
            at = told.pop("at", None) or steady_time()
            self._row(event, seq, at, told, path=path)

    def take_question(self, asked: AskedQuestion) -> None:
        """Turn a question into what stands in the place of a run's first event until there is a plan."""
        pipeline, query = asked.pipeline or "", self._query(asked.query)
        self._rows.begun = RunHead(asked.run_id, asked.at, pipeline, None, query, asked.descent.model, asked.descent)
        body = _json(tell_question(asked, self._encoder))
        self._rows.events.append(EventRow(0, asked.at, RunStarted.__name__, None, None, body))

    def _query(self, query: object) -> str | None:
        return self._cleaned(query) if isinstance(query, str) else None

    def _spoken_so_far(self) -> None:
        """Note what open texts have grown by, where that is old or long enough."""
        now = time.monotonic()
        for path, spoken in self._open.items():
            fresh = len(spoken.pieces) - spoken.pieces_written
            if fresh < OPEN_PIECES and (not fresh or now - spoken.since < OPEN_SECONDS):
                continue
            text = self._cleaned("".join(spoken.pieces))
            end = max(spoken.written, len(text) - self._hold_back)
            if end > spoken.written:
                if self._goes_on and not spoken.parts:
                    self._rows.closed.append(path)  # what an earlier process had of it
                spoken.parts = max(spoken.parts + 1, round(len(spoken.pieces) * end / len(text)))
                self._rows.opened.append((path, spoken.parts, to_bytes(text[spoken.written : end])))
                spoken.written = end
            spoken.pieces_written = len(spoken.pieces)
            spoken.since = now

    def taken(self) -> Rows:
        """Return the rows so far, and begin anew."""
        rows, self._rows = self._rows, Rows()
        return rows

    def _row(self, event: Event, seq: int, at: float, told: dict[str, Any], *, path: str | None = None) -> None:
        key = getattr(event, "key", None)
        body = _json(told)
        name = None if key is None else bytes.fromhex(key)
        self._rows.events.append(EventRow(seq, at, type(event).__name__, path, name, body))

    def _speak(self, event: TokenDelta, seq: int) -> None:
        spoken = self._open.get(event.path)
        if spoken is None:
            spoken = self._open[event.path] = _Spoken(since=time.monotonic())
        spoken.pieces.append(event.text)
        spoken.numbers.append(seq)

    def _is_answered(self, path: str) -> None:
        if path in self._asked:
            self._asked.remove(path)
            self._rows.waits = bool(self._asked)

    def _step_ended(self, result: StepResult, seq: int) -> None:
        self._is_answered(result.id)
        output = self._encoder.value(result.output)
        near = None
        if isinstance(output, dict):
            near = name_spelled(next(iter(output.values())))
        self._close(result.id, near)
        if self._goes_on:
            self._rows.closed.append(result.id)
        told = self._encoder.event(result, frozenset({"id", "key", "output"}))
        if output is not None:
            told["output"] = output
        self._rows.calls += result.attempts
        self._rows.tokens += result.usage.total_tokens
        at = result.ended_at or steady_time()
        key = getattr(result, "key", None)
        name = None if key is None else bytes.fromhex(key)
        body = _json(told)
        self._rows.events.append(EventRow(seq, at, "StepFinished", result.id, name, body))

    def _close(self, path: str, near: Hash | None = None) -> None:
        """Turn the text of a step into a row; its pieces keep their places among the events."""
        spoken = self._open.pop(path, None)
        if spoken is None:
            return
        if spoken.parts:
            self._rows.closed.append(path)
            self._rows.opened = [part for part in self._rows.opened if part[0] != path]  # those had to wait
        text = "".join(spoken.pieces)
        told: dict[str, Any] = self._encoder.text(text, near)
        if self._cleaned(text) == text and len(spoken.pieces) > 1:
            told["pieces"] = _numbers(list(map(len, spoken.pieces)))
            gaps = [after - before for before, after in zip(spoken.numbers, spoken.numbers[1:], strict=False)]
            if any(gap != 1 for gap in gaps):
                told["gaps"] = _numbers(gaps)
        body = _json(told)
        self._rows.events.append(EventRow(spoken.numbers[0], steady_time(), SPOKEN, path, None, body))


def _numbers(numbers: list[int]) -> list[int] | str:
    """Return numbers for JSON: many of them packed."""
    return numbers if len(numbers) <= _FEW else b85encode(lengths(numbers)).decode()
