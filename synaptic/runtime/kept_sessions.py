"""Conversations that are kept: the turns of each are recorded runs, of which every one names the one before it.

So a conversation is a path through a tree of runs: a turn that was taken back, or asked again, is a branch that the
path does not go through, and a fork goes on from any turn of another conversation without copying anything.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from synaptic import paths
from synaptic import pipeline as pipelines
from synaptic.errors import JournalError, RunDamaged, UsageError
from synaptic.messages import Message
from synaptic.processes import only_one, read_json, replace_json, told
from synaptic.text import nearest, one_line, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from synaptic.runtime.journal import Beginning, Journal, KeptRun, KeptStatus, PipelineText

INTERRUPTED_MARK: Final = "[the answer was interrupted here]"

_NAMES_FILE: Final = "sessions.json"
_ABOUT: Final = "which says what conversations are called"
_CURE: Final = "move it aside; the conversations themselves are in the record of runs"
_TAKEN_BACK: Final = "taken back {}"
"""Of a conversation: its last run when turns were taken back, and the one that it ends with since."""
_TAKEN_HINT: Final = "choose another name; '/name --force NAME' takes that one's"
_SHOWN: Final = 40
_ANSWERED: Final = frozenset({"succeeded", "stopped"})
_LEAST: Final = 4
"""Characters of an id that are enough to look for it."""


@dataclass(frozen=True, slots=True)
class KeptSession:
    """A conversation, as lists show it.

    Attributes:
        name: What the person calls it; "" where it has no name.
        runs: All that were begun in it, the oldest first, those of turns that were taken back included.
    """

    id: str
    name: str
    runs: tuple[KeptRun, ...]

    @property
    def last(self) -> KeptRun:
        """The run of the last turn."""
        return self.runs[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptTurn:
    """A question and what came of it.

    Attributes:
        question: What stands for it in the conversation, also where the pipeline was asked none.
        query: As the pipeline was asked it; "" where it was asked none.
        answer: Maybe only the beginning, where the run did not end well.
        pipeline: Its file, else its name.
        inputs: What it was given beside the question.
        files: What every question of the conversation was about then: absolute paths and patterns.
        at: When it was asked, in seconds since the epoch.
    """

    run_id: str
    question: str
    query: str = ""
    answer: str
    status: KeptStatus
    error: str | None
    pipeline: str
    inputs: Mapping[str, Any]
    documents: Sequence[Mapping[str, str]]
    files: Sequence[str] = ()
    at: float


def kept_sessions(journal: Journal) -> list[KeptSession]:
    """Return the conversations, the one that was spoken in last first.

    Raises:
        JournalError: If the record of runs cannot be read.
        UsageError: If the names cannot be read.
    """
    runs: dict[str, list[KeptRun]] = {}
    for run in journal.runs():
        if run.session is not None:
            runs.setdefault(run.session, []).insert(0, run)
    names = _names()
    return [KeptSession(session, names.get(session, ""), tuple(found)) for session, found in runs.items()]


def find_session(journal: Journal, wanted: str | None = None, *, but: str | None = None) -> KeptSession:
    """Return a conversation by its name, or by a beginning or an end of its id; the last one where none is wanted.

    Args:
        journal: The record of runs.
        wanted: Name or id.
        but: Where none is wanted, not this one.

    Raises:
        UsageError: If there is none, or more than one.
        JournalError: If the record of runs cannot be read.
    """
    names = _names()
    if wanted is None:
        for session in _those(journal, (known for known in journal.session_ids() if known != but), names):
            return session
        raise UsageError("there is no earlier conversation", hint="one is kept when its first question is answered")
    called = [session for session, name in names.items() if name.casefold() == wanted.casefold()]
    found = list(_those(journal, called, names))
    if not found and len(wanted) >= _LEAST:
        found = list(_those(journal, journal.session_ids(wanted), names))
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(session.id for session in found[:3])
        raise UsageError(f"several conversations match {wanted!r}: {several}", hint="write the id, or more of it")
    known = set(journal.session_ids())
    match = nearest(wanted, [name for session, name in names.items() if session in known])
    hint = f"did you mean {match!r}?" if match else "'synaptic sessions list' shows them"
    raise UsageError(f"there is no conversation {wanted!r}", hint=hint)


def session_with_id(journal: Journal, session: str) -> KeptSession | None:
    """Return a conversation by its whole id, without its name; ``None`` where nothing is kept of it.

    Raises:
        JournalError: If the record of runs cannot be read.
    """
    return next(_those(journal, [session], {}), None)


def begins_its_own(journal: Journal, run: KeptRun, session: str) -> bool:
    """Return whether a run began a conversation of its own, because another program asked at the same moment in this.

    Raises:
        JournalError: If the record of runs cannot be read.
    """
    return run.session == run.id != session and journal.beginning(run).descent.session == session


def _those(journal: Journal, ids: Iterable[str], names: Mapping[str, str]) -> Iterator[KeptSession]:
    """Yield the conversations with these ids, but those of which no run is left that is whole."""
    for session in ids:
        runs = tuple(run for run in reversed(journal.runs(session=session)) if run.session == session)
        if runs:
            yield KeptSession(session, names.get(session, ""), runs)


def turns_of(journal: Journal, session: KeptSession) -> list[KeptTurn]:
    """Return the turns that lead to the last one, the oldest first; also those that it was forked from.

    Raises:
        JournalError: If the record of runs cannot be read.
    """
    return turns_to(journal, tip_of(journal, session))


def turns_to(journal: Journal, run: KeptRun | None) -> list[KeptTurn]:
    """Return the turns that lead to the one of a run, the oldest first, and that one.

    Raises:
        JournalError: If the record of runs cannot be read.
    """
    turns: list[KeptTurn] = []
    while run is not None:
        turn, after = _turn(journal, run)
        turns.append(turn)
        run = _before(journal, run, after)
    return turns[::-1]


def _before(journal: Journal, run: KeptRun, after: str | None) -> KeptRun | None:
    """Return the run of the turn before.

    Where that was removed, as a prune does that meets a pinned turn first, or is not known any more: the nearest
    earlier run of the conversation that did not go on from it, which a turn that was taken back may have done.
    """
    found = run_if_kept(journal, after)
    if after is None or found is not None or run.session is None:
        return found
    earlier = (one for one in journal.runs(session=run.session) if one.number < run.number)
    return next((one for one in earlier if after not in _chain(journal, one)), None)


def _chain(journal: Journal, run: KeptRun | None) -> set[str]:
    """Return the ids of the runs that one goes on from, as far as they are known."""
    found: set[str] = set()
    with suppress(RunDamaged):
        while run is not None and (after := journal.beginning(run).descent.after):
            found.add(after)
            run = run_if_kept(journal, after)
    return found


def take_back(journal: Journal, session: str, last: str, tip: str | None) -> bool:
    """Let a conversation end with an earlier turn than its last one, until something is asked in it again.

    Args:
        journal: The record of runs.
        session: Its id.
        last: The run that was begun last in it, as far as the person has seen.
        tip: The run of that turn; ``None`` where none is left.

    Returns:
        Whether it does; not where another run has been begun in it: of that nothing is taken back.

    Raises:
        JournalError: If the record of runs cannot be written.
    """
    journal.note(_TAKEN_BACK.format(session), f"{last} {tip or ''}")
    return [run.id for run in journal.runs(session=session, limit=1)] == [last]


def tip_of(journal: Journal, session: KeptSession) -> KeptRun | None:
    """Return the run of the turn that a conversation ends with: the last one, unless it was taken back.

    Of a turn that was asked again the answer that was there stays, until there is another.

    Raises:
        JournalError: If the record of runs cannot be read.
    """
    taken_back, _, tip = (journal.noted(_TAKEN_BACK.format(session.id)) or "").partition(" ")
    run = run_if_kept(journal, tip) if taken_back == session.last.id else session.last
    while run is not None and run.status not in _ANSWERED:
        try:
            before = run_if_kept(journal, journal.beginning(run).descent.instead)
        except RunDamaged:
            break
        if before is None:
            break
        run = before
    return run


def seen_last(journal: Journal, session: KeptSession, tip: KeptRun | None) -> str:
    """Return the run that a question in a conversation names as the one that was begun last there.

    Where another program is asking the last turn again, that is the one whose answer stands there still: the question
    is behind that answer, and counts as asked at the same moment. Else the other program's answer would be nowhere.

    Raises:
        JournalError: If the record of runs cannot be read.
    """
    last = session.last
    again = tip is not None and tip.id != last.id and last.at_work and not last.owner.is_this
    return tip.id if tip and again and journal.beginning(last).descent.instead else last.id


def remove_session(journal: Journal, session: KeptSession) -> dict[str, list[KeptRun]]:
    """Remove a conversation with its runs and its name.

    Turns that a fork of it goes on from become the fork's; of several forks, those of the one that was begun first.

    Returns:
        The id of each fork, with the runs that it has got.

    Raises:
        RunOwned: If a run of it is at work; nothing is removed then.
        JournalError: If the record of runs cannot be written.
        UsageError: If the names cannot be written.
    """
    own = {run.id: run for run in session.runs}
    left: dict[str, list[KeptRun]] = {}
    for run in reversed(journal.runs()):
        if run.session not in {None, session.id} and run.number > session.runs[0].number:
            waiting = [run]
            while waiting:
                for found in filter(None, (own.pop(named, None) for named in _named(journal, waiting.pop()))):
                    left.setdefault(str(run.session), []).append(found)
                    waiting.append(found)
    journal.remove(list(own.values()))
    for fork, runs in left.items():
        journal.move(runs, fork)
    _forget_name(session.id)
    return left


def _named(journal: Journal, run: KeptRun) -> tuple[str, ...]:
    """Return the runs that one goes on from: of the turn before, and the one that it is to replace."""
    try:
        descent = journal.beginning(run).descent
    except JournalError:
        return ()  # it cannot be read any more
    return tuple(filter(None, (descent.after, descent.instead)))


def run_if_kept(journal: Journal, run_id: str | None) -> KeptRun | None:
    """Return a run; ``None`` where it is not recorded, or not any more."""
    try:
        return journal.run(run_id) if run_id else None
    except JournalError:
        return None  # it was removed to make room


def _turn(journal: Journal, run: KeptRun) -> tuple[KeptTurn, str | None]:
    """Return the turn of a run, and the run of the turn before it; "" where that cannot be read any more."""
    after: str | None = ""
    try:
        beginning = journal.beginning(run)
        after = beginning.descent.after
        return _whole_turn(journal, run, beginning), after
    except RunDamaged as exc:
        return _damaged(run, exc), after


def _whole_turn(journal: Journal, run: KeptRun, beginning: Beginning) -> KeptTurn:
    inputs = dict(beginning.inputs)
    query = str(inputs.pop("query", "") or "")
    query, pipeline = beginning.question or query, _asked_for(beginning.pipeline)
    answer = journal.answer(run)
    if answer is None and beginning.answer_step is not None:  # its process ended before it did
        answer = journal.open_texts(run).get(beginning.answer_step) or journal.answer(run, earlier=True)
    return KeptTurn(
        run_id=run.id,
        question=beginning.descent.title or query or f"/run {pipeline}",
        query=query,
        answer="" if answer is None else pipelines.present(answer),
        status=run.status,
        error=run.error,
        pipeline=pipeline,
        inputs=inputs,
        documents=beginning.documents,
        files=beginning.descent.files,
        at=run.started,
    )


def _damaged(run: KeptRun, why: RunDamaged) -> KeptTurn:
    """Return the turn of a run of which no more than its row can be read."""
    return KeptTurn(
        run_id=run.id,
        question=run.query or f"/run {run.pipeline}",
        answer="",
        status="damaged",
        error=why.message,
        pipeline=run.pipeline,
        inputs={},
        documents=(),
        at=run.started,
    )


def _asked_for(pipeline: PipelineText) -> str:
    """Return what a person writes to have the pipeline run."""
    builtin = pipelines.builtin_pipelines().get(pipeline.name)
    return pipeline.name if pipeline.path is None or Path(pipeline.path) == builtin else pipeline.path


def turn_messages(question: str, answer: str, *, interrupted: bool) -> tuple[Message, Message]:
    """Return a turn as the next run is to know it; an answer that is not whole says so."""
    mark = f"\n\n{INTERRUPTED_MARK}" if interrupted else ""
    return Message("user", question), Message("assistant", answer + mark)


def conversation_of(turns: Iterable[KeptTurn]) -> tuple[Message, ...]:
    """Return the turns that have an answer, as ``Session.run`` takes them."""
    messages: list[Message] = []
    for turn in turns:
        if turn.answer and turn.status != "failed":
            cut = turn.status not in _ANSWERED
            messages += turn_messages(turn.question, turn.answer, interrupted=cut)
    return tuple(messages)


def name_session(journal: Journal, session: str, name: str, *, take: bool = False) -> None:
    """Give a conversation a name.

    Args:
        journal: The record of runs.
        session: Its id.
        name: Upper and lower case are the same.
        take: Whether it may be taken from another conversation, which has none then.

    Raises:
        UsageError: If another conversation has it, or an id that is found by it, or the names cannot be read or
            written; nothing has changed then.
        JournalError: If the record of runs cannot be read.
    """
    with _changed_names() as names:
        called = [known for known, other in names.items() if known != session and other.casefold() == name.casefold()]
        for other in _those(journal, called, names):
            if not take:
                raise UsageError(f"another conversation is called {other.name}: {_told(other)}", hint=_TAKEN_HINT)
        for known in called:
            del names[known]
        alike = journal.session_ids(name) if len(name) >= _LEAST else []
        for other in _those(journal, (known for known in alike if known != session), names):
            hint = "choose another name; by this one that conversation is found"
            raise UsageError(f"{name} is the id of another conversation: {_told(other)}", hint=hint)
        names[session] = name


def _told(session: KeptSession) -> str:
    """Return what a person knows a conversation by."""
    first = session.runs[0]
    began = one_line(first.query or first.pipeline, _SHOWN)
    return f"{session.id[-8:]}, {plural(len(session.runs), 'run')}, begins with {began!r}"


def _forget_name(session: str) -> None:
    """Take the name of a conversation away, if it has one.

    Raises:
        UsageError: If the names cannot be read or written.
    """
    if session in _names():
        with _changed_names() as names:
            names.pop(session, None)


@contextmanager
def _changed_names() -> Iterator[dict[str, str]]:
    """Give the names to a block that changes them; two programs that do so at once wait for one another."""
    file = paths.state_dir() / _NAMES_FILE
    with told(file, _ABOUT, "written"), only_one(file):
        names = _names()
        yield names
        replace_json(file, names)


def _names() -> dict[str, str]:
    file = paths.state_dir() / _NAMES_FILE
    with told(file, _ABOUT, "read", if_damaged=_CURE):
        return {str(session): str(name) for session, name in read_json(file, missing={}).items()}
