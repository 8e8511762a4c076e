"""The workers of one program: those that it starts on this machine, and those of the settings that it only reaches."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from synaptic.backends.distributed.engine import current_engine
from synaptic.backends.distributed.workers.elsewhere import Elsewhere
from synaptic.backends.distributed.workers.local import local_workers
from synaptic.backends.distributed.workers.offers import gather_offers
from synaptic.errors import BackendUnavailable
from synaptic.waiting import all_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synaptic.backends.distributed.engine import Engine
    from synaptic.backends.distributed.placement import Offer
    from synaptic.backends.distributed.workers.managed import ManagedWorker
    from synaptic.backends.distributed.workers.protocol import Endpoint
    from synaptic.messages import Reporter
    from synaptic.settings import Settings


class Fleet:
    """Starts the engine's workers when they are first needed, and ends them with itself.

    Args:
        settings: ``local_workers`` and what follows it, ``rpc_backends``.
        report: Hears of crashes and restarts.
    """

    def __init__(self, settings: Settings, report: Reporter) -> None:
        self.settings = settings
        self._report = report
        self._engine: Engine | None = None
        self._managed: tuple[ManagedWorker, ...] = ()
        self._others = Elsewhere(report)
        self._starting = asyncio.Lock()

    @property
    def managed(self) -> tuple[ManagedWorker, ...]:
        """The workers that were started here."""
        return self._managed

    async def start(self) -> Engine:
        """Start the workers of this machine, once; return the engine that they and the coordinators are of.

        Raises:
            EngineUnavailable: If there is no engine that works.
            BackendUnavailable: If a worker does not start.
        """
        async with self._starting:
            if self._engine is not None:
                return self._engine
            engine = await current_engine()
            started = local_workers(self.settings, engine, report=self._report)
            try:
                await all_of(worker.start() for worker in started)
            except BaseException:
                await _stop(started)
                raise
            self._managed = tuple(started)
            await self._others.start(self.settings, engine)
            self._engine = engine
            return engine

    def find(self, endpoint: Endpoint) -> ManagedWorker | None:
        """Return the worker that was started here and listens there."""
        return next((worker for worker in self._managed if worker.endpoint == endpoint), None)

    @property
    def unsettled(self) -> bool:
        """Whether a worker of ours is on its way up."""
        return any(not worker.running and worker.failure is None for worker in self._managed)

    async def settled(self, within: float) -> None:
        """Wait until no worker of ours is on its way up any more, at most ``within`` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await asyncio.gather(*(_settled(worker) for worker in self._managed))

    async def offers(self) -> list[Offer]:
        """Return what all workers offer; those that were never measured are measured now.

        Raises:
            BackendUnavailable: If the workers of this machine cannot be started.
            UsageError: If it cannot be told who holds which worker.
        """
        engine = await self.start()
        return await gather_offers(self._others.joined_to(self.settings), engine, self._managed, measure=True)

    def unreached(self) -> list[str]:
        """Return why workers of other machines are not among the offers, in words."""
        return self._others.unreached()

    async def aclose(self) -> None:
        """End the workers that were started here, and those that were brought from elsewhere."""
        managed, self._managed = self._managed, ()
        await asyncio.gather(_stop(managed), self._others.aclose())


async def _settled(worker: ManagedWorker) -> None:
    with suppress(BackendUnavailable):  # it has failed, and its offer says so
        await worker.wait_running()


async def _stop(workers: Iterable[ManagedWorker]) -> None:
    await asyncio.gather(*(worker.stop() for worker in workers))
