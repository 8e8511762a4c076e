"""A picture that is redrawn in place after its terminal became narrower."""

import io
from collections.abc import Mapping

import pyte
import pytest
from rich.console import Console
from rich.text import Text

from synaptic.ui.screen.resizable import ResizableLive, further_rows, reflows

WIDE, ROWS = 100, 24


@pytest.mark.parametrize(
    ("environ", "known"),
    [
        ({"TERM": "xterm-256color"}, False),
        ({"TERM": "xterm-256color", "VTE_VERSION": "7600"}, True),
        ({"TERM": "xterm-kitty"}, True),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, True),
        ({"TERM": "tmux-256color", "TMUX": "/tmp/tmux,1,0"}, True),
        ({"TERM": "screen-256color", "TMUX": "/tmp/tmux,1,0"}, True),
        ({"TERM": "screen-256color", "VTE_VERSION": "7600", "STY": "1.pts"}, False),
        ({"TERM": "linux"}, False),
        ({}, False),
    ],
)
def test_which_terminals_break_long_lines_anew(environ: Mapping[str, str], *, known: bool):
    assert reflows(environ) is known


@pytest.mark.parametrize(("drawn", "width", "rows"), [([], 10, 0), ([10, 3], 10, 0), ([11, 20, 21, 5], 10, 4)])
def test_a_line_that_is_longer_than_the_terminal_takes_further_rows(drawn: list[int], width: int, rows: int):
    assert further_rows(drawn, width) == rows


class Reflowing(io.StringIO):
    """A terminal that breaks its lines anew when it gets narrower; ``cuts`` is one that cuts them instead."""

    def __init__(self, *, cuts: bool = False) -> None:
        super().__init__()
        self._cuts = cuts
        self._open(WIDE)

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._stream.feed(text)
        return len(text)

    def narrow(self, columns: int) -> None:
        lines = self.lines()
        self._open(columns)
        self._stream.feed("\n".join(line[: columns - 1] if self._cuts else line for line in lines))

    def lines(self) -> list[str]:
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip().split("\n")

    def _open(self, columns: int) -> None:
        self._screen = pyte.Screen(columns, ROWS)
        self._screen.set_mode(pyte.modes.LNM)
        self._stream = pyte.Stream(self._screen)


@pytest.mark.parametrize("columns", [70, 45, 30, 20])
@pytest.mark.parametrize("cuts", [False, True], ids=["reflows", "cuts"])
def test_a_narrower_terminal_shows_the_picture_once_and_all_that_stood_above(columns: int, *, cuts: bool):
    terminal = Reflowing(cuts=cuts)
    console = Console(file=terminal, force_terminal=True, color_system=None, width=WIDE, height=ROWS, _environ={})
    drawn = 0

    def picture() -> Text:
        lines = [f"{name} {'-' * 50} {drawn}" for name in ("one", "two", "three")]
        return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")

    environ = {"TERM": "xterm"} if cuts else {"TERM": "foot"}
    live = ResizableLive(console=console, get_renderable=picture, auto_refresh=False, environ=environ)
    terminal.write("above\n")
    with live:
        live.refresh()
        terminal.narrow(columns)
        console.width = columns
        for drawn in (1, 2):  # noqa: B007 - the picture reads it
            live.refresh()

    found = terminal.lines()
    assert found[0] == "above"
    assert [line.split()[0] for line in found[1:]] == ["one", "two", "three"]
