"""All machines that are lent, as the workers of a program: started with the first call, ended with the program."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from synaptic import cluster
from synaptic.cluster.machine_list import SSH_EXTRA, machines
from synaptic.errors import SynapticError
from synaptic.messages import BackendNotice

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from synaptic.backends.distributed import Engine
    from synaptic.cluster.machine_list import Machine
    from synaptic.cluster.remote_worker import RemoteWorker
    from synaptic.messages import Reporter
    from synaptic.settings import RpcBackendSettings, Settings


class LentMachines:
    """What the entry-point group ``synaptic.workers`` offers under the name ``ssh``.

    Args:
        _settings: Not asked: the machines have a file of their own.
        report: Told which machine is not reached, is lost, and is back.
    """

    def __init__(self, _settings: Settings, report: Reporter) -> None:
        self._report = report
        self._workers: list[RemoteWorker] = []

    def count(self) -> int:
        """Return how many machines are lent.

        Raises:
            UsageError: If the file that names them cannot be read.
        """
        return len(_lending())

    async def start(self, engine: Engine) -> None:
        """Start a worker on each machine, all at once; those that are not reached are tried again.

        Raises:
            UsageError: If the file that names the machines cannot be read.
        """
        known = _lending()
        if not known:
            return
        try:
            workers = [cluster.RemoteWorker(machine, engine, self._report) for machine in known]
        except ModuleNotFoundError as error:
            said = f"machines are not used: {error.name} is not installed ({SSH_EXTRA})"
            self._report(BackendNotice("distributed", said, "warning"))
            return
        self._workers = workers
        await start_all(workers, self._report, again=True)

    def reached(self) -> list[RpcBackendSettings]:
        """Return the workers that are reached by now."""
        return reached_of(self._workers)

    def unreached(self) -> list[str]:
        """Return why the others are not."""
        return unreached_of(self._workers)

    async def aclose(self) -> None:
        """End the workers, and the connections to their machines."""
        workers, self._workers = self._workers, []
        await asyncio.gather(*(worker.aclose() for worker in workers))


def _lending() -> list[Machine]:
    return [one for one in machines() if one.worker]


async def start_all(workers: Sequence[RemoteWorker], report: Reporter, *, again: bool = False) -> None:
    """Start workers, all at once, and report why some are not reached."""
    outcomes = await asyncio.gather(*(worker.start(again=again) for worker in workers), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, SynapticError):
            warn_of(outcome, report, what="; it is tried again" if again and cluster.passes(outcome) else "")
        elif outcome is not None:
            raise outcome


def reached_of(workers: Iterable[RemoteWorker]) -> list[RpcBackendSettings]:
    """Return the workers that were reached up to now, as the settings would name them."""
    return [worker.settings for worker in workers if worker.reached]


def unreached_of(workers: Iterable[RemoteWorker]) -> list[str]:
    """Return why workers were not reached up to now."""
    return [told(worker.failure) for worker in workers if worker.failure is not None and not worker.reached]


def warn_of(error: SynapticError, report: Reporter, what: str = "") -> None:
    """Report what the program does without, and what it does about that."""
    report(BackendNotice("distributed", told(error, what), "warning"))


def told(error: SynapticError, what: str = "") -> str:
    """Return an error, what the program does about it, and what a person can do, in one line."""
    hint = f" ({error.hint})" if error.hint else ""
    return f"{error.message}{what}{hint}"
