"""Puts the parts together, and chooses between the line editor and plain lines."""

from __future__ import annotations

import asyncio
import os
import sys
from importlib import metadata
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from synaptic.ui.repl.commands import REGISTRY
from synaptic.ui.repl.screen import Screen
from synaptic.ui.repl.sessions import SessionFactory, SessionHolder, make_session
from synaptic.ui.repl.state import Repl, Sources

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from synaptic.config import LoadedSettings
    from synaptic.errors import ExitCode

DISTRIBUTION: Final = "synapticllamas"


def open_repl(
    loaded: LoadedSettings,
    *,
    config_path: Path | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, tuple[str, Any]] = MappingProxyType({}),
    verbose: bool = False,
    factory: SessionFactory = make_session,
) -> ExitCode:
    """Converse on this process's standard streams and return the exit code.

    Args:
        loaded: The settings to begin with; their notices have been shown.
        config_path: As ``--config`` names it.
        overrides: ``KEY=VALUE`` of each ``--set``.
        flags: Setting -> (flag, value).
        verbose: Show more of each run.
        factory: Makes the session; another one gives it another backend.

    """
    person = sys.stdin.isatty() and sys.stdout.isatty()
    edits = person and os.environ.get("TERM") != "dumb"
    repl = Repl(
        loaded,
        Sources(config_path, tuple(overrides), flags, {}),
        screen=Screen(sys.stdout, sys.stderr, live=edits, verbose=verbose),
        registry=REGISTRY,
        sessions=SessionHolder(factory),
    )
    if person:
        _greet(repl)
    if edits:
        from synaptic.ui.repl.terminal import converse  # noqa: PLC0415  (prompt_toolkit: a pipe does without)

        return asyncio.run(converse(repl))
    from synaptic.ui.repl.plain import converse_plainly  # noqa: PLC0415  (only one of the two is needed)

    return converse_plainly(repl, sys.stdin.buffer, person=person)


def _greet(repl: Repl) -> None:
    settings = repl.settings
    model = settings.model or "the model that the backend chooses"
    repl.screen.note(f"SynapticLlamas {metadata.version(DISTRIBUTION)}: pipeline {settings.pipeline}, {model}")
    repl.screen.note("Ask anything. /help lists the commands, Alt-Enter makes a new line, Ctrl-D leaves.")
