"""``synaptic agents``: who there is, and what each is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from synaptic.text import decoded
from synaptic.ui.actions import found_agents, show_agents
from synaptic.ui.commands.support import CliVoice
from synaptic.ui.options import json_option, with_options
from synaptic.ui.screen import write_document, write_json

if TYPE_CHECKING:
    from synaptic.agents import AgentEntry
    from synaptic.ui.options import Options


@click.group()
def agents() -> None:
    """List and show agents.

    They come with the package, from your configuration directory, and from ./agents; of two with one name the
    later one counts.
    """


@agents.command("list")
@json_option
@with_options
def list_agents(options: Options) -> None:
    """List the agents: where each comes from, and what it overrides."""
    entries = found_agents(CliVoice(options)).entries()
    if options.json:
        write_json([_data(entry) for entry in entries])
    else:
        show_agents(CliVoice(options), entries)


@agents.command()
@click.argument("name")
@json_option
@with_options
def show(options: Options, name: str) -> None:
    """Print an agent's file; to override a shipped one, start from it.

    As in: synaptic agents show editor > new.md && mv new.md agents/editor.md
    """
    entry = found_agents(CliVoice(options)).entry(name)
    if options.json:
        write_json({**_data(entry), "prompt": entry.agent.prompt})
    elif entry.path is not None:
        write_document(decoded(entry.path.read_bytes()))


def _data(entry: AgentEntry) -> dict[str, Any]:
    agent = entry.agent
    return {
        "name": agent.name,
        "description": agent.description,
        "origin": entry.origin,
        "path": entry.path,
        "overrides": list(entry.overrides),
        "model": agent.model,
        "temperature": agent.temperature,
        "max_tokens": agent.max_tokens,
        "output": agent.output.decoding_schema() if agent.output else None,
    }
