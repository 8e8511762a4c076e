"""An answer as rendered Markdown while it streams: what is complete is written for good, the rest is redrawn."""

from __future__ import annotations

import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TextIO

from rich.segment import Segment

from synaptic.text import printable
from synaptic.ui.screen.answer_writer import AnswerWriter
from synaptic.ui.screen.resizable import ResizableLive

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from synaptic.settings import Look

FRAMES_PER_SECOND: Final = 12

MOST_GROWING: Final = 50_000
"""Characters of one block, 1,400 lines of code: what is longer is no text for people, and is written as it comes."""

_GROWTH: Final = 1.125
"""How much longer a block gets before it is looked at again: so all the looks together cost as much as nine."""

SPARE_ROWS: Final = 2
"""Of the terminal, below what is redrawn: a picture as high as the terminal would scroll with each frame."""


class MarkdownWriter(AnswerWriter):
    """Writes the answer to a terminal.

    A block (a paragraph, a list, a table, code) is written once the next one begins, and is then the terminal's: it
    scrolls and can be copied. The block that still grows is redrawn by a thread of its own, its end where it is higher
    than the terminal. From a block of more than ``MOST_GROWING`` characters on, the answer is written as it comes:
    drawing it costs as much as is there already, and a node may send as much as it likes.

    Args:
        out: The terminal.
        look: The colours.
    """

    def __init__(self, out: TextIO, look: Look) -> None:
        super().__init__(out)
        self._chosen = look
        self._lock = threading.Lock()
        self._growing = ""
        self._looked_at = 0
        self._plain = False
        self._begun = False
        self._live: ResizableLive | None = None
        self._parts: _Parts | None = None

    def add(self, text: str) -> None:
        """Show the next piece; white space before the first word is left out."""
        piece = text if self.text else text.lstrip()
        if not piece:
            return
        self.text += piece
        if not self._plain:
            with self._lock:
                self._growing += printable(piece)
            if "\n" in piece and len(self._growing) >= self._looked_at * _GROWTH:
                self._write_complete()
            if len(self._growing) <= MOST_GROWING:
                self._draw()
                return
            self._plain = True
            piece = self._taken(len(self._growing))
            if self._begun:
                self._write("\n")
        self._write(self._wrapper.feed(printable(piece)))

    def show(self, text: str) -> None:
        """Write an answer that is complete."""
        if len(text) > MOST_GROWING:
            super().show(text)
        else:
            self._write_block(printable(text))

    def end_line(self) -> None:
        """Write what was still growing, and leave the cursor at the start of a line."""
        self._write_block(self._taken(len(self._growing)))
        self._begun = self._plain = False
        super().end_line()

    def _write_complete(self) -> None:
        """Write the blocks that will not change any more, above the one that grows."""
        complete = self._rendering.module.complete_blocks(self._growing)
        if complete:
            self._write_block(self._taken(complete))
        self._looked_at = len(self._growing)

    def _taken(self, size: int) -> str:
        """Take so much from the beginning of what grows, and its picture from the terminal."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()
        with self._lock:
            taken, self._growing = self._growing[:size], self._growing[size:]
        self._looked_at = 0
        return taken

    def _write_block(self, text: str) -> None:
        if text.strip():
            module, look, console = self._rendering
            shown = module.rendered(console, text.strip("\n"), look)
            self._write(f"\n{shown}" if self._begun else shown)
            self._begun = True

    def _draw(self) -> None:
        if self._live is None and self._growing.strip():
            self._live = ResizableLive(
                console=self._rendering.console,
                get_renderable=lambda: _Growing(self),
                refresh_per_second=FRAMES_PER_SECOND,
                transient=True,
            )
            self._live.start(refresh=True)

    def lines(self, console: Console, options: ConsoleOptions) -> list[list[Segment]]:
        """Return what is drawn of the block that grows: as many of its last lines as there is room for."""
        with self._lock:
            text = self._growing
        module, look, _ = self._rendering
        drawn = console.render_lines(module.AnswerMarkdown(text.strip("\n"), look), options, pad=False)
        lines = [_without_end(line) for line in drawn]
        while lines and not lines[0]:
            del lines[0]
        lines = [[], *lines] if self._begun else lines
        return lines[-max(1, console.height - SPARE_ROWS) :]

    @property
    def _rendering(self) -> _Parts:
        """What renders; it takes a moment to import, which a run without an answer need not pay."""
        if self._parts is None:
            module = import_module("synaptic.ui.screen.markdown_look")
            look = module.actual_look(self._chosen)
            self._parts = _Parts(module, look, module.answer_console(self._out, look))
        return self._parts


class _Parts(NamedTuple):
    """The module that renders, the colours, and the console that it draws on."""

    module: Any
    look: str
    console: Console


def _without_end(line: list[Segment]) -> list[Segment]:
    """Return a line without the blanks at its end: what is typed behind them would begin a row of its own."""
    while line and not line[-1].text.strip():
        line = line[:-1]
    return line and [*line[:-1], Segment(line[-1].text.rstrip(), line[-1].style)]


class _Growing:
    """The block that grows, at the moment when it is drawn."""

    def __init__(self, writer: MarkdownWriter) -> None:
        self._writer = writer

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for number, line in enumerate(self._writer.lines(console, options)):
            if number:
                yield Segment.line()
            yield from line
