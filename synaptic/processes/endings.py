"""A process that works until it is told to end."""

from __future__ import annotations

import asyncio
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

ENDINGS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def endings() -> list[signal.Signals]:
    """Return the signals that tell this process to end. Under ``nohup`` a closed terminal does not."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in ENDINGS if number is not signal.SIGHUP or not ignored]


@contextmanager
def told_to_end() -> Iterator[asyncio.Event]:
    """Give an event that is set when this process is told to end: Ctrl-C, SIGTERM, a closed terminal.

    What the signals did before is restored after the block. To be used inside the event loop of the main thread.
    """
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in endings()}
    for number in before:
        loop.add_signal_handler(number, ended.set)
    try:
        yield ended
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
