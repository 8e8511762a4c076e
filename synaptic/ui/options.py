"""The options of a question: one table of click options, shared by the root and by ``run``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

import click

from synaptic import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

Command = TypeVar("Command", bound="Callable[..., Any]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was written on the command line, before the subcommand and after it together."""

    pipeline: str | None = None
    model: str | None = None
    inputs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    config: str | None = None
    plan: bool = False
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    tools: tuple[str, ...] = ()
    yes: bool = False

    def merged(self, later: Mapping[str, Any]) -> Options:
        """Return these options with ``later`` ones over them; lists are joined, switches stay on."""
        values: dict[str, Any] = {}
        for name in (field.name for field in fields(self)):
            old, new = getattr(self, name), later.get(name)
            values[name] = (*old, *(new or ())) if isinstance(old, tuple) else new or old
        return Options(**values)

    @property
    def config_path(self) -> Path | None:
        """The file of ``--config``."""
        from pathlib import Path  # noqa: PLC0415 - the help reads no file

        return None if self.config is None else Path(self.config)

    @property
    def flags(self) -> dict[str, tuple[str, Any]]:
        """Setting -> (flag, value) of the flags that stand for a setting."""
        return {"model": ("-m", self.model), "pipeline": ("-p", self.pipeline)}


def _trust(context: click.Context, _: click.Parameter, wanted: Any) -> None:
    if wanted and not context.resilient_parsing:
        context.with_resource(settings.trusting())


_TRUST = click.option(
    "--trust-folder",
    is_flag=True,
    expose_value=False,
    callback=_trust,
    help="Trust the files of this folder for this call; see synaptic trust.",
)
_CONFIG = click.option("--config", metavar="PATH", help="Settings file to use instead of ~/.synapticllamas.json.")
_SETTINGS = (
    _TRUST,
    click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Override one setting; repeatable."),
    _CONFIG,
)
_JSON = click.option("--json", is_flag=True, help="Print one JSON document on standard output.")
_LOUDNESS = (
    click.option("-q", "--quiet", is_flag=True, help="Print nothing but the answer and errors."),
    click.option("-v", "--verbose", is_flag=True, help="Print also the route, prompt sizes and first-token times."),
)
_PIPELINE = click.option(
    "-p", "--pipeline", metavar="NAME|FILE", help="Pipeline that answers: a built-in name or a file."
)
_MODEL = click.option("-m", "--model", metavar="NAME", help="Model for every agent that names none.")
_TOOLS = click.option(
    "--tools",
    metavar="MODULE|FILE.py",
    multiple=True,
    help="Python module or file whose @tool functions pipelines may call; repeatable.",
)
_YES = click.option("-y", "--yes", is_flag=True, help="Approve every step, and answer every 'ask' with its default.")
_QUESTION = (
    _PIPELINE,
    _MODEL,
    click.option(
        "-i",
        "--input",
        "inputs",
        metavar="KEY=VALUE",
        multiple=True,
        help="An input of the pipeline, KEY=@PATH from a file; repeatable.",
    ),
    click.option(
        "-f",
        "--file",
        "files",
        metavar="PATH",
        multiple=True,
        help="A file that the question is about, or a pattern in quotes; repeatable.",
    ),
    _TOOLS,
    _YES,
    *_SETTINGS,
    click.option("--plan", is_flag=True, help="Print what would run, and where, and stop; no model is called."),
    _JSON,
    *_LOUDNESS,
)


def question_options(command: Command) -> Command:
    """Add every option of a question to a command."""
    return _apply(_QUESTION, command)


def chat_options(command: Command) -> Command:
    """Add the options of a chat to a command."""
    return _apply((_PIPELINE, _MODEL, _TOOLS, _YES, *_SETTINGS, *_LOUDNESS), command)


def config_option(command: Command) -> Command:
    """Add ``--config`` to a command."""
    return _apply((_CONFIG,), command)


def tools_option(command: Command) -> Command:
    """Add ``--tools`` to a command."""
    return _apply((_TOOLS,), command)


def settings_options(command: Command) -> Command:
    """Add the options that choose settings to a command."""
    return _apply(_SETTINGS, command)


def json_option(command: Command) -> Command:
    """Add ``--json`` to a command."""
    return _apply((_JSON,), command)


def given(context: click.Context, **values: Any) -> Options:
    """Return what was given before the subcommand, with the subcommand's own ``values`` over it."""
    before = context.find_object(Options) or Options()
    return before.merged(values)


def _apply(options: Iterable[Callable[[Command], Command]], command: Command) -> Command:
    for option in reversed(tuple(options)):
        command = option(command)
    return command
