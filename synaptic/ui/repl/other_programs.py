"""What other programs did in the conversation that is open here: looked at before a question is asked there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from synaptic import runtime
from synaptic.errors import JournalError
from synaptic.text import one_line, plural
from synaptic.ui import actions
from synaptic.ui.repl.conversation import status_of, turn_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.runtime import Journal, KeptRun
    from synaptic.ui.repl.conversation import Turn

_SHOWN: Final = 60
_WHOLE: Final = frozenset({"answered", "stopped"})


class TalkNow(NamedTuple):
    """A conversation as it is by now.

    Attributes:
        kept_as: The conversation that turns are kept in; ``None`` is one that is still to begin.
        last: The run that was begun last in it; ``None`` where that is not known.
        turns: Those of it.
        note: What another program did, for the person; "" where it did nothing.
        ends_anew: Whether another turn is the last one.
        at_work: Whether another program is being answered in it.
    """

    kept_as: str | None
    last: str | None
    turns: Sequence[Turn]
    note: str = ""
    ends_anew: bool = False
    at_work: bool = False


def looked_up(kept_as: str, turns: Sequence[Turn]) -> TalkNow:
    """Return what became of a conversation.

    What another program asked in it becomes part of it. Where that went on from an earlier turn than the last one
    here, what is asked here goes on in a conversation of its own.

    Args:
        kept_as: Its id.
        turns: Those that it has here.
    """
    try:
        with runtime.Journal() as journal:
            return _looked_up(journal, kept_as, turns)
    except JournalError:
        return TalkNow(kept_as, None, turns)  # the question is asked all the same; its run says what is wrong


def goes_on_from(journal: Journal, turns: Sequence[Turn]) -> str | None:
    """Return the run of the last turn that is recorded: behind one that is not, the earlier ones would not be found."""
    last = _last_recorded(journal, turns)
    return None if last is None else last.id


def _last_recorded(journal: Journal, turns: Sequence[Turn]) -> KeptRun | None:
    return next((run for turn in reversed(turns) if (run := _recorded_as(journal, turn)) is not None), None)


def _recorded_as(journal: Journal, turn: Turn) -> KeptRun | None:
    """Return the run of a turn, or, where that is not recorded, the last one that is of those that it replaced."""
    runs = (runtime.run_if_kept(journal, run_id) for run_id in (turn.run_id, *turn.stands_for))
    return next((run for run in runs if run is not None), None)


def _looked_up(journal: Journal, kept_as: str, turns: Sequence[Turn]) -> TalkNow:
    last = _last_recorded(journal, turns)
    if last is not None and runtime.begins_its_own(journal, last, kept_as):
        return _looked_up(journal, last.id, turns)._replace(note=actions.AT_ONCE)
    session = runtime.session_with_id(journal, kept_as)
    if session is None:
        return TalkNow(kept_as, None, turns)
    tip = runtime.tip_of(journal, session)
    at_work = session.last.at_work and not session.last.owner.is_this
    found = TalkNow(kept_as, runtime.seen_last(journal, session, tip), turns, at_work=at_work)
    if (tip and tip.id) == (last and last.id) and not any(_has_gone_on(journal, turn) for turn in turns):
        return found
    here = [(turn, run.id) for turn in turns if (run := _recorded_as(journal, turn)) is not None]
    there = [turn_of(kept) for kept in runtime.turns_of(journal, session)]
    same = 0
    while same < min(len(here), len(there)) and here[same][1] == there[same].run_id:
        same += 1
    gone, new = [turn for turn, _ in here[same:]], there[same:]
    if gone and new and not _is_instead(journal, new[0], gone):
        note = f"another program went on from an earlier turn, with: {_short(new[-1])}; "
        return TalkNow(None, None, turns, f"{note}what is asked here goes on in a conversation of its own")
    later = {own.run_id: now for (own, _), now in zip(here, there[:same], strict=False) if own.status not in _WHOLE}
    now = [*(later.get(turn.run_id, turn) for turn in turns if turn not in gone), *new]
    return found._replace(turns=now, note=_what_happened(gone, new, now), ends_anew=bool(gone or new))


def _has_gone_on(journal: Journal, turn: Turn) -> bool:
    """Return whether a turn that had no whole answer is another one by now: its run was resumed, or came to its end."""
    if turn.status in _WHOLE:
        return False
    run = runtime.run_if_kept(journal, turn.run_id)
    return run is not None and status_of(run.status) != turn.status


def _is_instead(journal: Journal, new: Turn, gone: Sequence[Turn]) -> bool:
    """Return whether a turn stands where others stood of which nothing is lost: asked again, or without an answer."""
    if not any(turn.answer for turn in gone):
        return True
    run = runtime.run_if_kept(journal, new.run_id)
    if run is None or len(gone) != 1:
        return False
    return journal.beginning(run).descent.instead in {gone[0].run_id, *gone[0].stands_for}


def _what_happened(gone: Sequence[Turn], new: Sequence[Turn], turns: Sequence[Turn]) -> str:
    if gone and new:
        return f"another program asked again: {_short(new[-1])}"
    if new:
        return f"another program added {plural(len(new), 'turn')} to this conversation, the last one: {_short(new[-1])}"
    if gone:
        left = f"it ends with: {_short(turns[-1])}" if turns else "none is left"
        return f"another program took {plural(len(gone), 'turn')} of this conversation back; {left}"
    return ""


def _short(turn: Turn) -> str:
    return one_line(turn.question, _SHOWN)
