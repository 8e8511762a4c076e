"""Commands about this conversation: ``/status``, ``/history``, ``/save``, ``/clear``, ``/exit``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from synaptic import paths
from synaptic.errors import SynapticError, UsageError
from synaptic.messages import Usage
from synaptic.processes import replace_file
from synaptic.runtime import Journal, take_back
from synaptic.text import one_line, plural, seconds
from synaptic.ui.actions import account_of, show_runs, told
from synaptic.ui.repl.conversation import Turn, as_json, as_markdown, numbered_turn
from synaptic.ui.repl.other_programs import goes_on_from
from synaptic.ui.repl.slash_commands import FORCE
from synaptic.ui.repl.talks import show_answer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from synaptic.ui.repl.repl import Repl
    from synaptic.ui.repl.slash_commands import Call

_LINE: Final = 100
_RUNS: Final = 20
_OTHER_FORMS: Final = frozenset({".doc", ".docx", ".htm", ".html", ".odt", ".pdf", ".rtf"})
_ANSWERED: Final = ("answered", "stopped")
_SEE: Final = "/history shows the turns"
_MODEL_FLAGS: Final = ("-m", "--model")


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
    await repl.catch_up()
    turns = repl.conversation
    if words:
        turn = numbered_turn(call, turns, words[0])
        repl.screen.say(turn.question, bold=True)
        repl.screen.say()
        show_answer(repl, turn)
        return
    if not turns:
        repl.screen.say("nothing was asked yet")
    for number, turn in enumerate(turns, 1):
        repl.screen.say(f"{number:>3}  {one_line(turn.question, _LINE)}", bold=True)
        remark = f" ({one_line(turn.remark, _LINE)})" if turn.remark else ""
        repl.screen.say(f"     {one_line(turn.answer, _LINE)}{remark}")


async def runs_command(repl: Repl, call: Call) -> None:
    """List the latest runs, or tell one again."""
    words = call.words(1)
    with Journal() as journal:
        if words:
            repl.screen.say(told(account_of(journal, words[0])))
        else:
            show_runs(repl.screen, journal.resumable_first(limit=_RUNS))


async def save_command(repl: Repl, call: Call) -> None:
    """Write the conversation to a file, whole or not at all."""
    words = call.words(3)
    names = [word for word in words if word != FORCE]
    if len(names) != 1:
        raise call.wrong("it needs one file")
    await repl.catch_up()
    if not repl.conversation:
        raise UsageError("there is nothing to save yet")
    path = paths.expanded(names[0])
    if path.suffix.lower() in _OTHER_FORMS:
        raise UsageError(
            f"/save writes Markdown or JSON, and {path} is called otherwise", hint="name a .md or .json file"
        )
    form = as_json if path.suffix.lower() == ".json" else as_markdown
    save(path, form(repl.conversation), force=FORCE in words)
    repl.screen.note(f"saved {plural(len(repl.conversation), 'turn')} to {path}")


async def undo_command(repl: Repl, call: Call) -> None:
    """Forget the last turn."""
    call.words(0)
    await repl.refuse_surprise()
    turn = _last(repl)
    await _keep_the_end(repl, repl.conversation[:-1])
    repl.conversation.pop()
    repl.screen.note(f"forgotten: {one_line(turn.question, _LINE)} ({plural(len(repl.conversation), 'turn')} left)")


async def retry_command(repl: Repl, call: Call) -> None:
    """Ask the last question again, in the place of its turn."""
    words = call.words(2)
    if words and (words[0] not in _MODEL_FLAGS or len(words) == 1):
        raise call.wrong(f"{words[0]} needs a model" if words[0] in _MODEL_FLAGS else f"{words[0]!r} is no option")
    await repl.refuse_surprise()
    turn = _last(repl)
    assert turn.asked is not None, "a turn of this conversation was asked"
    asked = replace(turn.asked, model=words[1]) if words else turn.asked
    repl.conversation.pop()
    there = len(repl.conversation)
    try:
        await repl.ask_here(asked, instead=turn if turn.answer else None)
    finally:
        came = repl.conversation[there:]
        if not came or (turn.answer and came[-1].status not in _ANSWERED):
            repl.conversation[there:] = [turn]
            if turn.answer:
                repl.screen.note("the answer that was there stays")
        else:
            repl.conversation[there:] = [replace(came[-1], stands_for=(turn.run_id, *turn.stands_for))]


async def _keep_the_end(repl: Repl, turns: Sequence[Turn]) -> None:
    """Let the conversation, as it is kept, end with the last one of these turns; nothing is written where it does.

    Raises:
        UsageError: If another program has asked something in it since it was looked at.
        JournalError: If the record of runs cannot be written.
    """
    if repl.kept_as is not None and repl.last_seen is not None:
        await repl.sessions.recorded()
        with Journal() as journal:
            tip = goes_on_from(journal, turns)
            recorded = goes_on_from(journal, repl.conversation) != tip
            if recorded and not take_back(journal, repl.kept_as, repl.last_seen, tip):
                raise UsageError("nothing was done: another program has just asked something", hint=_SEE)


def _last(repl: Repl) -> Turn:
    if not repl.conversation:
        raise UsageError("nothing was asked yet")
    if repl.at_work:
        raise UsageError("nothing was done: another program waits for the answer to the last turn", hint=_SEE)
    return repl.conversation[-1]


async def clear_command(repl: Repl, call: Call) -> None:
    """Begin a new conversation on an empty screen."""
    call.words(0)
    repl.conversation.clear()
    repl.kept_as = None
    repl.screen.clear()


async def exit_command(repl: Repl, call: Call) -> None:
    """Leave."""
    call.words(0)
    repl.leaving = True


def _last_run(repl: Repl) -> str:
    run = repl.last_run
    if run is None:
        return "none yet"
    took = seconds(run.ended_at - run.started_at)
    return f"{run.run_id}, {run.pipeline}, {run.status} after {took}, {plural(run.usage.total_tokens, 'token')}"


def save(path: Path, text: str, *, force: bool = False) -> None:
    """Write a text to a file, whole or not at all, and never over another one unasked.

    Raises:
        UsageError: If the file is there and ``force`` is off, or it cannot be written; nothing has changed then.
    """
    reserved = False
    try:
        if not force:
            path.open("x").close()
            reserved = True
        replace_file(path, text.encode())
    except FileExistsError as exc:
        raise UsageError(f"{path} exists", hint="choose another name, or add --force to replace it") from exc
    except (OSError, ValueError) as exc:
        if reserved:
            path.unlink(missing_ok=True)
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise UsageError(f"{path} cannot be written: {reason}") from exc
