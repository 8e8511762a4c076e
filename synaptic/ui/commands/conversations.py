"""``synaptic sessions``: the conversations that are kept."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from synaptic import runtime
from synaptic.text import one_line, plural, when
from synaptic.ui import screen, shell_values
from synaptic.ui.actions import markdown_of
from synaptic.ui.commands.support import paged
from synaptic.ui.options import json_option, with_options
from synaptic.ui.screen import write_document, write_json, write_table, write_text

if TYPE_CHECKING:
    from synaptic.runtime import KeptSession, KeptTurn
    from synaptic.ui.options import Options

_AT_WORK: Final = {"running": "still being answered", "waiting": "waits for an answer", "cancelled": "interrupted"}
_SHOWN: Final = 70


@click.group("sessions")
def sessions() -> None:
    """List, show, export and remove the conversations that are kept; 'synaptic chat --session' goes on with one."""


@sessions.command("list")
@json_option
@with_options
def list_sessions(options: Options) -> int:
    """List them, the one that was spoken in last first."""
    with runtime.Journal() as journal:
        found = runtime.kept_sessions(journal)
    if options.json:
        write_json([_facts(session) for session in found])
    elif found:
        rows = [
            (
                session.id,
                session.name,
                str(len(session.runs)),
                when(session.last.started),
                one_line(_about(session), _SHOWN),
            )
            for session in found
        ]
        write_table(("id", "name", "runs", "last", "begins with"), rows)
    else:
        write_text("no conversation is kept yet")
    return 0


@sessions.command("show")
@click.argument("session", required=False, shell_complete=shell_values.sessions)
def show(session: str | None) -> int:
    """Show the turns of one, by its name or id; without, of the last one."""
    found, turns = _read(session)
    if sys.stdout.isatty():
        paged(screen.talk_page(_told(turns), found.name or "Conversation", sys.stdout))
    else:
        write_text(_markdown(found, turns))
    return 0


@sessions.command("export")
@click.argument("session", required=False, shell_complete=shell_values.sessions)
@json_option
@with_options
def export(options: Options, session: str | None) -> int:
    """Write one as Markdown, or as JSON, to standard output."""
    found, turns = _read(session)
    if options.json:
        write_json({**_facts(found), "turns": [{**asdict(turn), "at": runtime.timestamp(turn.at)} for turn in turns]})
    else:
        write_document(_markdown(found, turns))
    return 0


@sessions.command("remove")
@click.argument("session", shell_complete=shell_values.sessions)
def remove(session: str) -> int:
    """Remove one, by its name or id, with the record of its runs; a fork of it keeps its own turns."""
    with runtime.Journal() as journal:
        found = runtime.find_session(journal, session)
        left = runtime.remove_session(journal, found)
    removed = len(found.runs) - sum(map(len, left.values()))
    write_text(f"removed {found.name or found.id}: {plural(removed, 'run')}")
    for fork, runs in left.items():
        stay = "stays" if len(runs) == 1 else "stay"
        write_text(f"{plural(len(runs), 'turn')} that the fork {fork} begins with {stay} there")
    return 0


def _read(wanted: str | None) -> tuple[KeptSession, list[KeptTurn]]:
    with runtime.Journal() as journal:
        found = runtime.find_session(journal, wanted)
        return found, runtime.turns_of(journal, found)


def _facts(session: KeptSession) -> dict[str, Any]:
    return {
        "id": session.id,
        "name": session.name or None,
        "runs": [run.id for run in session.runs],
        "begun_at": runtime.timestamp(session.runs[0].started),
        "last_at": runtime.timestamp(session.last.started),
        "begins_with": _about(session),
    }


def _about(session: KeptSession) -> str:
    first = session.runs[0]
    return first.query or first.pipeline


def _markdown(session: KeptSession, turns: list[KeptTurn]) -> str:
    return markdown_of(_told(turns), session.name)


def _told(turns: list[KeptTurn]) -> list[tuple[str, str, str]]:
    return [(turn.question, turn.answer, _ended(turn)) for turn in turns]


def _ended(turn: KeptTurn) -> str:
    """Return how a turn ended, if not well."""
    word = _AT_WORK.get(turn.status, turn.status)
    return "" if turn.status == "succeeded" else f"{word}: {turn.error}" if turn.error else word
