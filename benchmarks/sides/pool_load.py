"""Shapes of load on a pool, the same ones for every side, and what comes of them.

A side is a :class:`Caller`: it answers one call, or raises. Callers whose library blocks are driven by threads, the
others by tasks, so that neither pays for the other's way of waiting. A call counts as answered only if its text has as
many words as were asked for: an answer that was cut off and passed on as a whole one is a failure here.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence


LAP_SECONDS = 0.02


class Caller(Protocol):
    """A side's pool. ``blocking`` says whether :meth:`call` is to be called in a thread (and returns the text)."""

    blocking: bool

    def call(self, prompt: str, tokens: int) -> Awaitable[str] | str:
        """Return the answer's text."""
        ...


class Truncated(Exception):
    """An answer was passed on as a whole one and is not."""


@dataclass
class Results:
    """What came of a load: seconds from its begin to the call's, seconds that it took, whether it was answered.

    ``begin`` is by the machine's monotonic clock, which other processes read too.
    """

    calls: list[tuple[float, float, bool]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    begin: float = field(default_factory=time.perf_counter)
    busy: float = field(default_factory=time.process_time)

    def note(self, start: float, error: Exception | None) -> None:
        """Add a call that has ended just now."""
        self.calls.append((start - self.begin, time.perf_counter() - start, error is None))
        if error is not None:
            self.errors[f"{type(error).__name__}: {str(error)[:120]}"] += 1

    def report(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "calls": [(round(start, 6), round(seconds, 6), ok) for start, seconds, ok in self.calls],
            "begin": self.begin,
            "errors": dict(self.errors.most_common(3)),
            "seconds": round(time.perf_counter() - self.begin, 6),
            "cpu": round(time.process_time() - self.busy, 6),
        }


def prompt_of(number: int) -> str:
    """Return a prompt that no other call has, of the length of a short question with its instructions."""
    return f"Call {number}: " + "what does a pool of nodes do with a call that it cannot place at once? " * 3


def checked(text: str, tokens: int) -> None:
    """Raise if a text has not as many words as were asked for."""
    if (found := len(text.split())) != tokens:
        raise Truncated(f"{found} words instead of {tokens}")


def laps_of(work: Callable[[], object], repeats: int) -> list[float]:
    """Return the seconds that ``work`` takes, by repeat; a repeat is as many turns as fit into a few milliseconds."""
    begin = time.perf_counter()
    work()
    work()
    turns = max(1, min(2000, int(LAP_SECONDS / ((time.perf_counter() - begin) / 2))))
    laps = []
    for _ in range(repeats):
        begin = time.perf_counter()
        for _ in range(turns):
            work()
        laps.append((time.perf_counter() - begin) / turns)
    return laps


async def lanes(caller: Caller, sizes: Sequence[int], *, width: int, seconds: float | None = None) -> dict[str, Any]:
    """Make calls of ``sizes`` tokens, ``width`` at a time; over and over for ``seconds`` where that is given."""
    queue = deque(enumerate(sizes))
    results = Results()
    end = None if seconds is None else results.begin + seconds

    def next_call() -> tuple[int, int] | None:
        if end is not None and time.perf_counter() >= end:
            return None
        try:
            call = queue.popleft()
        except IndexError:
            return None
        if end is not None:
            queue.append((call[0] + len(sizes), call[1]))
        return call

    if caller.blocking:
        await asyncio.to_thread(_threads, caller, next_call, results, width)
    else:
        await asyncio.gather(*(_lane(caller, next_call, results) for _ in range(width)))
    return results.report()


async def arrivals(caller: Caller, sizes: Sequence[int], *, per_second: float) -> dict[str, Any]:
    """Make calls at a steady rate, whether or not earlier ones have been answered."""
    results = Results()
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(64) as threads:
        running = []
        for number, tokens in enumerate(sizes):
            await asyncio.sleep(results.begin + number / per_second - time.perf_counter())
            if caller.blocking:
                running.append(loop.run_in_executor(threads, _blocking_call, caller, results, (number, tokens)))
            else:
                running.append(loop.create_task(_call(caller, results, (number, tokens))))
        await asyncio.gather(*running)
    return results.report()


async def _lane(caller: Caller, next_call: Callable[[], tuple[int, int] | None], results: Results) -> None:
    while (call := next_call()) is not None:
        await _call(caller, results, call)


async def _call(caller: Caller, results: Results, call: tuple[int, int]) -> None:
    number, tokens = call
    start, error = time.perf_counter(), None
    try:
        answer = caller.call(prompt_of(number), tokens)
        assert not isinstance(answer, str)
        checked(await answer, tokens)
    except Exception as caught:  # noqa: BLE001 - whatever a side raises is counted
        error = caught
        await asyncio.sleep(0)  # a side that fails at once must not keep the loop for itself
    results.note(start, error)


def _threads(caller: Caller, next_call: Callable[[], tuple[int, int] | None], results: Results, width: int) -> None:
    lock = threading.Lock()

    def lane() -> None:
        while True:
            with lock:
                call = next_call()
            if call is None:
                return
            _blocking_call(caller, results, call)

    workers = [threading.Thread(target=lane, daemon=True) for _ in range(width)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _blocking_call(caller: Caller, results: Results, call: tuple[int, int]) -> None:
    number, tokens = call
    start, error = time.perf_counter(), None
    try:
        text = caller.call(prompt_of(number), tokens)
        assert isinstance(text, str)
        checked(text, tokens)
    except Exception as caught:  # noqa: BLE001 - whatever a side raises is counted
        error = caught
    results.note(start, error)
