"""What the Tab key of a shell completes: files, pipelines, recorded runs, conversations; it is silent of mistakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from click.shell_completion import CompletionItem, shell_complete

from synaptic import pipeline, runtime
from synaptic.errors import SynapticError
from synaptic.text import one_line
from synaptic.ui.options import ASKED_IN

if TYPE_CHECKING:
    from collections.abc import Iterable

    import click

PROGRAM: Final = "synaptic"

_MOST: Final = 50
_SHORT: Final = 8
_HELP: Final = 60


def answer(root: click.Command, wanted: str) -> int:
    """Write what a shell wants to know, and return the exit code."""
    return shell_complete(root, {}, PROGRAM, ASKED_IN, wanted)


def files(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return that the shell completes a file."""
    return [CompletionItem(incomplete, type="file")]


def pipelines(context: click.Context, option: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the built-in pipelines; a file where none begins so."""
    names = [name for name in pipeline.builtin_pipelines() if name.startswith(incomplete)]
    return [CompletionItem(name) for name in names] or files(context, option, incomplete)


def runs(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return recorded runs, those that can go on first."""
    try:
        with runtime.Journal() as journal:
            found = journal.resumable_first(limit=_MOST)
    except SynapticError:
        return []
    return _beginning(
        ((run.id[-_SHORT:], f"{run.status}, {run.pipeline}: {run.query or ''}") for run in found), incomplete.upper()
    )


def sessions(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return kept conversations: by name, where they have one."""
    try:
        with runtime.Journal() as journal:
            found = runtime.kept_sessions(journal)[:_MOST]
    except SynapticError:
        return []
    named = [session.name or session.id[-_SHORT:] for session in found]
    about = [session.runs[0].query or session.runs[0].pipeline for session in found]
    return _beginning(zip(named, about, strict=True), incomplete)


def _beginning(found: Iterable[tuple[str, str]], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(value, help=one_line(told, _HELP)) for value, told in found if value.startswith(incomplete)]
