"""``synaptic nodes``: the Ollama nodes that calls are spread over: which there are, how they are, and changing them."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from synaptic.backends.pool import addresses, inspect_nodes
from synaptic.errors import UsageError
from synaptic.settings import begun_at, settings_path, stored_nodes
from synaptic.ui.actions import discover as search
from synaptic.ui.actions import named_nodes, show_settings, show_statuses
from synaptic.ui.actions import nodes as actions
from synaptic.ui.commands.support import CliVoice, load, mention_origin
from synaptic.ui.options import config_option, json_option, settings_options, with_options
from synaptic.ui.screen import stderr_console, terminal_width, write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.backends.pool import AddressRange, FoundNode, Inspection
    from synaptic.settings import Settings
    from synaptic.ui.options import Options

_ADD_EPILOG = """\b
As in:
  synaptic nodes add 10.0.0.2
  synaptic nodes add http://10.0.0.2:11434 --name desk --parallel 2
  synaptic nodes add https://gpu.example.net --token-env GPU_TOKEN

\b
A secret is never written into the settings, only where it is: the name of an
environment variable, or of a file that you alone can read."""

_CHECK_EPILOG = """\b
As in:
  synaptic nodes check                   all nodes
  synaptic nodes check desk 10.0.0.7     one of them, and an address that is none yet

\b
Exit codes: 0 all are well, 1 some are, 3 none is."""

_DISCOVER_EPILOG = """\b
As in:
  synaptic nodes discover 192.168.1.0/24
  synaptic nodes discover 10.0.0.0/28 --yes --add

