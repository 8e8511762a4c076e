"""Ctrl-Z in the middle of a run: pictures leave the screen, and are drawn again below what was typed meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


@contextmanager
def suspendable(away: Callable[[], AbstractContextManager[None]] = nullcontext) -> Iterator[None]:
    """Let Ctrl-Z inside the ``with`` leave a terminal as the shell wants it, with a cursor and without half a picture.

    Where the signal is ignored, it stays so.

    Args:
        away: Entered for as long as the shell has the terminal.
    """
    loop = asyncio.get_running_loop()
    if signal.getsignal(signal.SIGTSTP) is not signal.SIG_DFL:
        yield
        return

    def suspend() -> None:
        loop.remove_signal_handler(signal.SIGTSTP)
        with _pictures_away(), away(), _terminal_kept():
            # Not SIGSTOP: where no shell could wake us, the system leaves this signal out.
            os.kill(os.getpid(), signal.SIGTSTP)
        loop.add_signal_handler(signal.SIGTSTP, suspend)

    loop.add_signal_handler(signal.SIGTSTP, suspend)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTSTP)


@contextmanager
def _pictures_away() -> Iterator[None]:
    module = sys.modules.get("synaptic.ui.screen.resizable")  # a run without pictures does not load Rich's
    with ExitStack() as stack:
        for live in [] if module is None else list(module.ResizableLive.on_screen):
            stack.enter_context(live.away())
        yield


@contextmanager
def _terminal_kept() -> Iterator[None]:
    """Put the terminal back into the mode in which it was: the shell has its own."""
    try:
        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (termios.error, OSError, ValueError):
        yield
        return
    yield
    with suppress(termios.error, OSError):
        if os.tcgetpgrp(descriptor) == os.getpgrp():  # in the background this would stop us again
            termios.tcsetattr(descriptor, termios.TCSANOW, before)
