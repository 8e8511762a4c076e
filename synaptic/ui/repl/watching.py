"""Lines that a person watches: redrawn in place until a key is pressed, or until some work is done."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import termios
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rich.console import Console
from rich.text import Text

from synaptic.text import printable
from synaptic.ui.screen import ResizableLive

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from synaptic.ui.repl.screen import Screen

T = TypeVar("T")
PERIOD_SECONDS: Final = 0.5
HOW_TO_LEAVE: Final = "Enter, or any other key, leaves this."
_LOCAL_FLAGS: Final = 3
_CONTROL_CHARACTERS: Final = 6


async def watch_lines(screen: Screen, lines: Callable[[int], Sequence[str]]) -> None:
    """Show lines, refreshed twice a second, until a key is pressed; what was last seen stays.

    Args:
        screen: Whose output is a terminal.
        lines: Given the width of the terminal, in cells; asked at each refresh.
    """
    console, live = _opened(screen, transient=False)
    with any_key(sys.stdin.fileno()) as pressed, live:
        try:
            while not pressed.is_set():
                live.update(_text(lines(console.width), HOW_TO_LEAVE), refresh=True)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(pressed.wait(), PERIOD_SECONDS)
        finally:
            live.update(_text(lines(console.width), ""), refresh=True)


async def draw_while(screen: Screen, lines: Callable[[int], Sequence[str]], work: Coroutine[Any, Any, T]) -> T:
    """Do some work, show lines meanwhile, take them away, and return what came of it; it is cancelled with us.

    Args:
        screen: Whose output is a terminal.
        lines: Given the width of the terminal, in cells; asked at each refresh.
        work: What to do.
    """
    console, live = _opened(screen, transient=True)
    doing = asyncio.create_task(work)
    try:
        with live:
            while not doing.done():
                live.update(_text(lines(console.width), ""), refresh=True)
                await asyncio.wait({doing}, timeout=PERIOD_SECONDS)
    finally:
        doing.cancel()
        await asyncio.wait({doing})
    return doing.result()


@contextlib.contextmanager
def any_key(descriptor: int) -> Iterator[asyncio.Event]:
    """Give an event that is set by the first key, or when the terminal is gone; Ctrl-C stays a signal.

    What was typed before does not count, and the key that set the event is taken away with it.
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


def _opened(screen: Screen, *, transient: bool) -> tuple[Console, ResizableLive]:
    console = Console(file=screen.out, highlight=False)
    return console, ResizableLive(console=console, auto_refresh=False, transient=transient)


def _text(lines: Sequence[str], last_line: str) -> Text:
    text = Text("\n".join(printable(line) for line in lines), no_wrap=True, overflow="ellipsis")
    return text.append(f"\n{last_line}", "dim") if last_line else text
