"""What a background service of distributed inference says of itself, in a file that its user's programs read.

Each service keeps one file, ``distributed/MODEL-DIGEST.json`` in the state directory: which process it is, how its
coordinator stands, where that listens and with which key. A program that finds the file of a process that has ended
ignores and removes it, so a crash leaves nothing to clean up.
"""

from __future__ import annotations

import asyncio
import hashlib
import platform
import re
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter

from synaptic import errors, paths
from synaptic.backends.distributed.coordinator import CoordinatorState, CoordinatorStatus
from synaptic.backends.distributed.placement import Placement, PlannedWorker, WorkerName
from synaptic.backends.distributed.workers import Endpoint
from synaptic.backends.drafts import DraftStanding
from synaptic.errors import BackendUnavailable, EngineUnavailable, SynapticError, UsageError
from synaptic.models import LayerShape, ModelShape, full_name, name_key
from synaptic.processes import MarkedProcess, only_one, own_folder, read_json, replace_json, told

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

POLL_SECONDS: Final = 0.1
START_COMMAND: Final = "synaptic distributed start"

_LONGEST_SLUG: Final = 60
_DIGEST_CHARACTERS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFailure:
    """Why a service could not do its work: one of our errors, as it can be written down."""

    kind: str
    message: str
    hint: str | None = None

    @classmethod
    def of(cls, error: SynapticError) -> ServiceFailure:
        """Return what is to be written down of an error."""
        return cls(kind=type(error).__name__, message=error.message, hint=error.hint)

    def error(self) -> SynapticError:
        """Return the error again: its family, which says how a program exits, its message and its hint."""
        kind = getattr(errors, self.kind, None)
        if isinstance(kind, type) and issubclass(kind, UsageError):
            return UsageError(self.message, hint=self.hint)
        if isinstance(kind, type) and issubclass(kind, errors.ModelNotFound):
            return errors.ModelNotFound(self.message, hint=self.hint, backend="distributed")
        return EngineUnavailable(self.message, hint=self.hint, backend="distributed")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRecord(MarkedProcess):
    """A service, as it described itself last.

    Attributes:
        model: What it serves, as :func:`model_key` writes it.
        started_at: Seconds since the epoch.
        log_file: What the service itself says.
        foreground: Whether it runs in a terminal (``--foreground``).
        status: How its coordinator stands; ``None`` until there is one.
        api_key: What its ``llama-server`` wants; ``None`` while it does not listen.
        failure: Why it ended, or why it cannot serve now.
    """

    model: str
    started_at: float
    log_file: Path
    foreground: bool = False
    status: CoordinatorStatus | None = None
    api_key: str | None = field(default=None, repr=False)
    failure: ServiceFailure | None = None

    @property
    def state(self) -> CoordinatorState:
        """How its coordinator is."""
        return CoordinatorState.STOPPED if self.status is None else self.status.state

    @property
    def url(self) -> str | None:
        """Where its ``llama-server`` listens, while it does."""
        return None if self.status is None else self.status.url

    @property
    def ready(self) -> bool:
        """Whether a call can be sent to it now."""
        return self.state is CoordinatorState.READY and self.url is not None

    @property
    def file(self) -> Path:
        """Where it is written."""
        return services_dir() / f"{slug(self.model, self.machine)}.json"


def model_key(model: str) -> str:
    """Return the one way in which a model is written: a file by its absolute path, a name with its tag."""
    return str(paths.resolved(paths.expanded(model))) if paths.names_model_file(model) else full_name(model)


def is_called(record: ServiceRecord, model: str) -> bool:
    """Return whether a service is meant by a name: its model's, or of a file that without its directories."""
    same = name_key(record.model) == name_key(model_key(model))
    return same or (record.model.startswith("/") and Path(record.model).name == model)


def service_log(model: str) -> Path:
    """Return where a model's service writes what it does; it stays after the service's end."""
    return paths.state_dir() / "logs" / f"service-{slug(model)}.log"


def services_dir() -> Path:
    """Return where the records are."""
    return paths.state_dir() / "distributed"


def slug(model: str, machine: str = "") -> str:
    """Return a file name for a model on a machine, else this one: readable, and different for different models."""
    key = name_key(model_key(model))
    # The machine, too: several may share a home, and each has its own processes.
    digest = hashlib.sha256(f"{machine or platform.node()}\0{key}".encode()).hexdigest()
    return f"{_readable(key)}-{digest[:_DIGEST_CHARACTERS]}"


