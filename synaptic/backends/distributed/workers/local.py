"""How many workers this machine runs for itself, with how many threads and how much memory. Pure, but for the cores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synaptic import paths
from synaptic.backends.distributed.workers.managed import ManagedWorker
from synaptic.backends.embedded import usable_threads

if TYPE_CHECKING:
    from synaptic.backends.distributed.engine import Engine
    from synaptic.messages import Reporter
    from synaptic.settings import Settings

GIB: Final = 1 << 30


def local_worker_count(settings: Settings) -> int:
    """Return how many workers to start here: as set, else one where the settings name no others."""
    if settings.local_workers is not None:
        return settings.local_workers
    return 0 if settings.rpc_backends else 1


def local_worker_threads(settings: Settings, count: int | None = None) -> int:
    """Return how many threads each of ``count`` local workers gets: as set, else its part of the cores."""
    if settings.local_worker_threads is not None:
        return settings.local_worker_threads

    count = local_worker_count(settings) if count is None else count
    return max(1, usable_threads() // max(1, count))


def local_worker_memory(settings: Settings) -> int | None:
    """Return the bytes that layers may take in each local worker, ``None`` where the settings do not say."""
    gib = settings.local_worker_memory_gib
    return None if gib is None else int(gib * GIB)


def cache_limit(settings: Settings) -> int:
    """Return the bytes of tensors that may be kept on disk; 0 keeps none."""
    return int(settings.tensor_cache_gib * GIB)


def local_workers(settings: Settings, engine: Engine, *, report: Reporter) -> list[ManagedWorker]:
    """Return the local workers that the settings ask for, none of them started.

    Raises:
        BackendUnavailable: If no ports are free.
    """
    limit = cache_limit(settings)
    count = local_worker_count(settings)
    return [
        ManagedWorker(
            engine,
            threads=local_worker_threads(settings, count),
            memory_bytes=local_worker_memory(settings),
            cache_dir=paths.tensor_cache_dir() if limit else None,
            cache_bytes=limit,
            name=f"local-{number}",
            report=report,
        )
        for number in range(1, count + 1)
    ]
