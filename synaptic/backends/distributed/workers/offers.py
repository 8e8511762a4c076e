"""What every worker offers a placement: its memory, its speed, or why it cannot be used.

Workers of other machines are checked, those that may be held are not contacted. Of our own ones the memory comes from
this machine, because the protocol does not tell it, and one measurement stands for all with the same engine and
threads.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from synaptic.backends.distributed.placement import Offer, PlannedWorker
from synaptic.backends.distributed.workers.local import GIB, local_worker_memory, local_worker_threads
from synaptic.backends.distributed.workers.machine import available_bytes
from synaptic.backends.distributed.workers.protocol import Endpoint, ProtocolVersion
from synaptic.backends.distributed.workers.registry import Worker, WorkerRegistry
from synaptic.backends.distributed.workers.worker_check import WorkerState, check_worker, check_workers
from synaptic.backends.distributed.workers.worker_facts import LocalKey, recall, remember

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from synaptic.backends.distributed.engine import Engine
    from synaptic.backends.distributed.workers.managed import ManagedFacts, ManagedWorker
    from synaptic.backends.distributed.workers.measure import Measurement
    from synaptic.backends.distributed.workers.probe import Device
    from synaptic.backends.distributed.workers.worker_check import WorkerLook
    from synaptic.backends.distributed.workers.worker_facts import KnownWorker
    from synaptic.settings import RpcBackendSettings, Settings

MEASURED_FOR_SECONDS: Final = 7 * 24 * 3600.0
"""A measurement older than that is taken again, if it may be."""


async def gather_offers(
    settings: Settings,
    engine: Engine,
    managed: Sequence[ManagedWorker] = (),
    *,
    measure: bool,
    registry: WorkerRegistry | None = None,
    planned_local: int = 0,
) -> list[Offer]:
    """Return what the workers of the settings and our own ones offer, a device each, the settings' first.

    Args:
        settings: Name the workers of other machines, and bound what local ones may take.
        engine: What a coordinator would be started with; a worker must speak exactly its version.
        managed: Our own workers, started or not.
        measure: Whether workers of which no recent measurement is known are measured, some seconds each.
        registry: Who holds which worker; that of this person unless given.
        planned_local: How many further local workers would be started; offers of :class:`PlannedWorker`.

    Raises:
        UsageError: If it cannot be told or recorded who holds a worker.
    """
    registry = registry or WorkerRegistry()
    version = ProtocolVersion.parse(engine.facts.rpc_version)
    looks = await _looks(settings, version, registry, measure=measure)
    external = [
        offer
        for backend, look in zip(settings.rpc_backends, looks, strict=True)
        for offer in external_offers(backend, look)
    ]
    facts = [worker.facts() for worker in managed]
    share = available_bytes() // max(1, len(managed) + planned_local)
    own: list[Offer] = []
    for worker, fact in zip(managed, facts, strict=True):
        own += await _managed_offers(worker, fact, share, registry, measure=measure)
    own += _planned_offers(settings, engine, planned_local, share)
    return [*external, *own]


def external_offers(backend: RpcBackendSettings, look: WorkerLook) -> list[Offer]:
    """Return what a worker of the settings offers: one offer a device, one with a refusal where it cannot be used.

    Args:
        backend: What the settings say of it; its memory is shared by its devices as their own would be.
        look: What a check told.
    """
    known = look.known
    refusal = "" if look.well else " — ".join(filter(None, (look.reason, look.hint)))
    devices: tuple[Device, ...] = () if known is None else known.facts.devices
    if not devices:
        return [
            Offer(
                endpoint=look.endpoint,
                device=0,
                memory_bytes=0 if backend.memory_gib is None else int(backend.memory_gib * GIB),
                layers=backend.layers,
                refusal=refusal or f"{look.endpoint} has no devices",
            )
        ]
    together = sum(device.memory_total for device in devices) or 1
    return [
        Offer(
            endpoint=look.endpoint,
            device=device.index,
            memory_bytes=device.memory_free
            if backend.memory_gib is None
            else int(backend.memory_gib * GIB * (device.memory_total / together)),
            measurement=None if known is None else known.measurement,
            # A number of layers is of the worker; the first of its devices takes them.
            layers=backend.layers if position == 0 or not backend.layers else None,
            refusal=refusal,
        )
        for position, device in enumerate(devices)
    ]


async def _looks(
    settings: Settings, version: ProtocolVersion | None, registry: WorkerRegistry, *, measure: bool
) -> list[WorkerLook]:
    """Return what checks of the workers told; those are measured whose speed is not known, one after the other."""
    endpoints = [Endpoint(backend.host, backend.port) for backend in settings.rpc_backends]
    looks = await check_workers(endpoints, engine=version, registry=registry, allowed=settings.public_workers)
    unmeasured = [look.endpoint for look in looks if look.well and not _is_measured(look.known)]
    if not measure or not unmeasured:
        return looks
    again = await check_workers(
        unmeasured, engine=version, measured=True, registry=registry, allowed=settings.public_workers
    )
    measured = {look.endpoint: look for look in again}
    return [measured.get(look.endpoint, look) for look in looks]


def _is_measured(known: KnownWorker | None) -> bool:
    at = None if known is None else known.measured_at
    return at is not None and abs(time.time() - at) < MEASURED_FOR_SECONDS  # a clock that was set back


async def _managed_offers(
    worker: ManagedWorker, facts: ManagedFacts, share: int, registry: WorkerRegistry, *, measure: bool
) -> list[Offer]:
    refusal = _managed_refusal(worker, registry)
    known = recall(LocalKey.of(worker.engine, worker.threads))
    usable = not refusal and not worker.serving
    if usable and ((measure and not _is_measured(known)) or facts.devices):
        # What a device beside the processor has free changes, and only the worker knows.
        known = await _asked(worker, registry, measure=measure and not _is_measured(known)) or known
    return list(managed_offers(worker, facts, share, known, refusal))


def managed_offers(
    worker: ManagedWorker, facts: ManagedFacts, share: int, known: KnownWorker | None, refusal: str
) -> Iterator[Offer]:
    """Yield what one of our own workers offers.

    Args:
        worker: Which.
        facts: The truth about it.
        share: Its part of what this machine has to spare, in bytes; what it has already comes on top.
        known: What it said when it was asked.
        refusal: Why it cannot be used, "" if it can.
    """
    bound = worker.memory_bound
    rooms = [share + facts.resident_bytes]
    if facts.devices:
        rooms = [one.memory_free for one in known.facts.devices] if known else [one.free for one in facts.devices]
    for index, room in enumerate(rooms):
        yield Offer(
            endpoint=worker.endpoint,
            device=index,
            memory_bytes=room if bound is None else min(room, bound),
            measurement=_measurement(known),
            managed=True,
            refusal=refusal,
        )


def _managed_refusal(worker: ManagedWorker, registry: WorkerRegistry) -> str:
    if worker.failure is not None:
        return worker.failure.message
    if not worker.running:
        return f"the local worker {worker.name} does not run ({worker.phase})"
    holder = registry.holder_of(Worker(worker.endpoint, (worker.endpoint.host,)))
    return "" if holder is None else f"{worker.endpoint} is held by {holder.shown}"


async def _asked(worker: ManagedWorker, registry: WorkerRegistry, *, measure: bool) -> KnownWorker | None:
    """Ask, or measure, one of our own workers; ``None`` where another process got to it first."""
    look = await check_worker(worker.endpoint, registry=registry, measuring=asyncio.Lock() if measure else None)
    if look.state is not WorkerState.OK or look.known is None:
        return None
    # Ports change from start to start; what is kept is known by what decides about speed.
    return remember(LocalKey.of(worker.engine, worker.threads), look.known.facts, look.known.measurement)


def _planned_offers(settings: Settings, engine: Engine, count: int, share: int) -> Iterator[Offer]:
    bound = local_worker_memory(settings)
    known = recall(LocalKey.of(engine, local_worker_threads(settings, count)))
    for number in range(1, count + 1):
        yield Offer(
            endpoint=PlannedWorker(number),
            device=0,
            memory_bytes=share if bound is None else min(share, bound),
            measurement=_measurement(known),
            managed=True,
        )


def _measurement(known: KnownWorker | None) -> Measurement | None:
    return None if known is None else known.measurement
