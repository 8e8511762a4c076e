"""The Ollama of a machine as a node of the pool: a port of this machine's loopback that leads to it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from synaptic import cluster
from synaptic.cluster.machine_list import SSH_EXTRA, machines
from synaptic.errors import BackendUnavailable, SynapticError, UsageError
from synaptic.messages import BackendNotice
from synaptic.waiting import Rules

if TYPE_CHECKING:
    from collections.abc import Collection

    from synaptic.cluster.machine_list import Machine
    from synaptic.messages import Reporter

BACKEND: Final = "ollama"


class NodeTunnels:
    """What the entry-point group ``synaptic.tunnels`` offers under the name ``ssh``.

    Args:
        urls: Addresses of nodes.
        report: Told which machine is not reached, is lost, and is back.
    """

    def __init__(self, urls: Collection[str], report: Reporter) -> None:
        self._report = report
        try:
            self._machines = [one for one in machines() if one.node_url in urls]
        except UsageError as error:  # the other nodes can be used all the same
            self._machines = []
            report(BackendNotice(BACKEND, error.message, "warning"))
        self._keepers: list[asyncio.Task[None]] = []

    def count(self) -> int:
        """Return how many of the addresses lead to a machine."""
        return len(self._machines)

    async def open(self) -> None:
        """Return once each machine was tried; those that are not reached are tried again, and told."""
        tried = [asyncio.Event() for _ in self._machines]
        for machine, event in zip(self._machines, tried, strict=True):
            self._keepers.append(asyncio.create_task(self._keep(machine, event), name=f"tunnel to {machine.name}"))
        await asyncio.gather(*(event.wait() for event in tried))

    async def aclose(self) -> None:
        """Close the tunnels, and the connections."""
        keepers, self._keepers = self._keepers, []
        for keeper in keepers:
            keeper.cancel()
        for keeper in keepers:
            with contextlib.suppress(asyncio.CancelledError):
                await keeper

    async def _keep(self, machine: Machine, tried: asyncio.Event) -> None:
        """Have the tunnel open, again and again."""
        attempt = 0
        while True:
            try:
                await self._hold(machine, tried, back=attempt > 0)
                attempt = 0
            except SynapticError as error:
                if attempt == 0:
                    hint = f" ({error.hint})" if error.hint else ""
                    self._report(BackendNotice(BACKEND, f"{error.message}; it is tried again{hint}", "warning"))
                if isinstance(error, UsageError):
                    return
                attempt += 1
            finally:
                tried.set()
            await asyncio.sleep(Rules.MACHINE.delay(attempt + 1))

    async def _hold(self, machine: Machine, tried: asyncio.Event, *, back: bool) -> None:
        """Hold the tunnel until the connection ends; return at once where another program of this machine has it.

        Raises:
            BackendUnavailable: If the machine is not reached, or is lost.
            UsageError: If its key is not known, or asyncssh is not there.
        """
        port, there = machine.node_port, machine.ollama_port
        assert port is not None
        assert there is not None
        try:
            connecting = cluster.connected(machine)
        except ModuleNotFoundError as error:
            raise UsageError(f"{error.name} is not installed", hint=SSH_EXTRA) from error
        async with connecting as connection, contextlib.AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(cluster.forwarded(connection, port, there))
            except OSError:  # another program of this machine has the same tunnel
                return
            if back:
                self._report(BackendNotice(BACKEND, f"{machine.name} is back"))
            tried.set()
            await connection.wait_closed()
        raise BackendUnavailable(f"{machine.name} is gone", backend=BACKEND, node=machine.name)