\b
No address outside the one network that you name is contacted, and none before
you have said yes. At most 1024 addresses (/22), 64 at once, 1 s each."""


@click.group()
def nodes() -> None:
    """List, add, remove, check and find the Ollama nodes that calls are spread over."""


@nodes.command("list", short_help="List the nodes; with --check, how each is.")
@click.option("--check", is_flag=True, help="Ask each node how it is; without this, none is contacted.")
@settings_options
@json_option
@with_options
def list_nodes(options: Options, *, check: bool) -> None:
    """List the nodes of the settings; with --check, also how each of them is."""
    loaded = load(options)
    voice = CliVoice(options)
    if check:
        looks = _look(named_nodes(loaded.settings, os.environ))
        if options.json:
            write_json([_as_json(look) for look in looks])
            return
        width = terminal_width(sys.stdout) if sys.stdout.isatty() else None
        show_statuses(voice, [look.status for look in looks], width)
        for notice in (notice for look in looks for notice in look.notices):
            voice.warn(notice)
    elif options.json:
        write_json([node.model_dump(mode="json") for node in loaded.settings.nodes])
    else:
        asyncio.run(show_settings(voice, loaded, os.environ))


@nodes.command(epilog=_ADD_EPILOG, short_help="Add a node to the settings file.")
@click.argument("url")
@click.option("--name", metavar="NAME", help="What to call it; its address, if not given.")
@click.option("--parallel", type=click.IntRange(1, 64), help="Calls that it serves at once. [1]")
@click.option("--memory-gib", type=float, metavar="GIB", help="What models may take there; Ollama does not tell.")
@click.option("--token-env", metavar="VARIABLE", help="Environment variable that holds the bearer token.")
@click.option("--token-file", metavar="FILE", help="File that holds the bearer token.")
@click.option("--username", metavar="NAME", help="User of basic authentication.")
@click.option("--password-env", metavar="VARIABLE", help="Environment variable that holds the password.")
@click.option("--password-file", metavar="FILE", help="File that holds the password.")
@click.option("--ca-file", metavar="FILE", help="Certificates (PEM) to believe instead of the system's.")
@click.option("--no-check", is_flag=True, help="Add it even if nothing answers there.")
@config_option
@with_options
def add(options: Options, *, no_check: bool, **entry: Any) -> None:
    """Add a node to the settings file, after a look at whether an Ollama answers at URL."""
    path = settings_path(options.config_path)
    voice = CliVoice(options)
    added = asyncio.run(actions.add(voice, path, absolute(entry), os.environ, look=not no_check))
    actions.mention_local(voice, added, os.environ)
    mention_origin(options, path, "nodes")


@nodes.command(epilog="As in: synaptic nodes remove desk")
@click.argument("which", metavar="URL|NAME")
@config_option
@with_options
def remove(options: Options, which: str) -> None:
    """Remove a node from the settings file."""
    path = settings_path(options.config_path)
    voice = CliVoice(options)
    try:
        actions.remove(voice, path, which)
    finally:
        # Also where it is not in the file: it may be in the source that is named here.
        mention_origin(options, path, "nodes")


@nodes.command(epilog=_CHECK_EPILOG, short_help="Look at each node, and say what to fix.")
@click.argument("which", metavar="[URL|NAME]...", nargs=-1)
@settings_options
@json_option
@with_options
def check(options: Options, which: tuple[str, ...]) -> int:
    """Look at each node: whether it answers, what models it has, and where they are loaded."""
    settings = load(options).settings
    if options.json:
        looks = _look(actions.chosen_nodes(settings, which, os.environ), settings)
        write_json([_as_json(look) for look in looks])
        return int(actions.verdict(looks))
    _, code = asyncio.run(actions.check(CliVoice(options), settings, which, os.environ))
    return int(code)


@nodes.command(epilog=_DISCOVER_EPILOG, short_help="Look for Ollama in a network that you name.")
@click.argument("cidr")
@click.option("--port", type=click.IntRange(1, 65535), default=11434, help="Port that is tried. [11434]")
@click.option("-y", "--yes", is_flag=True, help="Contact the addresses without asking first.")
@click.option("--add", "wants_add", is_flag=True, help="Add what is found to the settings file.")
@config_option
@json_option
@with_options
def discover(options: Options, cidr: str, *, port: int, yes: bool, wants_add: bool) -> int:
    """Look for Ollama in one network that you name, after saying how many addresses that is."""
    found_in = addresses(cidr)
    path = settings_path(options.config_path)
    known = stored_nodes(path)
    voice = CliVoice(options)
    if not _may(voice, actions.announcement(found_in, port), yes=yes):
        voice.note("nothing was contacted")
        return 1
    found = _search(found_in, port)
    if options.json:
        write_json([_found_as_json(node, look) for node, look in found])
    else:
        actions.show_found(voice, found, known)
    if not found:
        voice.note(f"no Ollama answers at port {port} in {found_in}")
    elif wants_add:
        actions.add_found(voice, path, [node for node, _ in found])
        mention_origin(options, path, "nodes")
    elif not options.json:
        voice.note(f"to use one: synaptic nodes add {found[0][0].url}; to use all of them: the same command with --add")
    return 0


def absolute(entry: dict[str, Any]) -> dict[str, Any]:
    """Return what was given for a node, its files named so that they are found from every directory."""
    return {key: begun_at(value, Path()) if value and key.endswith("_file") else value for key, value in entry.items()}


def _look(chosen: Sequence[Any], settings: Settings | None = None) -> list[Inspection]:
    return asyncio.run(inspect_nodes(chosen, os.environ, settings))


def _may(voice: CliVoice, announcement: str, *, yes: bool) -> bool:
    """Say what would be contacted, and return whether it may be.

    Raises:
        UsageError: If there is no terminal to ask at.
    """
    if yes:
        voice.note(announcement)
        return True
    if not sys.stdin.isatty() or not sys.stderr.isatty():
        raise UsageError(f"this would contact {announcement}", hint="add --yes; there is no terminal to ask at")
    write_text(announcement, sys.stderr)
    return click.confirm("Contact them?", err=True)


def _search(found_in: AddressRange, port: int) -> list[tuple[FoundNode, Inspection]]:
    console = stderr_console()
    watched = console.is_terminal and not console.is_dumb_terminal
    columns = TextColumn("addresses asked"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=console, transient=True, disable=not watched) as progress:
        task = progress.add_task("", total=len(found_in))
        return asyncio.run(search(found_in, port, os.environ, lambda done: progress.update(task, completed=done)))


def _as_json(look: Inspection) -> dict[str, Any]:
    return {
        "name": look.node.name,
        "url": look.node.url,
        "parallel": look.node.parallel,
        "ok": look.well,
        "version": look.version,
        "round_trip": look.seconds,
        "models": [asdict(model) for model in look.models],
        "reason": look.reason,
        "hint": look.hint,
        "same_as": look.same_as or None,
    }


def _found_as_json(node: FoundNode, look: Inspection) -> dict[str, Any]:
    models = [model.name for model in look.models]
    return {"url": node.url, "version": node.version, "models": models, "note": node.note}
