"""The options of a question: one table of click options, shared by the root and by ``run``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import wraps
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from synaptic import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

ASKED_IN: Final = "_SYNAPTIC_COMPLETE"
"""The variable in which what ``synaptic completion`` prints says what a shell wants."""

Command = TypeVar("Command", bound="Callable[..., Any]")
Result = TypeVar("Result")


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
    go_on: bool = False
    session: str | None = None

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


def _completed(by: str) -> Callable[[click.Context, click.Parameter, str], Any]:
    """Return what completes a value: a function of ``shell_values``, which the help does not wait for."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> Any:
        return getattr(import_module("synaptic.ui.shell_values"), by)(context, parameter, incomplete)

    return complete


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
    "-p",
    "--pipeline",
    metavar="NAME|FILE",
    shell_complete=_completed("pipelines"),
    help="Pipeline that answers: a built-in name or a file.",
)
_MODEL = click.option("-m", "--model", metavar="NAME", help="Model for every agent that names none.")
_TOOLS = click.option(
    "--tools",
    metavar="MODULE|FILE.py",
    multiple=True,
    help="Python module or file whose @tool functions pipelines may call; repeatable.",
)
_YES = click.option("-y", "--yes", is_flag=True, help="Approve every step, and answer every 'ask' with its default.")
_INPUTS = click.option(
    "-i",
    "--input",
    "inputs",
    metavar="KEY=VALUE",
    multiple=True,
    help="An input of the pipeline, KEY=@PATH from a file; repeatable.",
)
_TALK = (
    click.option("-c", "--continue", "go_on", is_flag=True, help="Go on with the last conversation."),
    click.option(
        "--session",
        metavar="NAME|ID",
        shell_complete=_completed("sessions"),
        help="Go on with this conversation; see synaptic sessions.",
    ),
)
_FILES = click.option(
    "-f",
    "--file",
    "files",
    metavar="PATH",
    multiple=True,
    shell_complete=_completed("files"),
    help="A file that the question is about, or a pattern in quotes; repeatable.",
)
_QUESTION = (
    _PIPELINE,
    _MODEL,
    _INPUTS,
    _FILES,
    _TOOLS,
    _YES,
    *_TALK,
    *_SETTINGS,
    click.option("--plan", is_flag=True, help="Print what would run, and where, and stop; no model is called."),
    _JSON,
    *_LOUDNESS,
)


def _together(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Return a decorator that adds several options to a command, in this order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


question_options = _together(*_QUESTION)
"""Every option of a question."""

resume_options = _together(_PIPELINE, _TOOLS, _YES, *_SETTINGS, _JSON, *_LOUDNESS)
"""The options of going on with a run."""

change_options = _together(_MODEL, _INPUTS, _TOOLS, _YES, *_SETTINGS, _JSON, *_LOUDNESS)
"""In what a run may differ from the one that it begins with, but for the pipeline."""

replay_options = _together(_TOOLS, _JSON, *_LOUDNESS)
batch_options = _together(_MODEL, _TOOLS, _YES, *_SETTINGS, *_LOUDNESS)
chat_options = _together(_PIPELINE, _MODEL, _FILES, _TOOLS, _YES, *_TALK, *_SETTINGS, *_LOUDNESS)
settings_options = _together(*_SETTINGS)
config_option = _together(_CONFIG)
tools_option = _together(_TOOLS)
json_option = _together(_JSON)


def with_options(function: Callable[..., Result]) -> Callable[..., Result]:
    """Give a command the options that were written before its name and behind it, as its first argument.

    What the command has beside those, or names itself among its arguments, it gets as click gives it.
    """
    shared = {field.name for field in fields(Options)} - signature(function).parameters.keys()

    @click.pass_context
    @wraps(function)
    def command(context: click.Context, /, **values: Any) -> Result:
        own = {name: values.pop(name) for name in values.keys() - shared}
        before = context.find_object(Options) or Options()
        return function(before.merged(values), **own)

    return command
