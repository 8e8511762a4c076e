"""The places of a scripted node, as ``OLLAMA_NUM_PARALLEL`` and ``OLLAMA_MAX_QUEUE`` bound them, and what it counts."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from faulty_node_script import Config

CALLS = ("/api/chat", "/api/generate", "/api/embed")
BUSY = "server busy, please try again.  maximum pending requests exceeded"


@dataclass(slots=True)
class Counters:
    """What happened so far. ``in_flight`` are calls that were asked and have not ended, ``running`` those in a slot."""

    requests: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    open_connections: int = 0
    in_flight: int = 0
    peak_in_flight: int = 0
    running: int = 0
    peak_running: int = 0
    peak_by_model: Counter[str] = field(default_factory=Counter)
    in_flight_by_model: Counter[str] = field(default_factory=Counter)

    @property
    def calls(self) -> int:
        """Requests of ``/api/chat``, ``/api/generate`` and ``/api/embed``."""
        return sum(self.requests[path] for path in CALLS)

    def enter(self, model: str) -> None:
        """Count a call that has come."""
        self.in_flight += 1
        self.in_flight_by_model[model] += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        self.peak_by_model[model] = max(self.peak_by_model[model], self.in_flight_by_model[model])

    def leave(self, model: str) -> None:
        """Count a call that has ended."""
        self.in_flight -= 1
        self.in_flight_by_model[model] -= 1


class Refused(Exception):
    """An answer before the headers of a reply."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Slots:
    """Serves so many calls at once; the rest waits, first come, first served."""

    def __init__(self, config: Config, counters: Counters) -> None:
        self._config = config
        self._counters = counters
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def hold(self) -> AsyncGenerator[None]:
        """Hold one of the node's places; wait for it in the order of arrival."""
        counters = self._counters
        if counters.running >= self._config.parallel:
            if len(self._waiting) >= self._config.max_queue:
                raise Refused(503, BUSY)
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn  # whoever sets it has counted us as running
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._leave()
                elif turn in self._waiting:
                    self._waiting.remove(turn)
                raise
        else:
            counters.running += 1
        counters.peak_running = max(counters.peak_running, counters.running)
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        self._counters.running -= 1
        while self._waiting and self._counters.running < self._config.parallel:
            turn = self._waiting.popleft()
            if not turn.done():
                self._counters.running += 1
                turn.set_result(None)
