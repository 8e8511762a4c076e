"""The process that keeps a model loaded over the workers, so that any later run finds it ready.

``synaptic distributed start`` starts it. It outlives the process that started it, and ends on SIGTERM; its children die
with it. What it does is written to its record, see :mod:`synaptic.backends.distributed.service.record`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import logging.handlers
import os
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from synaptic.backends.distributed.backend import DistributedBackend
from synaptic.backends.distributed.coordinator import CoordinatorState, CoordinatorStatus
from synaptic.backends.distributed.service.record import (
    ServiceFailure,
    ServiceRecord,
    new_record,
    remove,
    starting,
    with_status,
    write,
)
from synaptic.errors import EngineUnavailable, ExitCode, SynapticError
from synaptic.messages import BackendNotice
from synaptic.processes import PrivateLog, told_to_end
from synaptic.settings import Settings
from synaptic.waiting import Rules

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence
    from typing import Any

    from synaptic.messages import BackendReport, Reporter

POLL_SECONDS: Final = 0.2
RETRY_SECONDS: Final = Rules.SERVICE.longest
"""How long after a coordinator was given up it is tried again: its workers may be back by then."""

LOG_BYTES: Final = 1_000_000


class Keeper(Protocol):
    """What a service needs of the distributed backend."""

    async def load(self, model: str) -> CoordinatorStatus:
        """Load a model; what serves it is kept alive from then on."""
        ...

    def coordinators(self) -> list[CoordinatorStatus]:
        """Return how each coordinator stands."""
        ...

    def credentials(self, model: str) -> tuple[str, str] | None:
        """Return the address and the key of a model's ``llama-server``, while it serves."""
        ...

    async def aclose(self) -> None:
        """End all that was started."""
        ...


class Service:
    """Keeps one model loaded, and says how that stands."""

    def __init__(
        self,
        record: ServiceRecord,
        settings: Settings,
        *,
        say: Callable[[str], None],
        shown: Callable[[ServiceRecord], None] | None = None,
        opened: Callable[[Settings, Reporter], Keeper] | None = None,
    ) -> None:
        """Make it; nothing is started yet.

        Args:
            record: Its first record, which is there already.
            settings: What the model is to be served with.
            say: Takes a line for its log.
            shown: Takes each record that is written.
            opened: Makes what loads the model; the distributed backend unless given.
        """
        self.record = record
        self._opened = opened or _distributed
        self._settings = settings.model_copy(
            # It was started to stay: a coordinator that sleeps would let the next run wait for minutes. Its record
            # has the address of one.
            update={"model": record.model, "prewarm": [], "coordinator_idle": None, "model_replicas": 1}
        )
        self._say = say
        self._shown = shown

    async def run(self, ended: asyncio.Event) -> None:
        """Load the model and keep it loaded until ``ended`` is set.

        Raises:
            SynapticError: If the model cannot be loaded; the record says why, too, and stays.
        """
        backend = self._opened(self._settings, self._report)
        try:
            await _until(ended, self._serve(backend), self._watch(backend))
        except SynapticError as error:
            self._say(f"given up: {error}")
            await backend.aclose()
            self._publish(replace(self.record, status=None, api_key=None, failure=ServiceFailure.of(error)))
            raise
        finally:
            await backend.aclose()
        self._say("stopped")
        remove(self.record)

    async def _serve(self, backend: Keeper) -> None:
        self._say(f"loading {self.record.model}")
        await backend.load(self.record.model)
        self._observe(backend)
        self._say(f"ready at {self.record.url}")
        while True:
            await self._failed(backend)
            await asyncio.sleep(RETRY_SECONDS)
            await self._again(backend)

    async def _failed(self, backend: Keeper) -> None:
        """Return once the coordinator was given up, which was written down then."""
        # The backend has no event for it: how it stands is asked for here as it is for the record.
        while (status := _status(backend)) is None or status.state is not CoordinatorState.FAILED:  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)
        reason = status.reason or f"the coordinator of {status.model} failed"
        error = EngineUnavailable(reason, hint=f"it is tried again in {RETRY_SECONDS:g} s", backend="distributed")
        self._say(f"the coordinator was given up: {error}")
        self._publish(replace(self.record, failure=ServiceFailure.of(error)))

    async def _again(self, backend: Keeper) -> None:
        self._say("trying again")
        try:
            await backend.load(self.record.model)
        except SynapticError as error:  # its coordinator is as it was, and tried again later
            self._say(f"not ready: {error}")
        else:
            self._say("ready again")

    async def _watch(self, backend: Keeper) -> None:
        while True:
            self._observe(backend)
            await asyncio.sleep(POLL_SECONDS)

    def _observe(self, backend: Keeper) -> None:
        """Write down how the coordinator stands, if that is not what was written last."""
        status = _status(backend)
        if status is None:
            return
        access = backend.credentials(self.record.model)
        record = with_status(self.record, status, None if access is None else access[1])
        if record != self.record:
            self._publish(record)

    def _publish(self, record: ServiceRecord) -> None:
        self.record = record
        try:
            write(record)
        except SynapticError as error:  # serving goes on with a full disk
            self._say(f"the record was not written: {error}")
        if self._shown is not None:
            self._shown(record)

    def _report(self, report: BackendReport) -> None:
        if isinstance(report, BackendNotice):
            self._say(f"{report.level}: {report.message}")


