"""Puts the parts together, and chooses between the line editor and plain lines."""

from __future__ import annotations

import asyncio
import os
import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from synaptic import pipeline
from synaptic.ui.question import read_documents
from synaptic.ui.repl.commands import REGISTRY
from synaptic.ui.repl.plain import converse_plainly
from synaptic.ui.repl.repl import Repl, Sources
from synaptic.ui.repl.screen import Screen
from synaptic.ui.repl.sessions import SessionFactory, SessionHolder, session_factory
from synaptic.ui.repl.talks import find_talk, take_up
from synaptic.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from synaptic.errors import ExitCode
    from synaptic.pipeline import Tool
    from synaptic.settings import LoadedSettings


DEFAULT_PIPELINES = "pipeline research, or answer with the embedded model, which is there to try things out"


def open_repl(
    loaded: LoadedSettings,
    *,
    config_path: Path | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, tuple[str, Any]] = MappingProxyType({}),
    verbose: bool = False,
    tools: Sequence[str] = (),
    accept_all: bool = False,
    go_on: bool = False,
    session: str | None = None,
    files: Sequence[str] = (),
    factory: SessionFactory | None = None,
) -> ExitCode:
    """Converse on this process's standard streams and return the exit code.

    Args:
        loaded: The settings to begin with; their notices have been shown.
        config_path: As ``--config`` names it.
        overrides: ``KEY=VALUE`` of each ``--set``.
        flags: Setting -> (flag, value).
        verbose: Show more of each run.
        tools: Modules and files whose functions pipelines may call.
        accept_all: Accept every approval, instead of asking.
        go_on: Go on with the last conversation.
        session: Go on with this one, by its name or id.
        files: What every question is about.
        factory: Makes the session, instead of the usual one: with another backend, for example.

    Raises:
        UsageError: If a module of tools is wrong, a file cannot be read, or there is no such conversation.
        JournalError: If the record of runs cannot be read.
    """
    person = sys.stdin.isatty() and sys.stdout.isatty()
    edits = person and os.environ.get("TERM") != "dumb"
    screen = Screen(sys.stdout, sys.stderr, live=edits, verbose=verbose)
    if factory is None:
        factory = session_factory(_tools(tools), accept_all=accept_all, paused=screen.paused)
    repl = Repl(
        loaded,
        Sources(config_path, tuple(overrides), flags, {}),
        screen=screen,
        registry=REGISTRY,
        sessions=SessionHolder(factory),
    )
    talk = find_talk(repl, session) if go_on or session is not None else None
    documents = read_documents(files, "-f")
    if person:
        _greet(repl)
    if talk is not None:
        take_up(repl, talk if not files else talk._replace(files=()))
    if files:
        repl.about(files, documents)
    if not edits:
        return converse_plainly(repl, sys.stdin.buffer, person=person)
    from synaptic.ui.repl.terminal import converse  # noqa: PLC0415 - prompt_toolkit, which a pipe does without

    return asyncio.run(converse(repl))


def _tools(modules: Sequence[str]) -> Mapping[str, Tool]:
    return pipeline.named_tools(modules) if modules else {}


def _greet(repl: Repl) -> None:
    settings = repl.settings
    model = settings.model or "the model that the backend chooses"
    if settings.pipeline is None:
        repl.screen.note(f"SynapticLlamas {__version__}: {DEFAULT_PIPELINES}; {model}")
    else:
        repl.screen.note(f"SynapticLlamas {__version__}: pipeline {settings.pipeline}, {model}")
    repl.screen.note("Ask anything. /help lists the commands, Alt-Enter makes a new line, Ctrl-D leaves.")
