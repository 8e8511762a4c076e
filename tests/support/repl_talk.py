"""A REPL without a terminal: lines in, text out, the scripted backend behind it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from synaptic.backends.scripted import ScriptedBackend
from synaptic.runtime.session import Session
from synaptic.ui.repl.commands import REGISTRY
from synaptic.ui.repl.completion import CommandCompleter
from synaptic.ui.repl.repl import Repl, Sources
from synaptic.ui.repl.screen import Screen
from synaptic.ui.repl.sessions import SessionHolder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from synaptic.backends.scripted import Script
    from synaptic.settings import Settings


@dataclass
class Talk:
    """A program without a terminal: lines in, text out."""

    repl: Repl
    backend: ScriptedBackend
    out: io.StringIO
    err: io.StringIO
    sessions_made: list[Session]

    async def say(self, line: str) -> tuple[str, str]:
        """Carry out a line and return what it wrote on stdout and stderr."""
        for stream in (self.out, self.err):
            stream.seek(0)
            stream.truncate()
        await self.repl.handle(line)
        return self.out.getvalue(), self.err.getvalue()

    def complete(self, text: str) -> list[str]:
        """Return what the line would become with each completion taken."""
        document = Document(text)
        completions = CommandCompleter(self.repl).get_completions(document, CompleteEvent())
        return [text[: len(text) + entry.start_position] + entry.text for entry in completions]


def make_talk(
    script: Script | None = None,
    *,
    overrides: tuple[str, ...] = ("pipeline=answer", "retries=0"),
    flags: Mapping[str, tuple[str, Any]] | None = None,
    verbose: bool = False,
    context: int | None = None,
) -> Talk:
    """Return a program whose backend follows ``script``."""
    backend = ScriptedBackend(script, context=context)
    made: list[Session] = []

    def factory(settings: Settings) -> Session:
        made.append(Session(settings, backend=backend))
        return made[-1]

    out, err = io.StringIO(), io.StringIO()
    sources = Sources(None, overrides, flags or {}, {})
    repl = Repl(
        sources.load(),
        sources,
        screen=Screen(out, err, live=False, verbose=verbose),
        registry=REGISTRY,
        sessions=SessionHolder(factory),
    )
    return Talk(repl, backend, out, err, made)


def write(path: str | Path, text: str = "", *, mode: int = 0o644) -> None:
    """Write a file, and the directory that it is in."""
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    Path(path).chmod(mode)


def read(path: str | Path) -> str:
    """Return what is in a file."""
    return Path(path).read_text(encoding="utf-8")


def mode_of(path: str | Path) -> int:
    """Return who may do what with a file."""
    return Path(path).stat().st_mode & 0o777


def files(directory: Path) -> list[str]:
    """Return the names in a directory."""
    return sorted(path.name for path in directory.iterdir())
