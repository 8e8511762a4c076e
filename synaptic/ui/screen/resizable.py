"""A picture that is redrawn in place, also after the terminal became narrower under it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Final

from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
    """Rich's ``Live``, which counts the rows that its lines take by now; other output is left alone.

    Attributes:
        on_screen: Those that are drawn now.
    """

    on_screen: ClassVar[list[ResizableLive]] = []

    def __init__(self, *, environ: Mapping[str, str] | None = None, **options: Any) -> None:
        self._reflows = reflows(os.environ if environ is None else environ)
        self._drawn: list[int] = []
        usual: dict[str, Any] = {"redirect_stdout": False, "redirect_stderr": False, "vertical_overflow": "crop"}
        super().__init__(**usual | options)

    def start(self, refresh: bool = False) -> None:  # noqa: FBT001, FBT002 - as Rich has it
        """Begin to draw."""
        self.on_screen.append(self)
        super().start(refresh)

    def stop(self) -> None:
        """Leave the last picture on the screen, or none if it is transient. May be called twice."""
        if self in self.on_screen:
            self.on_screen.remove(self)
        super().stop()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Be off the screen inside the ``with``, and be drawn below what is written there."""
        with self._lock:
            self.console.control(self._live_render.position_cursor())
            self.console.show_cursor(True)
            try:
                yield
            finally:
                self._live_render._shape = None  # noqa: SLF001 - Rich has no other way to forget a picture
                self._drawn.clear()
                self.console.show_cursor(False)
        self.refresh()

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
