"""``synaptic trust``: what a folder would do if it were trusted, and the person's word that it may."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from synaptic import paths
from synaptic.agents import agents_of
from synaptic.errors import ExitCode, UsageError
from synaptic.pipeline import claiming_pipelines
from synaptic.settings import dotted, folder_settings, forget_folder, is_trusted, trust_folder, trusted_folders
from synaptic.text import cut
from synaptic.ui.commands.support import note
from synaptic.ui.options import with_options
from synaptic.ui.screen import write_table, write_text

if TYPE_CHECKING:
    from synaptic.agents import AgentEntry
    from synaptic.ui.options import Options

_SHOWN = 200
_EPILOG = """\b
As in:
  synaptic trust                 the folder that you are in
  synaptic trust ~/flows --yes   without being asked, for scripts
  synaptic trust --list

\b
What changes in a file that is trusted is asked about again. For one call, also in
continuous integration: --trust-folder, or SYNAPTIC_TRUST_FOLDER=1."""


@click.command(epilog=_EPILOG)
@click.argument("folder", default=".")
@click.option("-y", "--yes", is_flag=True, help="Trust it without being asked.")
@click.option("--remove", is_flag=True, help="Trust it no longer.")
@click.option("--list", "wants_list", is_flag=True, help="List the folders that are trusted.")
@with_options
def trust(options: Options, folder: str, *, yes: bool, remove: bool, wants_list: bool) -> int:
    """Show what a folder's files would do if they were trusted, and trust them.

    Until then its synapticllamas.json may choose what is answered and what that may cost, but no servers, secrets,
    programs or files elsewhere; its agents replace none that you have; its pipelines call no installed tools.
    """
    if yes + remove + wants_list > 1:
        raise click.UsageError("--yes, --remove and --list contradict each other; take one")
    if wants_list:
        rows = [(name, ", ".join(sorted(files))) for name, files in sorted(trusted_folders().items())]
        write_table(("folder", "files"), rows)
        return int(ExitCode.ANSWERED)
    try:
        place = Path(os.path.realpath(paths.expanded(folder)))
    except OSError as exc:
        raise UsageError("the folder that you are in was removed", hint="go to another one, or name one") from exc
    if not remove:
        return _trust(options, place, yes=yes)
    note(options, f"{_plain(str(place))} {'is trusted no longer' if forget_folder(place) else 'was not trusted'}")
    return int(ExitCode.ANSWERED)


def _trust(options: Options, folder: Path, *, yes: bool) -> int:
    if not paths.is_dir(folder):
        raise UsageError(f"there is no folder {cut(str(folder), _SHOWN)}", hint="name the folder, not a file in it")
    texts, claims = examined(folder)
    shown = _plain(str(folder))
    if not texts:
        note(options, f"nothing in {shown} needs trust")
        return int(ExitCode.ANSWERED)
    if all(is_trusted(folder, name, text) for name, text in texts.items()):
        note(options, f"{shown} is trusted, and has not changed since")
        return int(ExitCode.ANSWERED)
    write_text(f"{shown} asks for:" if claims else f"{shown} asks for nothing yet")
    for where, what in claims:
        write_text(f"  {_plain(where)}  {_plain(what)}")
    if not yes and not _agreed():
        note(options, "nothing was changed")
        return int(ExitCode.FAILED)
    trust_folder(folder, texts)
    note(options, f"{shown} is trusted, as long as this does not change: {_plain(', '.join(sorted(texts)))}")
    return int(ExitCode.ANSWERED)


def examined(folder: Path) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Return the files that count in full once a folder is trusted, with their texts, and what they ask for, and where.

    Raises:
        UsageError: If a file has a mistake.
    """
    texts: dict[str, str] = {}
    claims: list[tuple[str, str]] = []
    settings = folder_settings(folder)
    if settings is not None:
        texts[str(paths.project_settings_file())] = settings.text
        claims += [
            (claim.place, f"{dotted(claim)}: {json.dumps(claim.value, ensure_ascii=False)}")
            for claim in settings.claims
        ]
    for name, entry in agents_of(folder).items():
        texts[name] = entry.text
        claims.append((name, _role(entry, folder)))
    for pipeline in claiming_pipelines(folder):
        texts[pipeline.name] = pipeline.text
        claims += [(f"{pipeline.name}:{line}", claim) for claim, line in pipeline.claims]
    return texts, claims


def _role(entry: AgentEntry, folder: Path) -> str:
    """Return what an agent of a folder is, in a few words."""
    place = paths.resolved(entry.path) if entry.path else folder
    linked = "" if place.is_relative_to(paths.resolved(folder)) else f", a link to {place}"
    instead = "".join(f", replaces {path}" for path in entry.overrides)
    return f"the agent {entry.agent.name}{instead}{linked}"


def _plain(text: str) -> str:
    """Return a text of the folder's with all that could make it look like another one written out."""
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def _agreed() -> bool:
    """Ask.

    Raises:
        UsageError: If there is no terminal to ask at.
    """
    if not sys.stdin.isatty() or not sys.stderr.isatty():
        raise UsageError("nothing was changed: there is no terminal to ask at", hint="look at it, and add --yes")
    return click.confirm("Trust it?", err=True)
