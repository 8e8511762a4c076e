"""The coordinator of one model: brought up over its workers, watched, and built again when it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from synaptic.backends.distributed.coordinator.bring_up import BringUp
from synaptic.backends.distributed.coordinator.drafting import WANTS_LOGPROBS, Drafting
from synaptic.backends.distributed.coordinator.start_failure import given_up, may_pass
from synaptic.backends.distributed.coordinator.states import (
    CoordinatorState,
    CoordinatorStatus,
    Life,
    LoadProgress,
    Transition,
    called,
)
from synaptic.backends.distributed.coordinator.supervision import ServiceEnd, supervise
from synaptic.backends.distributed.placement import token_seconds
from synaptic.errors import BackendUnavailable, CoordinatorFailed, SynapticError
from synaptic.messages import BackendNotice, BackendProgress, Finished
from synaptic.waiting import Deadline, Deadlines, Restarts, Rules, awake_time

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from synaptic.backends.distributed.coordinator.coordinators import Coordinators
    from synaptic.backends.distributed.coordinator.supervision import RunningServer
    from synaptic.backends.distributed.coordinator.watchdog import Watchdog
    from synaptic.messages import ChatRequest, ReplyChunk
    from synaptic.models import ModelShape

NAME: Final = "distributed"
NOTICE: Final = 2.0
"""Seconds from a broken call to the news that ``llama-server`` is dead: then the call is not to blame."""
DRAIN_POLL: Final = 0.05  # seconds between two looks whether the calls with drafts have ended
QUIET: Final = 2.0
"""Seconds without a call before layers are placed anew for the sake of a worker that is back."""
_LEARNING: Final = 0.3

_S = CoordinatorState


@dataclass(slots=True, eq=False)
class _Load:
    """What is going on between callers and the task that serves them."""

    calls: int = 0
    waiting: int = 0
    last_used: float = field(default_factory=time.monotonic)


class Coordinator:
    """Serves one model from when it is first asked until it is stopped; what is lost in between comes back by itself.

    Args:
        shape: The model.
        coordinators: All of this program; this one joins them.
        replica: Which of the model's coordinators it is. No other model gives way to any but the first.
    """

    def __init__(self, shape: ModelShape, coordinators: Coordinators, replica: int = 1) -> None:
        self.shape = shape
        self.replica = replica
        self.name = called(shape.name, replica)
        self._told = ""
        self._coordinators = coordinators
        self._life = Life(self.name, self._moved)
        self._drafting = Drafting(shape, wanted=coordinators.settings.drafts)
        self._bring_up = BringUp(shape, coordinators, self._drafting, self.name, spare=replica > 1)
        self._serving: RunningServer | None = None
        self._error: SynapticError | None = None
        self._progress: LoadProgress | None = None
        self.waits: Deadlines[Deadline] = Deadlines()
        self._load = _Load()
        self._restarts = 0
        self._speed: float | None = None
        self._generated = False
        self._ready_at = 0.0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        coordinators.by_name[self.name] = self

    @property
    def model(self) -> str:
        """What it serves."""
        return self.shape.name

    @property
    def state(self) -> CoordinatorState:
        """How it is."""
        return self._life.state

    @property
    def serves(self) -> bool:
        """Whether it is loaded."""
        return self._serving is not None

    @property
    def idle(self) -> bool:
        """Whether it serves no call, so that its workers may be taken for another model."""
        return self._life.state in {_S.READY, _S.FAILED} and not self._load.calls and not self._load.waiting

    @property
    def since(self) -> float:
        """When it came into its state, in seconds since the epoch."""
        return self._life.since

    @property
    def slots(self) -> int:
        """How many calls it serves at once; 0 before it was ever placed."""
        return self._bring_up.placement.needs.slots if self._bring_up.placement else 0

    @property
    def last_used(self) -> float:
        """When its last call ended, by the steady clock."""
        return self._load.last_used

    def status(self) -> CoordinatorStatus:
        """Return how it stands."""
        serving = self._serving
        return CoordinatorStatus(
            model=self.shape.name,
            replica=self.replica,
            state=self._life.state,
            since=self._life.since,
            reason=self._life.reason,
            url=serving.process.url if serving else None,
            pid=serving.process.pid if serving else None,
            placement=self._bring_up.placement,
            progress=self._progress,
            workers=self._bring_up.standings(),
            calls=self._load.calls + (serving.others if serving else 0),
            waiting=self._load.waiting,
            restarts=self._restarts,
            tokens_per_second=self._speed,
            log_file=self._bring_up.log_file,
            drafts=self._drafting.standing() if self._bring_up.placement else None,
        )

    def credentials(self) -> tuple[str, str] | None:
        """Return the address and the key of its ``llama-server``, while it serves."""
        return (self._serving.process.url, self._serving.process.key) if self._serving else None

    @property
    def token_seconds(self) -> float:
        """What generating a token takes, about."""
        return token_seconds(self._speed, self._bring_up.placement)

    async def ready(self, *, plain: bool = False) -> RunningServer:
        """Return the server once it is loaded; concurrent callers share one load.

        Args:
            plain: Whether it must not draft; it is started again without, if it does.

        Raises:
            SynapticError: Why it is not loaded, once the coordinator is given up.
        """
        self._load.waiting += 1
        if plain and self._serving is None:
            self._drafting.leave()
        try:
            if self._life.state in {_S.STOPPED, _S.SLEEPING, _S.FAILED}:
                self.begin()
                await self._life.change()
            while self._life.state is not _S.READY or self._serving is None or not self._drafting.admits(plain=plain):
                if self._life.state is _S.FAILED and self._error is not None:
                    raise self._error
                if self._life.state is _S.STOPPED:
                    raise BackendUnavailable(f"the coordinator of {self.shape.name} has been stopped", backend=NAME)
                await self._life.change()
            return self._serving
        finally:
            self._load.waiting -= 1

    async def stream(self, serving: RunningServer, request: ChatRequest) -> AsyncGenerator[ReplyChunk, None]:
        """Yield the reply to one call of what serves; what breaks is raised as the client sees it.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
        """
        watchdog, call = serving.watchdog, object()
        self._load.calls += 1
        watchdog.begin(call, awake_time())
        chunks = serving.process.client.watched_stream(
            request, lambda generates: self._heard(watchdog, call, generates=generates)
        )
        try:
            async with contextlib.aclosing(chunks):
                async for chunk in chunks:
                    self._generated = True
                    if isinstance(chunk, Finished):
                        self._learn(request, chunk, alone=watchdog.calls == 1)
                    yield chunk
        finally:
            watchdog.end(call, awake_time())
            self._load.calls -= 1
            self._load.last_used = time.monotonic()
            self._coordinators.notify()

    def _heard(self, watchdog: Watchdog, call: object, *, generates: bool) -> None:
        watchdog.beat(call, awake_time(), generates=generates)
        self.waits.heard(generates=generates)

    async def goes_on_with(self, serving: RunningServer, request: ChatRequest) -> bool:
        """Return whether what serves goes on with the last message of a request, which is the assistant's."""
        return await serving.process.client.goes_on_with(request)

    async def count_tokens(self, serving: RunningServer, text: str) -> int:
        """Return how many tokens of what serves a text is."""
        return await serving.process.client.count_tokens(text)

    async def lost(self, serving: RunningServer) -> str | None:
        """Return why a broken call is to be continued: what served it is gone; ``None`` if it still serves."""
        if self._serving is serving and await serving.process.ended_within(NOTICE) is None and self._serving is serving:
            return None
        while self._serving is serving:  # its supervision will notice, and knows the reason better
            await self._life.change()
        return self._life.reason or "its coordinator was lost"

    async def stop(self) -> None:
        """End it, and give its workers back; also when called twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._drafting.forget()
        if self._life.state is not _S.STOPPED:
            self._life.move(_S.STOPPED)

    def begin(self) -> None:
        """Bring it up; only for one that sleeps, was stopped or has failed."""
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._live(), name=f"coordinator of {self.name}")

    async def _live(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._serve()
            except Exception as error:
                # The callers that wait must learn of any error: no other code awaits this task before the end.
                logging.getLogger(__name__).exception("the coordinator of %s", self.model)
                reason = f"{type(error).__name__}: {error}"
                self._give_up(CoordinatorFailed(reason, backend=NAME))

    async def _serve(self) -> None:
        """Serve until the model was idle for long enough, or until it is given up."""
        restarts = Restarts(Rules.COORDINATOR, row=1)
        while True:
            self._life.move(_S.PREFLIGHT)
            error: SynapticError
            try:
                end = await self._serve_once()
            except SynapticError as failure:
                error = failure
                delay = restarts.after_failure() if may_pass(failure) else None
            else:
                if end.idle:
                    self._drafting.forget()
                    self._life.move(_S.SLEEPING, end.reason)
                    return
                if end.better:
                    self._life.move(_S.RESTARTING, end.reason)
                    continue
                error = CoordinatorFailed(end.reason, backend=NAME, worker=end.worker, log_line=end.line)
                now = time.monotonic()
                delay = restarts.after_end(now, now - self._ready_at, useful=self._generated)
                self._restarts += 1
            if delay is None:
                self._give_up(error)
                return
            self._life.move(_S.RESTARTING, error.message)
            await asyncio.sleep(delay)

    async def _serve_once(self) -> ServiceEnd:
        """Bring it up and watch it until it ends."""
        self._progress = None
        async with self._bring_up.serving(self._loading) as serving:
            self._serving = serving
            self._progress = None
            self._ready_at = time.monotonic()
            self._generated = False
            self._load.last_used = time.monotonic()
            self._life.move(_S.READY)
            try:
                end = await supervise(serving, self._coordinators.fleet, self._rested, self._better)
            finally:
                self._serving = None
                await self._drafting.save()
            if not end.idle and not end.better:
                self._life.move(_S.DEGRADED, end.reason)
                self._bring_up.blame(end)
                serving.process.kill()
        return end

    def _loading(self, progress: LoadProgress | None) -> None:
        """Hear how far it is; the first news ends the preflight."""
        if self._life.state is _S.PREFLIGHT:
            self._life.move(_S.LOADING)
        if progress is None:
            return
        self._progress = progress
        label = f"loading {self.name}"
        self._coordinators.report(BackendProgress(NAME, label, progress.bytes_done, progress.bytes_total))

    def _rested(self) -> bool:
        """Return whether it was idle for so long that the workers' memory is better given back."""
        bound = self._coordinators.settings.coordinator_idle
        if bound is None or self._load.calls or self._load.waiting:
            return False
        return time.monotonic() - self._load.last_used > bound

    async def _better(self) -> str:
        """Wait until it is better started anew; return why, in words."""
        reasons = [asyncio.create_task(reason) for reason in (self._placed_better(), self._without_drafts())]
        try:
            done, _ = await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for reason in reasons:
                reason.cancel()
            await asyncio.gather(*reasons, return_exceptions=True)

    async def _without_drafts(self) -> str:
        """Wait until drafts are to be left, and the calls that have them have ended; return why, in words."""
        if not self._drafting.on:
            await asyncio.Event().wait()  # this start has none
        await self._drafting.left.wait()
        while True:
            await asyncio.sleep(DRAIN_POLL)
            if not self._load.calls and not (self._serving and self._serving.others):
                return f"{WANTS_LOGPROBS}: it is started again without drafts"

    async def _placed_better(self) -> str:
        """Wait until a worker is back that the layers had to leave, and no call is in its way; return that in words."""
        back = await self._bring_up.wait_returned()
        while True:
            await asyncio.sleep(QUIET)
            if self._quiet():
                return f"{back} is back: its layers are placed anew"

    def _quiet(self) -> bool:
        """Return whether there is no call, nor was one a moment ago: that of a run's next step would wait."""
        others = self._serving.others if self._serving else 0
        if self._load.calls or self._load.waiting or others:
            return False
        return time.monotonic() - self._load.last_used > QUIET

    def _give_up(self, error: SynapticError) -> None:
        self._error = given_up(error, self.shape.name, self._bring_up.workers, self._bring_up.log_file)
        self._life.move(_S.FAILED, self._error.message)
        self._coordinators.notify()

    def _learn(self, request: ChatRequest, last: Finished, *, alone: bool) -> None:
        tally, timings = self._drafting.take(request, last), last.timings
        if not alone or last.usage is None or timings is None or not timings.generation_seconds:
            return
        speed = tally.tokens / timings.generation_seconds
        self._speed = speed if self._speed is None else self._speed + _LEARNING * (speed - self._speed)
        self._bring_up.learn(tally, timings.generation_seconds)

    def _moved(self, transition: Transition) -> None:
        self._coordinators.moved(transition)
        if self.replica > 1 and transition.after is _S.FAILED:
            if transition.reason == self._told:  # it is tried again and again, and that is said once
                return
            self._told = transition.reason
        self._coordinators.report(_notice(transition))


def _notice(transition: Transition) -> BackendNotice:
    bad = {_S.DEGRADED, _S.RESTARTING, _S.FAILED}
    words = f"{transition.model}: {transition.after}"
    return BackendNotice(
        NAME,
        f"{words}: {transition.reason}" if transition.reason else words,
        "warning" if transition.after in bad else "info",
    )
