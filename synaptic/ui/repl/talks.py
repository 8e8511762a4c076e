"""Taking up a kept conversation at the prompt, and going on from one of its turns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from synaptic import runtime
from synaptic.errors import UsageError
from synaptic.text import one_line, plural, when
from synaptic.ui import actions
from synaptic.ui.repl.conversation import turn_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.runtime import KeptSession
    from synaptic.ui.repl.conversation import Turn
    from synaptic.ui.repl.repl import Repl

_SHOWN: Final = 70


class KeptTalk(NamedTuple):
    """A conversation that is kept, and its turns.

    Attributes:
        files: What every question was about, last.
    """

    session: KeptSession
    turns: Sequence[Turn]
    files: Sequence[str]


def find_talk(repl: Repl, wanted: str | None) -> KeptTalk:
    """Return a kept conversation by its name or id; ``None`` is the last one that is not open.

    Raises:
        UsageError: If there is no such conversation, or none is kept.
        JournalError: If the record of runs cannot be read.
    """
    if repl.settings.journal == "off" and wanted is None:
        raise UsageError("conversations are not kept: the setting journal is off", hint="/set journal normal")
    with runtime.Journal() as journal:
        session = runtime.find_session(journal, wanted, but=repl.kept_as)
        kept = runtime.turns_of(journal, session)
    return KeptTalk(session, [turn_of(turn) for turn in kept], kept[-1].files if kept else ())


def take_up(repl: Repl, talk: KeptTalk) -> None:
    """Go on with a kept conversation, in the place of the one that is open; say where it had come to."""
    repl.conversation[:] = talk.turns
    repl.kept_as = talk.session.id
    _say_where_it_is(repl, talk.session, talk.turns)
    repl.about_again(talk.files)


def _say_where_it_is(repl: Repl, session: KeptSession, turns: Sequence[Turn]) -> None:
    if not turns:
        repl.screen.note(f"going on with {called(session)}, of which every turn was taken back")
        return
    repl.screen.note(f"going on with {called(session)}, {plural(len(turns), 'turn')}; the last one:")
    repl.screen.say(turns[-1].question, bold=True)
    repl.screen.say()
    show_answer(repl, turns[-1])
    if hint := _hint(session, turns[-1]):
        repl.screen.note(f"hint: {hint}")


def show_answer(repl: Repl, turn: Turn) -> None:
    """Print the answer of a turn as it was shown when it came, and how it ended, if not well."""
    if answer := turn.answer.strip():
        repl.screen.answer(answer, repl.settings.look)
    if turn.remark:
        repl.screen.say(f"\n({turn.remark})" if answer else f"({turn.remark})")


def _hint(session: KeptSession, last: Turn) -> str:
    """Return what can be done about a turn that has no whole answer; "" where it has one."""
    if last.status == "answering" or (session.last.id != last.run_id and session.last.at_work):
        again = "" if last.status == "answering" else "it is being asked again; "
        return f"{again}/resume {called(session)} shows the answer once another program has it"
    if last.status == "waiting":
        return f"what it waits for: synaptic runs answer {last.run_id}"
    return "" if last.status == "answered" else actions.going_on(last.run_id)


def called(session: KeptSession) -> str:
    """Return what a conversation is called: its name, else the end of its id."""
    return session.name or session.id[-8:]


def rows_of(sessions: list[KeptSession], open_one: str | None = None) -> list[tuple[str, str, str, str, str]]:
    """Return a row for each conversation: a mark at the open one, its name, runs, last time and beginning."""
    return [
        (
            "*" if session.id == open_one else "",
            called(session),
            str(len(session.runs)),
            when(session.last.started),
            one_line(session.runs[0].query or session.runs[0].pipeline, _SHOWN),
        )
        for session in sessions
    ]
