"""Which models are in memory, and who may use them: Ollama's scheduler (``server/sched.go``).

What a pool has to cope with is kept: one loop decides for one request after the other, so that a request that waits
for a model to load or to leave holds up all that came later, also those whose model is loaded; only that queue is
bounded (``OLLAMA_MAX_QUEUE``); requests for a model that is loaded wait for one of its places in the order of their
arrival, however many they are; a request that is cancelled while it loads a model ends the loading.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from synaptic.server.ollama_api.durations import FOREVER
from synaptic.server.ollama_api.generation_options import LoadOptions, needs_reload
from synaptic.server.ollama_api.refusals import server_busy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from synaptic.processes import ChildProcess
    from synaptic.server.ollama_api.embedded_engine import EmbeddedEngine

    Start = Callable[[str, LoadOptions, Callable[[ChildProcess], None]], Awaitable[EmbeddedEngine]]


class Runner:
    """One model in memory, or on its way there.

    Attributes:
        name: The model's.
        options: How it is loaded.
        session: Seconds that it stays after its last use.
        expires_at: When that is over, in seconds since the epoch; ``None`` before its first use has ended.
        slots: Calls at once; the others wait in the order in which they came.
    """

    def __init__(self, name: str, options: LoadOptions, session: float, parallel: int) -> None:
        self.name = name
        self.options = options
        self.session = session
        self.expires_at: float | None = None
        self.slots = asyncio.Semaphore(parallel)
        self.users = 1
        self.gone = asyncio.Event()
        self.leaving = False
        self.timer: asyncio.TimerHandle | None = None
        self.engine_or_none: EmbeddedEngine | None = None

    @property
    def engine(self) -> EmbeddedEngine:
        """The engine; the request that got the runner from :meth:`Scheduler.claim` may use it."""
        assert self.engine_or_none is not None
        return self.engine_or_none

    def serves(self, wanted: LoadOptions) -> bool:
        """Tell whether it can serve a request with these options as it is."""
        engine = self.engine_or_none
        return engine is not None and engine.running and not self.leaving and not needs_reload(self.options, wanted)

    def stop_timer(self) -> None:
        """Forget when it was to leave."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Scheduler:
    """Loads, shares and unloads models.

    Args:
        start: Starts the engine of a model.
        parallel: Calls at once for each model (``OLLAMA_NUM_PARALLEL``).
        max_queue: Requests that may wait while another loads (``OLLAMA_MAX_QUEUE``).
        max_loaded: Models in memory at once (``OLLAMA_MAX_LOADED_MODELS``).
        keep_alive: Seconds that a model stays, where a request does not say (``OLLAMA_KEEP_ALIVE``).
    """

    def __init__(self, start: Start, *, parallel: int, max_queue: int, max_loaded: int, keep_alive: float) -> None:
        self._start = start
        self._parallel = parallel
        self._max_queue = max_queue
        self._max_loaded = max_loaded
        self._keep_alive = keep_alive
        self._loaded: dict[str, Runner] = {}
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._unloading: set[asyncio.Task[None]] = set()

    @property
    def loaded(self) -> list[Runner]:
        """What is in memory or being loaded, that which stays longest first."""
        return sorted(self._loaded.values(), key=expiry, reverse=True)

    @asynccontextmanager
    async def claim(self, name: str, options: LoadOptions, keep_alive: float | None) -> AsyncIterator[Runner]:
        """Give the model ``name`` for the time of one request, loaded as ``options`` want it.

        Raises:
            Refusal: If too many wait.
            BackendUnavailable: If it cannot be loaded.
        """
        runner = await self._next_in_turn(name, options, keep_alive)
        try:
            yield runner
        finally:
            self._release(runner)

    def expire(self, name: str) -> None:
        """Unload the model as soon as nobody uses it; nothing happens if it is not loaded."""
        if (runner := self._loaded.get(name)) is not None:
            runner.expires_at = time.time()
            self._expire(runner)

    async def aclose(self) -> None:
        """Unload everything, now."""
        for runner in list(self._loaded.values()):
            self._unload(runner)
        while self._unloading:
            await asyncio.wait(self._unloading)

    async def _next_in_turn(self, name: str, options: LoadOptions, keep_alive: float | None) -> Runner:
        if self._turn.locked() and self._waiting >= self._max_queue:
            raise server_busy()
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._schedule(name, options, keep_alive)
        finally:
            self._turn.release()

    async def _schedule(self, name: str, options: LoadOptions, keep_alive: float | None) -> Runner:
        while True:
            runner = self._loaded.get(name)
            if runner is not None and runner.serves(options):
                _use(runner, keep_alive)
                return runner
            if runner is None and len(self._loaded) < self._max_loaded:
                return await self._load(name, options, self._keep_alive if keep_alive is None else keep_alive)
            victim = runner or first_to_leave(self._loaded.values())
            self._expire(victim)
            await victim.gone.wait()

    async def _load(self, name: str, options: LoadOptions, session: float) -> Runner:
        runner = Runner(name, options, session, self._parallel)
        self._loaded[name] = runner
        try:
            runner.engine_or_none = await self._start(name, options, lambda _: self._crashed(runner))
        except BaseException:
            self._forget(runner)
            raise
        return runner

    def _release(self, runner: Runner) -> None:
        runner.users -= 1
        if runner.users > 0 or runner.leaving:
            return
        assert runner.engine_or_none is not None
        if runner.session <= 0 or not runner.engine_or_none.running:
            self._unload(runner)
            return
        runner.expires_at = time.time() + runner.session
        runner.stop_timer()
        if runner.session < FOREVER:
            runner.timer = asyncio.get_running_loop().call_later(runner.session, self._unload, runner)

    def _expire(self, runner: Runner) -> None:
        runner.session = 0.0
        runner.stop_timer()
        if runner.users <= 0:
            self._unload(runner)

    def _crashed(self, runner: Runner) -> None:
        """Forget an engine that died while it was idle; one that is in use goes when its last request has ended."""
        if runner.users <= 0:
            self._unload(runner)

    def _unload(self, runner: Runner) -> None:
        runner.stop_timer()
        if runner.leaving:
            return
        runner.leaving = True
        task = asyncio.get_running_loop().create_task(self._stop(runner))
        self._unloading.add(task)
        task.add_done_callback(self._unloading.discard)

    async def _stop(self, runner: Runner) -> None:
        try:
            if runner.engine_or_none is not None:
                await runner.engine_or_none.stop()
        finally:
            self._forget(runner)

    def _forget(self, runner: Runner) -> None:
        if self._loaded.get(runner.name) is runner:
            del self._loaded[runner.name]
        runner.gone.set()


def expiry(runner: Runner) -> float:
    """Return when a model leaves, in seconds since the epoch; reckoned from now while it is used for the first time."""
    return time.time() + runner.session if runner.expires_at is None else runner.expires_at


def first_to_leave(runners: Iterable[Runner]) -> Runner:
    """Return which model makes room: an idle one before a busy one, then the one with the shortest session."""
    return min(runners, key=lambda runner: (runner.users > 0, runner.session, runner.name))


def _use(runner: Runner, keep_alive: float | None) -> None:
    runner.users += 1
    runner.stop_timer()
    if keep_alive is not None:
        runner.session = keep_alive
