"""Who holds which worker. A worker serves one coordinator at a time, and probing a held one may kill it.

A file in the person's state directory has an entry for each held worker, with the process that holds it. The entry of
a process that has ended is ignored, so that a crash leaves nothing to clean up. What the file cannot know,
a coordinator that a person started by hand, is seen by its connection, if it is on this machine (``who_talks``).
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from synaptic import paths
from synaptic.errors import BackendBusy
from synaptic.processes import MarkedProcess, only_one, read_json, replace_json, told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from synaptic.backends.distributed.workers.protocol import Endpoint

CHECK: Final = "workers check"
"""What holds a worker for seconds only."""

_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder(MarkedProcess):
    """Who holds a worker.

    Attributes:
        host: The worker's, as the holder wrote it.
        addresses: The IPv4 addresses of ``host``: two names may mean one worker.
        by: What it is, for people: ``the coordinator of llama3.1:70b``, or :data:`CHECK`.
        since: Seconds since the epoch.
        claim: Which claim this entry belongs to.
    """

    host: str
    port: int
    addresses: tuple[str, ...]
    by: str
    since: float
    claim: str

    @property
    def shown(self) -> str:
        """What messages call it."""
        return f"{self.by} (process {self.pid}{'' if self.here else f' on {self.machine}'})"

    def holds(self, worker: Worker) -> bool:
        """Return whether it is this worker that is held."""
        if self.port != worker.endpoint.port:
            return False
        return self.host == worker.endpoint.host or not set(self.addresses).isdisjoint(worker.addresses)


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker with the addresses that its host resolves to; without them only its name is compared."""

    endpoint: Endpoint
    addresses: tuple[str, ...] = ()


class WorkerHeld(BackendBusy):
    """Another process holds the worker, which is not contacted. ``holder`` says which process."""

    def __init__(self, worker: Worker, holder: Holder, file: Path) -> None:
        super().__init__(
            f"{worker.endpoint} is held by {holder.shown}; it was not contacted, because a worker serves one at a time",
            hint="stop that one first, or wait until it has ended"
            + ("" if holder.here else f"; if {holder.machine} is gone for good, remove {file}"),
            backend="distributed",
            node=str(worker.endpoint),
        )
        self.holder = holder


class WorkerRegistry:
    """The file of who holds which worker; every method opens it again, and none waits for a worker."""

    def __init__(self, file: Path | None = None) -> None:
        """Use ``file``, or the one of this person."""
        self._file = file or paths.worker_registry_file()

    def holders(self) -> list[Holder]:
        """Return the holders that are alive.

        Raises:
            UsageError: If the file cannot be read.
        """
        with self._mapped("read"):
            return self._read()

    def holder_of(self, worker: Worker) -> Holder | None:
        """Return who holds a worker.

        Raises:
            UsageError: If the file cannot be read.
        """
        return next((holder for holder in self.holders() if holder.holds(worker)), None)

    def claim(self, workers: Sequence[Worker], by: str, *, pid: int | None = None) -> str:
        """Take workers, all of them or none.

        Args:
            workers: Which.
            by: Who, for people: ``the coordinator of llama3.1:70b``.
            pid: The process that holds them until it ends; this one unless given.

        Returns:
            What :meth:`release` takes.

        Raises:
            WorkerHeld: If another process holds one of them.
            UsageError: If the file cannot be read or written.
        """
        pid = os.getpid() if pid is None else pid
        name = uuid.uuid4().hex
        with self._mapped("written"), only_one(self._file):
            entries = self._read()
            for worker in workers:
                for holder in entries:
                    if holder.holds(worker):
                        raise WorkerHeld(worker, holder, self._file)
            # A process that has ended already holds nothing: its mark is that of no process.
            entries += [
                Holder.of(
                    pid,
                    host=worker.endpoint.host,
                    port=worker.endpoint.port,
                    addresses=worker.addresses,
                    by=by,
                    since=time.time(),
                    claim=name,
                )
                for worker in workers
            ]
            self._write(entries)
        return name

    def release(self, claim: str) -> None:
        """Give back what a claim took; nothing happens if that is so already.

        Raises:
            UsageError: If the file cannot be read or written.
        """
        with self._mapped("written"), only_one(self._file):
            self._write([holder for holder in self._read() if holder.claim != claim])

    @asynccontextmanager
    async def held(self, workers: Sequence[Worker], by: str, *, patience: float = 0.0) -> AsyncIterator[None]:
        """Hold workers for the time of a block.

        ``by`` is for people; ``patience`` is how many seconds to wait for one that is only being checked.

        Raises:
            WorkerHeld: If another process holds one of them.
            UsageError: If the file cannot be read or written.
        """
        claim = await self._patient_claim(workers, by, time.monotonic() + patience)
        try:
            yield
        finally:
            self.release(claim)

    async def _patient_claim(self, workers: Sequence[Worker], by: str, until: float) -> str:
        while True:
            try:
                return self.claim(workers, by)
            except WorkerHeld as held:
                if held.holder.by != CHECK or time.monotonic() > until:
                    raise
            await asyncio.sleep(_POLL_SECONDS)

    def _read(self) -> list[Holder]:
        entries = read_json(self._file, missing={"holders": []})["holders"]
        return [holder for holder in map(_holder, entries) if holder.alive is not False]  # another machine's: believed

    def _write(self, entries: Sequence[Holder]) -> None:
        replace_json(self._file, {"holders": [asdict(entry) for entry in entries]})

    def _mapped(self, done: str) -> AbstractContextManager[None]:
        return told(
            self._file,
            "which says who holds which worker",
            done,
            if_damaged="if no coordinator runs on this machine, remove the file",
        )


def _holder(entry: Any) -> Holder:
    return Holder(**{**entry, "addresses": tuple(entry["addresses"])})
