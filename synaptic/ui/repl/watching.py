"""The table of nodes while somebody watches it: drawn anew in place until a key is pressed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import termios
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from synaptic.text import printable
from synaptic.ui.screen import status_table, table_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from synaptic.backends.pool import NodeStatus
    from synaptic.ui.repl.screen import Screen

PERIOD_SECONDS: Final = 0.5
HOW_TO_LEAVE: Final = "Enter, or any other key, leaves the table."
_LOCAL_FLAGS: Final = 3
_CONTROL_CHARACTERS: Final = 6


async def watch_nodes(screen: Screen, statuses: Callable[[], Sequence[NodeStatus]]) -> None:
    """Show the table, refreshed twice a second, until a key is pressed; what was last seen stays.

    Args:
        screen: Whose output is a terminal.
        statuses: Asked anew for each refresh.

    """
    console = Console(file=screen.out, highlight=False)
    live = Live(
        console=console,
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
        vertical_overflow="crop",
    )
    with any_key(sys.stdin.fileno()) as pressed, live:
        try:
            while not pressed.is_set():
                live.update(_picture(statuses(), console.width, HOW_TO_LEAVE), refresh=True)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(pressed.wait(), PERIOD_SECONDS)
        finally:
            live.update(_picture(statuses(), console.width, ""), refresh=True)


@contextlib.contextmanager
def any_key(descriptor: int) -> Iterator[asyncio.Event]:
    """Give an event that is set by the first key, or when the terminal is gone; Ctrl-C stays a signal.

    What was typed before does not count, and what set the event is read by nobody else.
    """
    pressed = asyncio.Event()
    loop = asyncio.get_running_loop()
    before = termios.tcgetattr(descriptor)
    raw = [*before]
    raw[_LOCAL_FLAGS] = before[_LOCAL_FLAGS] & ~(termios.ICANON | termios.ECHO) | termios.ISIG
    raw[_CONTROL_CHARACTERS] = [*before[_CONTROL_CHARACTERS]]
    raw[_CONTROL_CHARACTERS][termios.VMIN] = 1
    raw[_CONTROL_CHARACTERS][termios.VTIME] = 0

    def there() -> None:
        loop.remove_reader(descriptor)
        pressed.set()

    termios.tcsetattr(descriptor, termios.TCSAFLUSH, raw)
    loop.add_reader(descriptor, there)
    try:
        yield pressed
    finally:
        loop.remove_reader(descriptor)
        with contextlib.suppress(termios.error):  # the terminal may be gone by now
            termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)


def _picture(statuses: Sequence[NodeStatus], width: int, last_line: str) -> Text:
    headers, rows = status_table(statuses, width)
    lines = table_lines(headers, [[printable(cell) for cell in row] for row in rows], width)
    picture = Text("\n".join(lines), no_wrap=True, overflow="crop")
    return picture.append(f"\n{last_line}", "dim") if last_line else picture
