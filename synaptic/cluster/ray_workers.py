"""The nodes of a Ray cluster as workers: one on each, started with the first call, ended with the program."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from synaptic import cluster
from synaptic.cluster.lent import reached_of, start_all, warn_of
from synaptic.cluster.machine_list import Machine
from synaptic.cluster.ray_cluster import RayNode, joined, nodes, unavailable
from synaptic.errors import SynapticError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncssh

    from synaptic.backends.distributed import Engine
    from synaptic.cluster.remote_worker import RemoteWorker
    from synaptic.messages import Reporter
    from synaptic.settings import RpcBackendSettings, Settings


_NO_NAME: Final = re.compile(r"[^A-Za-z0-9._-]")


class RayWorkers:
    """What the entry-point group `synaptic.workers` offers under the name `ray`: nothing without a `ray_address`.

    Args:
        settings: `ray_address`, `ray_worker_memory_gib`.
        report: Told which node is not used, is lost, and is back.
    """

    def __init__(self, settings: Settings, report: Reporter) -> None:
        self._settings = settings
        self._report = report
        self._workers: list[RemoteWorker] = []
        self._known: set[str] = set()
        self._until_closed = AsyncExitStack()

    def count(self) -> int:
        """Return 1 where a cluster is named: how many nodes it has, only the cluster knows."""
        return int(self._settings.ray_address is not None)

    async def start(self, engine: Engine) -> None:
        """Start a worker on each node, all at once."""
        if self._settings.ray_address is None:
            return
        try:
            await self._until_closed.enter_async_context(joined(self._settings.ray_address))
        except SynapticError as error:
            warn_of(error, self._report)
            return
        found = await nodes()
        self._known = {node.id for node in found}
        self._workers = [self._worker(number, node, engine) for number, node in enumerate(found, 1)]
        await start_all(self._workers, self._report)

    def reached(self) -> list[RpcBackendSettings]:
        """Return the workers that are reached."""
        return reached_of(self._workers)

    async def aclose(self) -> None:
        """End the workers, and leave the cluster."""
        workers, self._workers = self._workers, []
        await asyncio.gather(*(worker.aclose() for worker in workers))
        await self._until_closed.aclose()

    def _worker(self, number: int, node: RayNode, engine: Engine) -> RemoteWorker:
        memory = self._settings.ray_worker_memory_gib
        name = f"ray-{number}-{_NO_NAME.sub('-', node.name)[:40]}"  # it is in the name of a file: the node's log
        threads = node.processors or None
        machine = Machine(name=name, host=node.name, memory_gib=memory, threads=threads, local_port=0)
        return cluster.RemoteWorker(machine, engine, self._report, connect=partial(self._connected, node))

    @asynccontextmanager
    async def _connected(self, node: RayNode, machine: Machine) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """Give a connection to a node for the time of a block.

        Raises:
            BackendUnavailable: If the node is gone, has too little memory left, or is not reached.
        """
        async with cluster.connected_by_ray(await self._now(node), machine) as connection:
            yield connection

    async def _now(self, node: RayNode) -> RayNode:
        """Return a node as it is now: one that was started again has another id.

        Raises:
            BackendUnavailable: If it is gone.
        """
        up = await nodes()
        if any(one.id == node.id for one in up):
            return node
        for one in up:
            if one.name == node.name and one.id not in self._known:
                self._known.add(one.id)
                return one
        raise unavailable(node, "is gone")
