"""Commands about this conversation: ``/status``, ``/history``, ``/save``, ``/clear``, ``/exit``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synaptic import paths
from synaptic.errors import SynapticError, UsageError
from synaptic.messages import Usage
from synaptic.text import one_line, plural, seconds
from synaptic.ui.repl.conversation import Conversation, Turn, as_json, as_markdown
from synaptic.ui.repl.saving import save

if TYPE_CHECKING:
    from synaptic.ui.repl.repl import Repl
    from synaptic.ui.repl.slash_commands import Call

_FORCE: Final = "--force"
_LINE: Final = 100


async def status_command(repl: Repl, call: Call) -> None:
    """Print where questions go and what was used so far."""
    call.words(0)
    rows = [("model", repl.settings.model or "what the backend chooses")]
    try:
        route = await repl.sessions.ask_route(repl.settings)
    except SynapticError as exc:
        rows.append(("backend", f"none: {exc}"))
    else:
        where = " ".join(part for part in (route.backend, route.node, route.model) if part)
        rows += [("backend", where), ("why", route.reason)]
    rows.insert(0, ("pipeline", repl.pipeline_name or "what the backend decides"))
    usage = repl.usage or Usage()
    rows += [
        ("turns", str(len(repl.conversation))),
        ("tokens", f"{usage.total_tokens} ({usage.prompt_tokens} in prompts, {usage.completion_tokens} generated)"),
        ("last run", _last_run(repl)),
    ]
    repl.screen.table(rows)


async def history_command(repl: Repl, call: Call) -> None:
    """Print the turns, one line for each question and answer, or one turn as it was."""
    words = call.words(1)
    turns = repl.conversation
    if words:
        turn = _turn(call, turns, words[0])
        repl.screen.say(turn.question, bold=True)
        repl.screen.say()
        repl.screen.say("\n\n".join(part for part in (turn.answer, f"({turn.remark})" if turn.remark else "") if part))
        return
    if not turns:
        repl.screen.say("nothing was asked yet")
    for number, turn in enumerate(turns, 1):
        repl.screen.say(f"{number:>3}  {one_line(turn.question, _LINE)}", bold=True)
        remark = f" ({one_line(turn.remark, _LINE)})" if turn.remark else ""
        repl.screen.say(f"     {one_line(turn.answer, _LINE)}{remark}")


async def save_command(repl: Repl, call: Call) -> None:
    """Write the conversation to a file, whole or not at all."""
    words = call.words(3)
    names = [word for word in words if word != _FORCE]
    if len(names) != 1:
        raise call.wrong("it needs one file")
    if not repl.conversation:
        raise UsageError("there is nothing to save yet")
    path = paths.expanded(names[0])
    form = as_json if path.suffix.lower() == ".json" else as_markdown
    save(path, form(repl.conversation), force=_FORCE in words)
    repl.screen.note(f"saved {plural(len(repl.conversation), 'turn')} to {path}")


async def clear_command(repl: Repl, call: Call) -> None:
    """Begin a new conversation on an empty screen."""
    call.words(0)
    repl.conversation.forget()
    repl.screen.clear()


async def exit_command(repl: Repl, call: Call) -> None:
    """Leave."""
    call.words(0)
    repl.leaving = True


def _turn(call: Call, turns: Conversation, text: str) -> Turn:
    if not turns:
        raise UsageError("nothing was asked yet")
    if not text.isdecimal() or not 1 <= int(text) <= len(turns):
        raise call.wrong(f"there is no turn {text!r}; there are {len(turns)}")
    turn: Turn = turns[int(text) - 1]
    return turn


def _last_run(repl: Repl) -> str:
    run = repl.last_run
    if run is None:
        return "none yet"
    took = seconds(run.ended_at - run.started_at)
    return f"{run.run_id}, {run.pipeline}, {run.status} after {took}, {plural(run.usage.total_tokens, 'token')}"
