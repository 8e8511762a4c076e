"""Commands about kept conversations: ``/sessions``, ``/resume``, ``/fork``, ``/name``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from synaptic import runtime
from synaptic.errors import UsageError
from synaptic.text import one_line, plural
from synaptic.ui.repl.conversation import numbered_turn
from synaptic.ui.repl.slash_commands import FORCE
from synaptic.ui.repl.talks import find_talk, rows_of, take_up

if TYPE_CHECKING:
    from synaptic.ui.repl.repl import Repl
    from synaptic.ui.repl.slash_commands import Call

_MOST: Final = 20
_LONGEST_NAME: Final = 60
_KEPT_FROM: Final = " from its first question on"


async def sessions_command(repl: Repl, call: Call) -> None:
    """List the conversations that are kept."""
    call.words(0)
    await repl.sessions.recorded()
    with runtime.Journal() as journal:
        sessions = runtime.kept_sessions(journal)
    if not sessions:
        repl.screen.say("no conversation is kept yet")
        return
    repl.screen.table(rows_of(sessions[:_MOST], repl.kept_as), ("", "name", "runs", "last", "begins with"))
    if len(sessions) > _MOST:
        repl.screen.note(f"{len(sessions) - _MOST} more: synaptic sessions list")


async def resume_command(repl: Repl, call: Call) -> None:
    """Go on with a conversation."""
    await repl.sessions.recorded()
    take_up(repl, find_talk(repl, call.text or None))


async def fork_command(repl: Repl, call: Call) -> None:
    """Begin a conversation that goes on from a turn of this one, which stays as it is."""
    words = call.words(1)
    if not repl.conversation:
        raise UsageError("nothing was asked yet")
    await repl.refuse_surprise()
    if words:
        last = numbered_turn(call, repl.conversation, words[0])
        while repl.conversation[-1] is not last:
            repl.conversation.pop()
    repl.kept_as = None
    about = f"goes on from: {one_line(repl.conversation[-1].question, _LONGEST_NAME)}"
    repl.screen.note(f"a new conversation of {plural(len(repl.conversation), 'turn')}, which {about}")
    repl.screen.note(f"it is kept{_KEPT_FROM}")


async def name_command(repl: Repl, call: Call) -> None:
    """Give this conversation a name; that of another one only where the person insists."""
    take = call.rest.split(maxsplit=1)[:1] == [FORCE]
    asked = replace(call, rest=call.rest.strip().removeprefix(FORCE)) if take else call
    name = one_line(asked.text, _LONGEST_NAME)
    if not name:
        raise call.wrong("it needs a name")
    if not repl.conversation or repl.settings.journal == "off":
        raise UsageError("this conversation is not kept" if repl.conversation else "nothing was asked yet")
    await repl.catch_up()
    with runtime.Journal() as journal:
        runtime.name_session(journal, repl.kept(), name, take=take)
        begun = runtime.session_with_id(journal, repl.kept()) is not None
    then = "" if begun else _KEPT_FROM
    repl.screen.note(f"this conversation is called {name}; 'synaptic chat --session' and /resume take that{then}")
