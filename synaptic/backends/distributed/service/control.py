"""Start a background service, follow it until it is ready, and end it, from another process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from synaptic.backends.distributed.service.record import (
    POLL_SECONDS,
    ServiceRecord,
    current,
    new_record,
    remove,
    service_log,
    starting,
    write,
)
from synaptic.errors import EngineUnavailable, SynapticError
from synaptic.processes import is_stopped, open_private, private_folder, python_command

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from synaptic.settings import Settings

STOP_SECONDS: Final = 20.0
"""How long a service has to end its children and itself before it is killed; they die with it all the same."""

STOPPED_LOOKS: Final = 10
"""In a row that find a service stopped by a signal: then it is not waited for. A machine that wakes continues all."""

_KILL_SECONDS: Final = 5.0
_LOG_BYTES: Final = 1_000_000
_MODULE: Final = "synaptic.backends.distributed.service.service"


class Launch(NamedTuple):
    """A service, and whether it ran before it was asked for."""

    record: ServiceRecord
    was_running: bool


def launch(model: str, settings: Settings) -> Launch:
    """Start the service of a model in the background, unless it runs; return at once.

    Raises:
        EngineUnavailable: If no process can be started.
        UsageError: If the records cannot be read or written.
    """
    with starting(model) as running:
        if running is not None:
            return Launch(running, was_running=True)
        process = _start(service_log(model))
        try:
            record = new_record(model, process.pid)
            write(record)
            order = {"model": record.model, "settings": settings.model_dump(mode="json")}
            assert process.stdin is not None
            process.stdin.write(json.dumps(order).encode() + b"\n")
        except BrokenPipeError as error:
            remove(record)
            raise EngineUnavailable("the service ended at once", hint=f"its log: {record.log_file}") from error
        finally:
            # Without a line, which it has not got if something went wrong, it ends by itself.
            with suppress(BrokenPipeError):
                process.communicate_end()
    return Launch(record, was_running=False)


class _Process(subprocess.Popen[bytes]):
    """The process of a service, which outlives us; should it not, it is reaped."""

    def communicate_end(self) -> None:
        """Close its standard input, and wait for its end in the background."""
        try:
            assert self.stdin is not None
            self.stdin.close()
        finally:
            threading.Thread(target=self.wait, name=f"service {self.pid}", daemon=True).start()


def _start(log_file: Path) -> _Process:
    """Start the process; its standard error goes behind its log, for what happens before it has opened that."""
    try:
        private_folder(log_file.parent)
        if log_file.exists() and log_file.stat().st_size > _LOG_BYTES:
            log_file.replace(log_file.with_name(f"{log_file.name}.1"))
        with open(log_file, "ab", opener=open_private) as log:
            return _Process(
                python_command(_MODULE),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
    except OSError as error:
        reason = error.strerror or str(error)
        raise EngineUnavailable(f"the service cannot be started: {error.filename or 'python'}: {reason}") from error


async def follow(launched: Launch, shown: Callable[[ServiceRecord], None]) -> ServiceRecord:
    """Wait until a service is ready; each new record is given to ``shown``.

    A service that was started for this is ended if it fails or if the wait is cancelled.

    Raises:
        SynapticError: If it fails or ends.
    """
    record = launched.record
    try:
        shown(record)
        stopped = 0
        while not record.ready:
            await asyncio.sleep(POLL_SECONDS)
            stopped = stopped + 1 if is_stopped(record.pid) else 0
            if stopped >= STOPPED_LOOKS:
                raise EngineUnavailable(
                    f"the service of {record.model} (process {record.pid}) was stopped by a signal",
                    hint="start it again: synaptic distributed start",
                    backend="distributed",
                )
            now = current(record)
            if now.failure is not None:
                raise now.failure.error()
            if now != record:
                record = now
                shown(record)
    except (SynapticError, asyncio.CancelledError):
        if not launched.was_running:
            await stop(record)
        raise
    return record


async def stop(record: ServiceRecord) -> bool:
    """End a service with all that it started, and remove its record.

    Returns:
        Whether it ended by itself; if not in time, it was killed.

    Raises:
        EngineUnavailable: If it cannot be ended.
        UsageError: If its record cannot be removed.
    """
    ended = not record.alive
    asked = 0.0 if is_stopped(record.pid) else STOP_SECONDS
    for number, patience in ((signal.SIGTERM, asked), (signal.SIGKILL, _KILL_SECONDS)):
        if ended or await _ended(record, number, patience):
            remove(record)
            return ended or number is signal.SIGTERM
    raise EngineUnavailable(
        f"the service of {record.model} (process {record.pid}) did not end, not even when killed",
        hint="it hangs in the kernel, perhaps on a disk or a network file system",
        backend="distributed",
    )


async def _ended(record: ServiceRecord, number: signal.Signals, patience: float) -> bool:
    """Send a signal and return whether the process ended within ``patience`` seconds."""
    try:
        if record.alive:
            os.kill(record.pid, number)
    except ProcessLookupError:
        return True
    except PermissionError as error:
        raise EngineUnavailable(
            f"process {record.pid}, the service of {record.model}, belongs to another user", backend="distributed"
        ) from error
    end = time.monotonic() + patience
    while record.alive:
        if time.monotonic() > end:
            return False
        await asyncio.sleep(POLL_SECONDS / 2)
    return True
