"""Where the program writes: what was asked for on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final, TextIO

from synaptic.errors import SynapticError, UsageError
from synaptic.text import printable
from synaptic.ui import screen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from synaptic.settings import Look
    from synaptic.ui.screen import Renderer

_BOLD: Final = "1"
_DIM: Final = "2"
_RED: Final = "31"
_YELLOW: Final = "33"
_CLEAR: Final = "\x1b[H\x1b[2J\x1b[3J"
_MARKS_PASTES: Final = "\x1b[?2004h"
_MARKS_NOTHING: Final = "\x1b[?2004l"


class Screen:
    """Plain text out; rich is imported when the first run is drawn and not before.

    Args:
        out: Answers, and what commands were asked for.
        err: Notices, errors, the progress of runs.
        live: Whether a person watches, on a terminal that can move its cursor.
        verbose: Show more of each run.
    """

    def __init__(self, out: TextIO, err: TextIO, *, live: bool, verbose: bool = False) -> None:
        self.out = out
        self.err = err
        self.live = live
        self.verbose = verbose
        self._console: Console | None = None
        self._view: Renderer | None = None
        self._marks_pastes = False

    def say(self, text: str = "", *, bold: bool = False) -> None:
        """Print what was asked for."""
        print(self._painted(text, _BOLD if bold else "", self.out), file=self.out, flush=True)

    def answer(self, text: str, look: Look | None = None) -> None:
        """Print an answer that is complete, as it looks when it comes: ``look`` is as `run_view` has it."""
        screen.make_answer_writer(self.out, look).show(text)

    def note(self, text: str) -> None:
        """Print something that is good to know."""
        print(self._painted(text, _DIM, self.err), file=self.err, flush=True)

    def warn(self, text: str) -> None:
        """Print something that a person should know."""
        print(self._painted(text, _YELLOW, self.err), file=self.err, flush=True)

    def error(self, error: SynapticError) -> None:
        """Print what is wrong, one line each, and what to do about it."""
        problems = [str(problem) for problem in error.problems] if isinstance(error, UsageError) else []
        for text in problems or [error.message]:
            print(self._painted(f"error: {text}", _RED, self.err, of="error:"), file=self.err, flush=True)
        if error.hint:
            self.note(f"hint: {error.hint}")

    def table(self, rows: Sequence[Sequence[str]], headers: Sequence[str] = ()) -> None:
        """Print rows in aligned columns, folded to the width of a terminal."""
        clean = [[printable(cell) for cell in row] for row in rows]
        for line in screen.table_lines(headers, clean, screen.width_of(self.out)):
            self.say(line)

    def clear(self) -> None:
        """Clear the terminal and its scrollback, where there is one."""
        if self.live:
            self.out.write(_CLEAR)
            self.out.flush()

    @contextlib.contextmanager
    def run_view(self, look: Look | None = None) -> Iterator[Renderer]:
        """Give the renderer of one run, and leave the terminal as it was.

        Args:
            look: Of the answer's Markdown; ``None`` shows it as it comes.
        """
        if self._console is None:
            self._console = screen.stderr_console(self.err)
        renderer = self._view = screen.make_renderer(
            console=self._console, out=self.out, verbose=self.verbose, look=look
        )
        try:
            with self._pastes_marked(marked=True):
                yield renderer
        finally:
            self._view = None
            renderer.close()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Give a context in which the run that is drawn, if any, keeps off the terminal."""
        with contextlib.nullcontext() if self._view is None else self._view.paused(), self.away():
            yield

    def away(self) -> contextlib.AbstractContextManager[None]:
        """Give a context in which another one reads the keys, who takes what is pasted as typed."""
        return self._pastes_marked(marked=False)

    @contextlib.contextmanager
    def _pastes_marked(self, *, marked: bool) -> Iterator[None]:
        """Have the terminal mark where pasted text begins and ends, or not: for the prompt that reads it after a run.

        Without the marks each line that is pasted during a run would be a question of its own.
        """
        before = self._marks_pastes
        self._mark_pastes(marked=marked)
        try:
            yield
        finally:
            self._mark_pastes(marked=before)

    def _mark_pastes(self, *, marked: bool) -> None:
        if self.live and self.out.isatty() and marked != self._marks_pastes:
            self._marks_pastes = marked
            with contextlib.suppress(OSError):  # the terminal may be gone by now
                self.out.write(_MARKS_PASTES if marked else _MARKS_NOTHING)
                self.out.flush()

    @staticmethod
    def _painted(text: str, code: str, stream: TextIO, *, of: str = "") -> str:
        """Return a text as the stream shows it; of a painted one, all of it or its beginning ``of``."""
        shown = screen.for_person(printable(text), stream)
        if not code or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
            return shown
        beginning = of or shown
        return f"\x1b[{code}m{beginning}\x1b[0m{shown[len(beginning) :]}"
