"""Watches everything that can end the service of a coordinator, and names the worker that ended it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from synaptic.backends.distributed.coordinator.lost_links import hung_up
from synaptic.backends.distributed.coordinator.watchdog import SlotWatch
from synaptic.errors import BackendError
from synaptic.waiting import awake_time

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synaptic.backends.distributed.coordinator.llama_process import LlamaProcess
    from synaptic.backends.distributed.coordinator.watchdog import Watchdog
    from synaptic.backends.distributed.placement import Placement
    from synaptic.backends.distributed.workers import Endpoint, Fleet, ManagedWorker

HEARTBEAT: Final = 0.5  # seconds
BLAME_SECONDS: Final = 0.2
SLOTS_SECONDS: Final = 2.0  # between two looks at the slots, and for each


@dataclass(slots=True, eq=False)
class RunningServer:
    """A ``llama-server`` that serves.

    Attributes:
        generations: Of the workers that we started: which start of each it is connected to.
        addresses: Of all its workers, as the system shows them.
        others: Calls of other programs that were running at the last look, while there was none of ours.
    """

    process: LlamaProcess
    placement: Placement
    watchdog: Watchdog
    generations: dict[Endpoint, int]
    addresses: dict[tuple[str, int], Endpoint]
    others: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceEnd:
    """Why a service ended.

    Attributes:
        reason: For people; names the worker where it is known.
        idle: It was idle for its time, and is healthy.
        hung: It still ran, but nothing moved.
        better: It is healthy and idle, and a worker is back that its layers had to leave.
        worker: The address of the worker that is to blame, "" if that is not known.
        line: What ``llama-server`` said of it.
    """

    reason: str
    idle: bool = False
    hung: bool = False
    better: bool = False
    worker: str = ""
    line: str = ""


async def supervise(
    serving: RunningServer, fleet: Fleet, rested: Callable[[], bool], better: Callable[[], Awaitable[str]]
) -> ServiceEnd:
    """Return why a service has ended: the first of everything that can end it.

    Args:
        serving: What is watched.
        fleet: Whose workers it uses.
        rested: Whether it was idle for long enough.
        better: Returns once its layers are better placed anew: the words that say why.
    """
    workers = [worker for endpoint in serving.placement.endpoints if (worker := fleet.find(endpoint)) is not None]
    losses = [asyncio.create_task(_loss(worker, serving.generations[worker.endpoint])) for worker in workers]
    leaving = asyncio.create_task(_exit(serving))
    others = [
        asyncio.create_task(watch) for watch in (_heartbeat(serving, rested), _strangers(serving), _placed_anew(better))
    ]
    watches = [leaving, *losses, *others]
    try:
        await asyncio.wait(watches, return_when=asyncio.FIRST_COMPLETED)
        if losses and leaving.done():
            # It may have died of the loss of a worker, which is known a moment later.
            await asyncio.wait(losses, timeout=BLAME_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        ends = [watch.result() for watch in watches if watch.done()]
    finally:
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
    # A worker's own end says more than what llama-server makes of it.
    return max(ends, key=lambda end: bool(end.worker))


async def _exit(serving: RunningServer) -> ServiceEnd:
    diagnosis = await serving.process.ended()
    return ServiceEnd(reason=str(diagnosis), worker=diagnosis.worker, line=diagnosis.line)


async def _loss(worker: ManagedWorker, generation: int) -> ServiceEnd:
    await worker.wait_change(generation)
    return ServiceEnd(reason=f"the worker {worker.endpoint} was lost", worker=str(worker.endpoint))


async def _placed_anew(better: Callable[[], Awaitable[str]]) -> ServiceEnd:
    return ServiceEnd(reason=await better(), better=True)


async def _heartbeat(serving: RunningServer, rested: Callable[[], bool]) -> ServiceEnd:
    addresses = serving.addresses
    while True:
        await asyncio.sleep(HEARTBEAT)
        if rested():
            return ServiceEnd(reason="it was idle for a while", idle=True)
        gone = await asyncio.to_thread(hung_up, serving.process.pid, addresses)
        if gone:
            endpoint = addresses[min(gone)]
            return ServiceEnd(reason=f"the worker {endpoint} has closed the connection", worker=str(endpoint))
        still = serving.watchdog.overdue(awake_time())
        if still is not None:
            return _hung(still)


async def _strangers(serving: RunningServer) -> ServiceEnd:
    """Watch the calls that do not come through us: those of programs that use a service."""
    watch = SlotWatch(serving.watchdog.longest)
    slots: list[dict[str, Any]] = []
    while True:
        await asyncio.sleep(SLOTS_SECONDS)
        if serving.watchdog.calls:
            slots = []
        else:
            # One that does not answer even that stands still with what it was doing.
            with suppress(BackendError):
                slots = await serving.process.client.slots(within=SLOTS_SECONDS)
        still = watch.look(slots, awake_time())
        serving.others = watch.calls
        if still is not None:
            return _hung(still)


def _hung(still: float) -> ServiceEnd:
    return ServiceEnd(reason=f"no token for {still:.0f} s: a worker hangs, or the way to it is dead", hung=True)
