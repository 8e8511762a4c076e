"""The nodes of a Ray cluster as workers: one on each, from the first call, or its joining, to the program's end."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, Final

from synaptic import cluster
from synaptic.cluster.lent import reached_of, start_all, told, unreached_of, warn_of
from synaptic.cluster.machine_list import Machine
from synaptic.cluster.ray_cluster import RayNode, joined, nodes, unavailable
from synaptic.errors import BackendUnavailable, SynapticError
from synaptic.messages import BackendNotice
from synaptic.waiting import Rules, steady_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from collections.abc import Set as AbstractSet

    import asyncssh

    from synaptic.backends.distributed import Engine
    from synaptic.cluster.remote_worker import RemoteWorker
    from synaptic.messages import Reporter
    from synaptic.settings import RpcBackendSettings, Settings


FORGOTTEN_SECONDS: Final = 3600.0
"""After which a node that is gone is not expected back: a cluster that grows and shrinks has ever new ones."""
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9._-]")


class RayWorkers:
    """What the entry-point group `synaptic.workers` offers under the name `ray`: nothing without a `ray_address`.

    Args:
        settings: `ray_address`, `ray_worker_memory_gib`.
        report: Told which node is not used, is lost, is back, and is new.
    """

    def __init__(self, settings: Settings, report: Reporter) -> None:
        self._settings = settings
        self._report = report
        self._workers: list[RemoteWorker] = []
        self._nodes: dict[str, RayNode] = {}
        self._gone_since: dict[str, float] = {}
        self._numbers = count(1)
        self._known: set[str] = set()
        self._not_joined = ""
        self._keeper: asyncio.Task[None] | None = None

    def count(self) -> int:
        """Return 1 where a cluster is named: how many nodes it has, only the cluster knows."""
        return int(self._settings.ray_address is not None)

    async def start(self, engine: Engine) -> None:
        """Start a worker on each node, all at once; then on those that join later, until `aclose`."""
        address = self._settings.ray_address
        if address is None:
            return
        tried = asyncio.Event()
        self._keeper = asyncio.create_task(self._keep(address, engine, tried), name="Ray's nodes")
        waiting = asyncio.create_task(tried.wait())
        try:
            done, _ = await asyncio.wait((waiting, self._keeper), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        for task in done:
            task.result()

    def reached(self) -> list[RpcBackendSettings]:
        """Return the workers that are reached."""
        return reached_of(self._workers)

    def unreached(self) -> list[str]:
        """Return why the others are not."""
        not_joined = [self._not_joined] if self._not_joined else []
        return not_joined + unreached_of(self._workers)

    async def aclose(self) -> None:
        """End the workers, and leave the cluster."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper

    async def _keep(self, address: str, engine: Engine, tried: asyncio.Event) -> None:
        """Be part of the cluster; one that is not reached is tried again, as a machine is."""
        attempt = 0
        while True:
            try:
                async with joined(address):
                    self._not_joined = ""
                    if attempt:
                        self._tell(f"the Ray cluster {address} is reached now")
                    await self._use(engine, tried)
            except SynapticError as error:
                self._not_joined = told(error)
                passes = cluster.passes(error)
                if not (attempt and passes):
                    warn_of(error, self._report, what="; it is tried again" if passes else "")
                tried.set()
                if not passes:
                    return
            attempt += 1
            await asyncio.sleep(Rules.MACHINE.delay(attempt))

    async def _use(self, engine: Engine, tried: asyncio.Event) -> None:
        """Have a worker on each node that is there, or comes, until this is cancelled."""
        try:
            await start_all(await self._look(engine), self._report, again=True)
            tried.set()
            async with asyncio.TaskGroup() as starting:
                while True:
                    await asyncio.sleep(Rules.NEW_NODES.delay(1))
                    with suppress(BackendUnavailable):  # the cluster is away for a moment
                        for worker in await self._look(engine):
                            starting.create_task(self._start_late(worker))
        finally:
            workers, self._workers = self._workers, []
            self._known.clear()
            await asyncio.gather(*(worker.aclose() for worker in workers))

    async def _look(self, engine: Engine) -> list[RemoteWorker]:
        """Look which nodes are there, and return the workers that are to be started."""
        up = await nodes()
        ids = {node.id for node in up}
        await self._forget(ids)
        begin: list[RemoteWorker] = []
        for node in up:
            if node.id in self._known:
                continue
            self._known.add(node.id)
            before = (one for one in self._gone(ids) if one.machine.host == node.name)  # it was started again
            worker = next(before, None) or self._worker(node, engine)
            self._nodes[worker.machine.name] = node
            if not worker.trying:
                begin.append(worker)
        return begin

    async def _forget(self, up: AbstractSet[str]) -> None:
        """End the workers of nodes that are gone for long."""
        now = steady_time()
        gone = [worker.machine.name for worker in self._gone(up)]
        self._gone_since = {name: self._gone_since.get(name, now) for name in gone}
        long = {name for name, since in self._gone_since.items() if now - since > FORGOTTEN_SECONDS}
        for worker in [worker for worker in self._workers if worker.machine.name in long]:
            self._workers.remove(worker)
            await worker.aclose()

    def _gone(self, up: AbstractSet[str]) -> list[RemoteWorker]:
        """Return the workers whose nodes are not there, by the ids of those that are."""
        return [worker for worker in self._workers if self._nodes[worker.machine.name].id not in up]

    async def _start_late(self, worker: RemoteWorker) -> None:
        await start_all([worker], self._report, again=True)
        if worker.reached:
            self._tell(f"{worker.machine.name} is reached now")

    def _worker(self, node: RayNode, engine: Engine) -> RemoteWorker:
        memory = self._settings.ray_worker_memory_gib
        called = _NO_NAME.sub("-", node.name)[:40]  # it is in the name of a file: the node's log
        name = f"ray-{next(self._numbers)}-{called}"
        threads = node.processors or None
        machine = Machine(name=name, host=node.name, memory_gib=memory, threads=threads, local_port=0)
        self._workers.append(cluster.RemoteWorker(machine, engine, self._report, connect=self._connected))
        return self._workers[-1]

    @asynccontextmanager
    async def _connected(self, machine: Machine) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """Give a connection to a node for the time of a block.

        Raises:
            BackendUnavailable: If the node is gone, has too little memory left, or is not reached.
        """
        node = self._nodes[machine.name]
        if all(one.id != node.id for one in await nodes()):
            raise unavailable(node, "is gone")
        async with cluster.connected_by_ray(node, machine) as connection:
            yield connection

    def _tell(self, what: str) -> None:
        self._report(BackendNotice("distributed", what))
