"""Ctrl-C: while something runs it is cancelled; on an empty line, twice within two seconds, it leaves."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import termios
import time
from typing import TYPE_CHECKING, Any, Final, TextIO, TypeVar

from synaptic.ui.screen import suspendable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from contextlib import AbstractContextManager

    from synaptic.ui.repl.repl import Repl

T = TypeVar("T")

SECOND_PRESS_SECONDS: Final = 2.0
LEAVE_HINT: Final = "Ctrl-C once more, or Ctrl-D, leaves."


class Interrupted(Exception):
    """The work in progress was cancelled by Ctrl-C; it has cleaned up."""


class DoublePress:
    """Tells the second press of a key from the first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: float | None = None

    def again(self) -> bool:
        """Return whether this press follows another within two seconds."""
        now = self._clock()
        second = self._last is not None and now - self._last <= SECOND_PRESS_SECONDS
        self._last = now
        return second

    def forget(self) -> None:
        """Let the next press be a first one: something else happened in between."""
        self._last = None


def not_pressed() -> bool:
    """Return that no Ctrl-C came before."""
    return False


async def interruptible(
    work: Coroutine[Any, Any, T],
    early: Callable[[], bool] = not_pressed,
    away: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> T:
    """Return what ``work`` returns; Ctrl-C cancels it, and it alone.

    Args:
        work: What to do.
        early: Asked once, when a Ctrl-C is heard here: whether one came before, that meant this work.
        away: Entered for as long as Ctrl-Z gives the terminal to the shell.

    Raises:
        Interrupted: If it was cancelled by Ctrl-C.
    """
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGINT)
    task = loop.create_task(work)
    cancelled_at: float | None = None

    def pressed() -> None:
        nonlocal cancelled_at
        # A second press at once must not cancel the cleaning up; a later one may, should that hang.
        if cancelled_at is None or loop.time() - cancelled_at > SECOND_PRESS_SECONDS:
            cancelled_at = loop.time()
            task.cancel()

    loop.add_signal_handler(signal.SIGINT, pressed)
    try:
        if early():
            pressed()
        with suspendable(away):
            return await task
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if current is not None and current.cancelling():
            raise
        raise Interrupted from None
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)


class Moment:
    """Takes note of a Ctrl-C between the prompt and the run, when neither of them hears it."""

    def __init__(self) -> None:
        self._pressed = False

    @contextlib.contextmanager
    def heeded(self) -> Iterator[None]:
        """Be the one who hears it inside the ``with``, where nobody else does."""
        before = signal.signal(signal.SIGINT, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def taken(self) -> bool:
        """Return whether it was pressed since this was last asked."""
        pressed, self._pressed = self._pressed, False
        return pressed

    def _note(self, *_: object) -> None:
        self._pressed = True


@contextlib.contextmanager
def without_echo(stream: TextIO, *, for_prompt: bool = True) -> Iterator[None]:
    """Keep what is typed during a run off the screen; it is not lost, the next prompt shows it.

    Keys and not lines, as the prompt reads them: the terminal would cut a line at 4095 bytes, and eat Ctrl-D.

    Args:
        stream: The terminal.
        for_prompt: Whether a prompt reads them: then Enter stays what it is. Made a line end, it would be two in pasted
            text whose lines end with CR LF.
    """
    try:
        descriptor = stream.fileno()
        before = termios.tcgetattr(descriptor)
    except (termios.error, OSError, ValueError):
        yield
        return
    quiet = [*before]
    if for_prompt:
        quiet[0] = before[0] & ~(termios.ICRNL | termios.INLCR | termios.IGNCR)
    quiet[3] = before[3] & ~(termios.ECHO | termios.ICANON)
    quiet[6] = [*before[6]]
    quiet[6][termios.VMIN], quiet[6][termios.VTIME] = 1, 0
    termios.tcsetattr(descriptor, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)


async def carry_out(repl: Repl, line: str, early: Callable[[], bool] = not_pressed) -> bool:
    """Carry out a line and return whether it came to its end: Ctrl-C cancels it, and nothing else.

    ``early`` tells of a Ctrl-C that came with the line, as :func:`interruptible` has it.
    """
    turns = len(repl.conversation)
    try:
        with without_echo(sys.stdin, for_prompt=repl.screen.live):
            await interruptible(repl.handle(line), early, repl.screen.away)
    except Interrupted:
        if len(repl.conversation) == turns:
            repl.screen.note("interrupted")
        elif repl.conversation[-1].answer:  # that it was interrupted has been said with the run's figures
            repl.screen.note("the answer so far is part of the conversation")
        return False
    return True