async def _until(ended: asyncio.Event, *works: Coroutine[Any, Any, None]) -> None:
    """Do things until one of them is done or fails, or ``ended`` is set; the others are cancelled then."""
    doing = {asyncio.create_task(work) for work in works}
    waiting = asyncio.create_task(ended.wait())
    try:
        await asyncio.wait({*doing, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (waiting, *doing):
            task.cancel()
        await asyncio.wait(doing)
    for task in doing:
        if not task.cancelled():
            task.result()


def _distributed(settings: Settings, report: Reporter) -> Keeper:
    return DistributedBackend(settings, report)


def _status(backend: Keeper) -> CoordinatorStatus | None:
    statuses = backend.coordinators()
    return statuses[0] if statuses else None


async def run_here(
    model: str,
    settings: Settings,
    *,
    shown: Callable[[ServiceRecord], None],
) -> ServiceRecord | None:
    """Be the service of a model, in this process, until SIGINT or SIGTERM.

    ``shown`` takes each record that is written.

    Returns:
        The service that runs already, if one does; nothing is done then.

    Raises:
        SynapticError: If the model cannot be loaded.
    """
    with starting(model) as running:
        if running is not None:
            return running
        record = new_record(model, os.getpid(), foreground=True)
        write(record)
    with _log(record) as say:
        service = Service(record, settings, say=say, shown=shown)
        try:
            await _run(service)
        finally:
            remove(service.record)
    return None


def main(arguments: Sequence[str]) -> None:
    """Be the service that the first line of standard input orders, and exit with what became of it."""
    del arguments
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):  # the starter died before it gave the order
        return
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    sys.exit(_obey(json.loads(line)))


def _obey(order: dict[str, Any]) -> int:
    record = new_record(order["model"], os.getpid())
    with _log(record) as say:
        service = Service(record, Settings.model_validate(order["settings"]), say=say)
        try:
            asyncio.run(_run(service))
        except SynapticError as error:
            return int(error.exit_code)
        except Exception as error:  # noqa: BLE001 - the traceback goes to the log, which the record names
            traceback.print_exception(error)
            text = f"the service of {record.model} failed: {type(error).__name__}: {error}"
            bug = EngineUnavailable(text, hint=f"this is a bug; its traceback is in {record.log_file}")
            write(replace(service.record, status=None, api_key=None, failure=ServiceFailure.of(bug)))
            return int(ExitCode.FAILED)
    return 0


async def _run(service: Service) -> None:
    """Run a service until a signal asks for its end."""
    with told_to_end() as ended:
        await service.run(ended)


@contextlib.contextmanager
def _log(record: ServiceRecord) -> Iterator[Callable[[str], None]]:
    """Give a function that writes a line to the service's log, which never grows beyond a bound."""
    handler = PrivateLog(record.log_file, LOG_BYTES)

    def say(text: str) -> None:
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} [{record.pid}] {' '.join(text.split())}"
        with contextlib.suppress(OSError):
            handler.emit(logging.LogRecord("service", logging.INFO, "", 0, line, None, None))

    try:
        yield say
    finally:
        with contextlib.suppress(OSError):
            handler.close()
