"""A picture that is redrawn in place, also after the terminal became narrower under it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderResult

_SIGNS: Final = (
    "VTE_VERSION",
    "KITTY_WINDOW_ID",
    "ALACRITTY_WINDOW_ID",
    "WEZTERM_PANE",
    "KONSOLE_VERSION",
    "WT_SESSION",
    "GHOSTTY_RESOURCES_DIR",
)
_PROGRAMS: Final = frozenset({"iTerm.app", "Apple_Terminal", "vscode", "WezTerm", "ghostty"})
_TERMS: Final = ("tmux", "xterm-kitty", "xterm-ghostty", "alacritty", "foot", "wezterm")


def reflows(environ: Mapping[str, str]) -> bool:
    """Return whether the terminal is known to break long lines anew when it gets narrower.

    Others cut them: there, what stands above the picture would be erased if this were taken for granted.
    """
    if environ.get("TMUX"):
        return True
    term = environ.get("TERM", "")
    if environ.get("STY") or term.startswith("screen"):
        return False  # what the terminal around it does is not what it does
    known = environ.get("TERM_PROGRAM") in _PROGRAMS or any(environ.get(sign) for sign in _SIGNS)
    return known or term.startswith(_TERMS)


class ResizableLive(Live):
    """Rich's ``Live``, which counts the rows that its lines take by now."""

    def __init__(self, *, environ: Mapping[str, str] | None = None, **options: Any) -> None:
        self._reflows = reflows(os.environ if environ is None else environ)
        self._drawn: list[int] = []
        super().__init__(**options)

    def get_renderable(self) -> RenderableType:
        """Return what is drawn next."""
        return _Measured(super().get_renderable(), self._drawn)

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Go up over the last picture as far as it reaches, before it is drawn again."""
        further = further_rows(self._drawn, self.console.width) if self._reflows else 0
        found = super().process_renderables(renderables)
        if not further or not self.console.is_interactive:
            return found
        up = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))
        return [Control(ControlType.CARRIAGE_RETURN, *up * further), *found]


def further_rows(drawn: list[int], width: int) -> int:
    """Return how many rows more than lines there are, of lines that were drawn when the terminal was wider."""
    return sum((cells - 1) // width for cells in drawn if cells > width)


class _Measured:
    """Something to draw, which writes down how long its lines became."""

    def __init__(self, renderable: RenderableType, drawn: list[int]) -> None:
        self._renderable = renderable
        self._drawn = drawn

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._renderable, options, pad=False)
        self._drawn[:] = [Segment.get_line_length(line) for line in lines][: options.size.height]
        for number, line in enumerate(lines):
            if number:
                yield Segment.line()
            yield from line
