"""Draws a run from its events: how it goes on stderr, the answer on stdout."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from synaptic.runtime import RunFinished, RunStarted, StepRepaired, StepRetried, StepThought, TokenDelta
from synaptic.text import printable
from synaptic.ui.screen.render_plain import PlainStatus, QuietStatus
from synaptic.ui.screen.wrap import WordWrapper, width_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from synaptic.runtime import Event, RunResult


class AnswerWriter:
    """Writes the answer to ``out``: as it comes to a person, whole and complete to a program.

    Attributes:
        streams: Whether a person reads.
        text: What was written of the answer so far.

    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.streams = out.isatty()
        self._wrapper = WordWrapper(self._width)
        self.text = ""
        self._open_line = False

    def add(self, text: str) -> None:
        """Write the next piece; white space before the first word is left out."""
        piece = text if self.text else text.lstrip()
        if piece:
            self.text += piece
            self._write(self._wrapper.feed(printable(piece)))

    def begin_anew(self) -> None:
        """Void what was written; the next piece begins on a new line."""
        self.end_line()
        self.text = ""

    def end_line(self) -> None:
        """Leave the cursor at the start of a line."""
        self._write(self._wrapper.flush())
        if self._open_line:
            self._write("\n")
        self._wrapper = WordWrapper(self._width)

    def finish(self, result: RunResult) -> None:
        """Complete the answer. What was streamed is not written again, unless the run ended with another text."""
        answer = result.text
        same = self.text.strip() == answer.strip()
        if not same and (not self.text or result.status in {"succeeded", "stopped"}):
            self.begin_anew()
            if self.streams:
                self.add(answer.rstrip())
            elif answer:
                # In one piece, newline and all: the program at the other end may write to our terminal, too.
                self._write(answer if answer.endswith("\n") else f"{answer}\n")
        self.end_line()
        self.text = ""

    def _width(self) -> int | None:
        """Return the width of the terminal now; ``None`` where it does not say."""
        return width_of(self._out)

    def _write(self, text: str) -> None:
        if not text:
            return
        self._out.write(text)
        self._out.flush()
        self._open_line = not text.endswith("\n")


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
    *, console: Console, out: TextIO, quiet: bool = False, verbose: bool = False, answer: bool = True
) -> Renderer:
    """Return the renderer that suits the terminal.

    Args:
        console: On stderr.
        out: Where the answer goes; streamed token by token only where it is a terminal.
        quiet: Show nothing but the answer.
        verbose: Show also the route, the size of prompts and the time to their first tokens.
        answer: Whether to write the answer at all.

    """
    status: QuietStatus
    if quiet:
        status = QuietStatus(console)
    elif console.is_interactive and console.file.isatty():
        from synaptic.ui.screen.render_live import LiveStatus  # noqa: PLC0415 - rich.live costs 20 ms that a pipe need not pay

        status = LiveStatus(console, verbose=verbose)
    else:
        status = PlainStatus(console, verbose=verbose)
    return Renderer(status, AnswerWriter(out) if answer else None)
