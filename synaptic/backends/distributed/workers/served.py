"""Which workers ``workers start`` runs on this machine for others, and how to end them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from synaptic import paths
from synaptic.backends.distributed.workers.protocol import Endpoint
from synaptic.errors import UsageError
from synaptic.processes import MarkedProcess, only_one, read_json, replace_json, told

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

END_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Served(MarkedProcess):
    """A process that keeps a worker running, in the foreground of some terminal or as a service.

    Attributes:
        since: Seconds since the epoch.
    """

    host: str
    port: int
    since: float

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens."""
        return Endpoint(self.host, self.port)


def served_workers() -> list[Served]:
    """Return the workers that this machine serves now.

    Raises:
        UsageError: If the file that says so cannot be read.
    """
    with _mapped("read"):
        return [one for one in _read() if one.alive]


@contextmanager
def recorded(endpoint: Endpoint) -> Iterator[None]:
    """Have it known, for the time of a block, that this process serves a worker.

    Raises:
        UsageError: If that cannot be written.
    """
    own = Served.of(os.getpid(), host=endpoint.host, port=endpoint.port, since=time.time())
    _change(add=own)
    try:
        yield
    finally:
        with contextlib.suppress(UsageError):  # our mark ends with us anyway
            _change(remove=own)


def end(workers: Sequence[Served]) -> list[Served]:
    """Tell the processes that keep workers running to end, and wait until they have; return those that were killed.

    A worker dies with the process that keeps it.

    Raises:
        UsageError: If one of them belongs to another user.
    """
    for worker in workers:
        _signal(worker, signal.SIGTERM)
    until = time.monotonic() + END_SECONDS
    while any(worker.alive for worker in workers) and time.monotonic() < until:
        time.sleep(_POLL_SECONDS)
    left = [worker for worker in workers if worker.alive]
    for worker in left:
        _signal(worker, signal.SIGKILL)
    return left


def _signal(worker: Served, number: signal.Signals) -> None:
    try:
        if worker.alive:
            os.kill(worker.pid, number)
    except ProcessLookupError:
        pass
    except PermissionError as error:
        raise UsageError(
            f"{worker.endpoint} is kept running by process {worker.pid}, which belongs to another user"
        ) from error


def _read() -> list[Served]:
    return [Served(**entry) for entry in read_json(paths.served_workers_file(), missing={"workers": []})["workers"]]


def _change(*, add: Served | None = None, remove: Served | None = None) -> None:
    file = paths.served_workers_file()
    with _mapped("written"), only_one(file):
        others = [one for one in _read() if one.alive is not False and one != remove]
        replace_json(file, {"workers": [asdict(one) for one in (*others, *filter(None, [add]))]})


def _mapped(done: str) -> AbstractContextManager[None]:
    return told(
        paths.served_workers_file(),
        "which says what workers run here",
        done,
        if_damaged="if none runs on this machine, remove the file",
    )
