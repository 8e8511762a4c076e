"""What several commands need: the settings, with what is to be said about them."""

from __future__ import annotations

import shutil
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from synaptic import runtime
from synaptic.errors import ConfigError, UsageError
from synaptic.settings import LoadedSettings, load_settings
from synaptic.text import printable
from synaptic.ui import actions, screen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from synaptic.messages import Reporter
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
    if loaded.left_out:
        CliVoice(options).warn(loaded.left_out)
    return loaded


def load_with_notices(options: Options) -> LoadedSettings:
    """Return the settings, and print what a person should know about the files: older names, keys without a use.

    Raises:
        ConfigError: If anything in them is wrong.
    """
    loaded = load(options)
    if not options.quiet:
        screen.show_notices(screen.stderr_console(), loaded.notices)
    return loaded


@contextmanager
def progress(options: Options) -> Iterator[Reporter]:
    """Give what hears how far some work is, and show that on stderr unless ``--quiet`` was given."""
    console = screen.stderr_console()
    renderer = screen.make_renderer(console=console, out=sys.stdout, quiet=options.quiet, answer=False)
    try:
        yield lambda event: renderer.handle(runtime.BackendReported(event))
    finally:
        renderer.close()


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


def read_written(read: Callable[[str], float], option: str, text: str) -> float:
    """Return what an option says, read by ``read``; raise ``UsageError`` if it cannot."""
    try:
        return read(text)
    except ValueError as exc:
        raise UsageError(f"{option} {text!r} must be {exc}") from exc


def paged(page: str) -> None:
    """Print what was made for this terminal; through the pager (``PAGER``, else ``less``) where it does not fit."""
    if not sys.stdin.isatty() or page.count("\n") + 1 < shutil.get_terminal_size().lines:
        sys.stdout.write(f"{page}\n")
    else:
        click.echo_via_pager(f"{page}\n")