def _readable(key: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", Path(key).name.lower()).strip("-.")[:_LONGEST_SLUG] or "model"


def read_records() -> list[ServiceRecord]:
    """Return the services of this machine that are alive, the oldest first; what dead ones left is removed.

    Raises:
        UsageError: If the records cannot be read.
    """
    with _mapped("read"):
        here = _records_here("*.json")
        for record in here:
            if not record.alive:
                remove(record)
    return sorted((record for record in here if record.alive), key=lambda record: record.started_at)


def record_of(model: str | None) -> ServiceRecord | None:
    """Return the service of a model, if there is one; with no model named, the only service there is.

    Raises:
        UsageError: If the records cannot be read.
    """
    if model is None:
        records = read_records()
        return records[0] if len(records) == 1 else None
    record = last_words(model)
    if record is None or record.alive:
        return record
    remove(record)
    return None


def last_words(model: str) -> ServiceRecord | None:
    """Return what the service of a model wrote last, be it alive or not.

    Raises:
        UsageError: If that cannot be read.
    """
    with _mapped("read"):
        return _last(model)


@contextmanager
def starting(model: str) -> Iterator[ServiceRecord | None]:
    """Keep every other start out, and give the service that runs already, if one does.

    Raises:
        UsageError: If the records cannot be read or written.
    """
    with ExitStack() as stack:
        with _mapped("written"):
            own_folder(services_dir(), 0o700)
            stack.enter_context(only_one(_lock_file()))
            record = _last(model)
        yield record if record is not None and record.alive else None


def new_record(model: str, pid: int, *, foreground: bool = False) -> ServiceRecord:
    """Return the first record of a service whose process has just been started."""
    return ServiceRecord.of(
        pid,
        model=model_key(model),
        started_at=time.time(),
        log_file=service_log(model),
        foreground=foreground,
    )


def write(record: ServiceRecord) -> None:
    """Put a record in the place of the one before; only its user may read it (0600), for the key in it.

    Raises:
        UsageError: If it cannot be written.
    """
    with _mapped("written"):
        replace_json(record.file, _adapter().dump_python(record, mode="json"))


def remove(record: ServiceRecord) -> None:
    """Take the record of a service away, unless a later one has written its own there.

    Raises:
        UsageError: If that fails.
    """
    with _mapped("written"), only_one(_lock_file()):
        there = _read(record.file)
        if there is not None and (there.pid, there.mark) == (record.pid, record.mark):
            record.file.unlink(missing_ok=True)


async def wait_until_ready(model: str | None, within: float) -> ServiceRecord:
    """Wait until the service of a model can take a call.

    That is the only service there is where no model is named; ``within`` is in seconds.

    Raises:
        BackendUnavailable: If there is none, it ends meanwhile, it cannot serve, or it takes longer.
        UsageError: If the records cannot be read.
    """
    end = time.monotonic() + within
    record = record_of(model)
    if record is None:
        raise BackendUnavailable(
            f"no service has {model or 'a model'} loaded", hint=f"start one: {START_COMMAND} {model or 'MODEL'}"
        )
    while not record.ready:
        if record.failure is not None:
            raise record.failure.error()
        if time.monotonic() > end:
            raise BackendUnavailable(
                f"{record.model} is not ready after {within:g} s: its service is {record.state}",
                hint="see synaptic distributed status",
                backend="distributed",
            )
        await asyncio.sleep(POLL_SECONDS)
        record = current(record)
    return record


def current(record: ServiceRecord) -> ServiceRecord:
    """Return what a service says of itself now.

    Raises:
        SynapticError: What it failed with, if it did and has ended; else that it has ended.
        UsageError: If its record cannot be read.
    """
    # First whether it lives, then what it wrote: so nothing that it wrote before its end is missed.
    alive = record.alive
    now = last_words(record.model)
    same = now is not None and (now.pid, now.mark) == (record.pid, record.mark)
    if alive:
        return now if now is not None and same else record
    if now is not None and same and now.failure is not None:
        raise now.failure.error()
    raise EngineUnavailable(
        f"the service of {record.model} (process {record.pid}) has ended",
        hint=f"its log: {record.log_file}",
        backend="distributed",
    )


def with_status(record: ServiceRecord, status: CoordinatorStatus, api_key: str | None) -> ServiceRecord:
    """Return a record with how the coordinator stands now."""
    failure = record.failure if status.state is CoordinatorState.FAILED else None
    return replace(record, status=status, api_key=api_key, failure=failure)


def _lock_file() -> Path:
    return services_dir() / "services"


@cache
def _adapter() -> TypeAdapter[ServiceRecord]:
    """Return what turns a record into JSON and back."""
    adapter = TypeAdapter(ServiceRecord)
    # What the modules of these types import for the type checker only.
    types = (DraftStanding, Endpoint, LayerShape, ModelShape, Path, Placement, PlannedWorker)
    adapter.rebuild(_types_namespace={one.__name__: one for one in types} | {"WorkerName": WorkerName})
    return adapter


def _last(model: str) -> ServiceRecord | None:
    key = name_key(model_key(model))
    records = [one for one in _records_here(f"{_readable(key)}-*.json") if name_key(one.model) == key]
    return max(records, key=lambda record: record.started_at, default=None)


def _records_here(pattern: str) -> list[ServiceRecord]:
    """Return those of this machine, whatever it was called when they were written."""
    found = [_read(file) for file in sorted(services_dir().glob(pattern))]
    return [record for record in found if record is not None and record.here]


def _read(file: Path) -> ServiceRecord | None:
    """Return the record in a file; a file that holds none (it may be another version's) is treated as missing."""
    try:
        document = read_json(file, missing=None)
        return None if document is None else _adapter().validate_python(document)
    except ValueError:
        return None


def _mapped(done: str) -> AbstractContextManager[None]:
    return told(services_dir(), "where services write how they are", done)
