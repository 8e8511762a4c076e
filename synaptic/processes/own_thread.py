"""Runs a plain function beside the event loop, in a thread that the end of the program does not wait for."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

MOST_THREADS: Final = 32
"""At once, of each event loop; a thread whose call was cancelled counts no more."""

_calls: Final[dict[asyncio.AbstractEventLoop, tuple[asyncio.Semaphore, set[object]]]] = {}
"""Of each loop in which calls are under way: what limits them, and the calls, the last of which takes the entry away.

A semaphore that was waited for holds its loop, so that a weak map would hold both for ever.
"""


class Raised(Exception):
    """What the function raised, whatever it was: StopIteration and SystemExit may not cross into the event loop."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


async def in_thread(function: Callable[[], T]) -> T:
    """Return what ``function`` returns; it runs in a thread, with the context variables of the caller.

    The threads of :mod:`asyncio` are joined when the loop ends, so that a function which never returns would keep
    the whole program from ending. These are daemons: a call that is cancelled leaves its thread to itself.

    Raises:
        Raised: If the function raises.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T | Raised] = loop.create_future()
    context = contextvars.copy_context()

    def settle(outcome: T | Raised) -> None:
        if not done.done():
            done.set_result(outcome)

    def work() -> None:
        outcome: T | Raised
        try:
            outcome = context.run(function)
        except BaseException as exc:  # noqa: BLE001  (it is raised again where it was called)
            outcome = Raised(exc)
        # The loop may be closed by now: then no caller waits for the result.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, outcome)

    slots, calls = _calls.setdefault(loop, (asyncio.Semaphore(MOST_THREADS), set()))
    calls.add(done)
    try:
        async with slots:
            threading.Thread(target=work, name="synaptic", daemon=True).start()
            outcome = await done
    finally:
        calls.discard(done)
        if not calls:
            _calls.pop(loop, None)
    if isinstance(outcome, Raised):
        raise outcome
    return outcome
