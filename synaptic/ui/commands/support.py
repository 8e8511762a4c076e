"""What several commands need: the settings, with what is to be said about them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from synaptic.agents import discover_agents
from synaptic.errors import ConfigError, UsageError
from synaptic.settings import LoadedSettings, load_settings
from synaptic.text import printable
from synaptic.ui import actions, screen

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from synaptic.agents import AgentBook
    from synaptic.settings import Settings
    from synaptic.ui.options import Options


def read(options: Options) -> LoadedSettings:
    """Return the settings that the files, the environment and the command line give; nothing is said.

    Raises:
        ConfigError: If anything in them is wrong.

    """
    return load_settings(config_path=options.config_path, overrides=options.overrides, flags=options.flags)


def load(options: Options) -> LoadedSettings:
    """Return the settings, and say what of the folder's file does not count, because it is not trusted.

    Raises:
        ConfigError: If anything in them is wrong.

    """
    loaded = read(options)
    warn_of(options, loaded.left_out)
    return loaded


def agents(options: Options) -> AgentBook:
    """Return the agents, and say which of the folder do not count, because it is not trusted.

    Raises:
        AgentError: If a file has a mistake.

    """
    book = discover_agents()
    warn_of(options, book.left_out)
    return book


def warn_of(options: Options, left_out: str) -> None:
    """Print what is left out of the folder, if anything is."""
    if left_out:
        CliVoice(options).warn(left_out)


def load_with_notices(options: Options) -> LoadedSettings:
    """Return the settings, and print what a person should know about the files: older names, keys without a use.

    Raises:
        ConfigError: If anything in them is wrong.

    """
    loaded = load(options)
    if not options.quiet:
        screen.show_notices(screen.stderr_console(), loaded.notices)
    return loaded


class CliVoice:
    """Speaks as commands do: what was asked for on stdout, the rest on stderr unless ``--quiet`` was given."""

    def __init__(self, options: Options) -> None:
        self._quiet = options.quiet

    def say(self, text: str = "") -> None:
        """Print what was asked for."""
        screen.write_text(text)

    def note(self, text: str) -> None:
        """Print what is good to know."""
        if not self._quiet:
            screen.write_text(printable(text), sys.stderr)

    def warn(self, text: str) -> None:
        """Print what a person should know."""
        if not self._quiet:
            screen.show_notices(screen.stderr_console(), [text])

    def table(self, rows: Sequence[Sequence[str]], headers: Sequence[str] = ()) -> None:
        """Print aligned columns."""
        screen.write_table(headers, rows)


def note(options: Options, text: str) -> None:
    """Print what is good to know on stderr, unless ``--quiet`` was given."""
    CliVoice(options).note(text)


def mention_origin(options: Options, path: Path, name: str) -> None:
    """Say so where another source gives the setting just written; that stands whatever is wrong elsewhere."""
    voice = CliVoice(options)
    try:
        actions.mention_origin(voice, path, load(options), name)
    except ConfigError:
        voice.warn("the settings have a mistake; see: synaptic config validate")


def named_model(model: str | None, settings: Settings, command: str) -> str:
    """Return the model that a command is for: the one that was given, else that of the settings.

    Raises:
        UsageError: If there is none, or its name is empty.

    """
    found = (model if model is not None else settings.model) or ""
    if not found.strip():
        said = "the model's name is empty" if model is not None else "no model is named, here or in the settings"
        raise UsageError(said, hint=f"as in: synaptic {command} llama3.1:70b, or the path of a GGUF file")
    return found
