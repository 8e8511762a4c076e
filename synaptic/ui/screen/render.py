"""Draws a run from its events: how it goes on stderr, the answer on stdout."""

from __future__ import annotations

import os
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, TextIO

from synaptic.runtime import RunFinished, RunStarted, StepRepaired, StepRetried, StepThought, TokenDelta
from synaptic.ui.screen.answer_writer import AnswerWriter
from synaptic.ui.screen.render_plain import PlainStatus, QuietStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from synaptic.runtime import Event
    from synaptic.settings import Look


class Renderer:
    """Shows one run after another.

    The error of a failed run is not shown: the caller that started the run has it in the
    result. An interrupted run is said to be interrupted, and its partial answer is written.
    """

    def __init__(self, status: QuietStatus, answer: AnswerWriter | None) -> None:
        self._status = status
        self._answer = answer
        self._answer_step: str | None = None
        self._pauses = 0
        self._kept: list[str] = []

    def handle(self, event: Event) -> None:
        """Show an event. Never waits for anything but the terminal."""
        if isinstance(event, RunFinished):
            self._finish(event)
            return
        self._status.update(event)
        if type(event) is TokenDelta:
            if event.path == self._answer_step and self._answer is not None:
                self._stream(self._answer, event.text)
        elif isinstance(event, RunStarted):
            self._answer_step = event.plan.answer_step
        elif isinstance(event, StepRetried | StepRepaired | StepThought) and event.path == self._answer_step:
            thought = isinstance(event, StepThought)
            self._restart("was thinking; here is the answer" if thought else "is void; the answer starts again")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the terminal to a question to the person inside the ``with``. Runs go on meanwhile.

        What happens is shown afterwards, the answer's text included. May be nested; the last one to leave resumes.
        """
        self._pauses += 1
        if self._pauses == 1:
            if self._answer is not None:
                self._answer.end_line()
            self._status.pause()
        try:
            yield
        finally:
            self._pauses -= 1
            if self._pauses == 0:
                self._resume()

    def close(self) -> None:
        """Stop drawing and leave the terminal as it was. May be called twice."""
        if self._answer is not None:
            self._answer.end_line()
        self._status.close()

    def _resume(self) -> None:
        self._status.resume()
        kept, self._kept = self._kept, []
        if self._answer is not None:
            for text in kept:
                self._stream(self._answer, text)

    def _stream(self, answer: AnswerWriter, text: str) -> None:
        if self._pauses:
            self._kept.append(text)
        elif answer.streams and (answer.text or text.strip()):
            self._status.hold()
            answer.add(text)

    def _restart(self, why: str) -> None:
        """Void the answer so far, and say so where it is on the screen."""
        self._kept = []
        if self._answer is None or not self._answer.text:
            return
        self._answer.begin_anew()
        if not self._pauses:
            self._status.release()
        self._status.say(f"the text above {why}", "yellow")

    def _finish(self, event: RunFinished) -> None:
        if self._pauses:
            # A question was open. The whole answer is written below, not what was kept of it.
            self._kept = []
            self._status.resume()
        self._status.settle(event)
        if self._answer is not None:
            if self._answer.streams and event.result.answer:
                self._status.hold()
            self._answer.finish(event.result)
        self._status.release()
        self._status.update(event)


def make_renderer(
    *,
    console: Console,
    out: TextIO,
    quiet: bool = False,
    verbose: bool = False,
    answer: bool = True,
    look: Look | None = None,
) -> Renderer:
    """Return the renderer that suits the terminal.

    Args:
        console: On stderr.
        out: Where the answer goes; streamed token by token only where it is a terminal.
        quiet: Show nothing but the answer.
        verbose: Show also the route, the size of prompts and the time to their first tokens.
        answer: Whether to write the answer at all.
        look: Of Markdown, where a person reads the answer; ``None`` writes it as it comes.
    """
    status: QuietStatus
    if quiet:
        status = QuietStatus(console)
    elif console.is_interactive and console.file.isatty():
        from synaptic.ui.screen.render_live import LiveStatus  # noqa: PLC0415 - rich.live costs 20 ms that a pipe need not pay

        status = LiveStatus(console, verbose=verbose)
    else:
        status = PlainStatus(console, verbose=verbose)
    return Renderer(status, make_answer_writer(out, look) if answer else None)


def make_answer_writer(out: TextIO, look: Look | None) -> AnswerWriter:
    """Return what writes an answer: as Markdown where a person reads it and there is a look."""
    if look is None or not out.isatty() or os.environ.get("TERM") == "dumb":
        return AnswerWriter(out)
    found: AnswerWriter = import_module("synaptic.ui.screen.markdown_answer").MarkdownWriter(out, look)
    return found
