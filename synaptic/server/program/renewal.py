"""What a gateway reads again when it is told to, with SIGHUP."""

from __future__ import annotations

import asyncio
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from synaptic.errors import SynapticError
from synaptic.messages import BackendNotice

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from synaptic.messages import Reporter
    from synaptic.server.ollama_api import ServeSettings


_AT_WORK_AND_NEXT: Final = 2
"""Renewals at a time: the next one reads what is there when the one at work has ended, for all signals until then."""


class Renewal(NamedTuple):
    """One thing that is renewed.

    Attributes:
        failed: What is said where that fails.
        renew: Does it and returns what was done, or raises a ``SynapticError``.
    """

    failed: str
    renew: Callable[[], Awaitable[str]]


@contextmanager
def renewed(renewals: Sequence[Renewal], report: Reporter) -> Iterator[None]:
    """Renew at each SIGHUP during the block; what is wrong is told, and changes nothing.

    A signal that comes meanwhile renews once more behind that: what was read last is what serves.

    Args:
        renewals: Without any, the signal is left alone.
        report: Hears of it.
    """
    if not renewals:
        yield
        return
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    turn = asyncio.Lock()

    async def renew() -> None:
        async with turn:
            for each in renewals:
                try:
                    report(BackendNotice("gateway", await each.renew()))
                except SynapticError as error:
                    said = f"{error.message}; {error.hint}" if error.hint else error.message
                    report(BackendNotice("gateway", f"{each.failed}: {said}", "warning"))

    def told() -> None:
        if len(tasks) < _AT_WORK_AND_NEXT:
            task = loop.create_task(renew())
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGHUP, told)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        for task in tasks:
            task.cancel()


def current_tls(settings: ServeSettings) -> Callable[[], ssl.SSLContext] | None:
    """Return what tells how the next connection is encrypted; ``None`` where none is."""
    tls = settings.tls
    return None if tls is None else lambda: tls.context
