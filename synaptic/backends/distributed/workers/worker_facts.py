"""What was last learned of each worker, kept in the person's cache: for lists, and for the placement.

A cache: what is missing, damaged or of another version of this program is as if it had never been learned.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from synaptic import paths
from synaptic.backends.distributed.workers.measure import Measurement
from synaptic.backends.distributed.workers.probe import Device, WorkerFacts
from synaptic.backends.distributed.workers.protocol import ProtocolVersion
from synaptic.processes import only_one, read_json, replace_json

if TYPE_CHECKING:
    from synaptic.backends.distributed.engine import Engine
    from synaptic.backends.distributed.workers.protocol import Endpoint


class LocalKey(NamedTuple):
    """What decides about the speed of a worker of this machine; its port changes from start to start.

    Attributes:
        engine: The build that it is of, as :attr:`Engine.short_identity` says it.
        threads: How many compute.
    """

    engine: str
    threads: int

    @classmethod
    def of(cls, engine: Engine, threads: int) -> LocalKey:
        """Return the key of the workers of an engine with so many threads."""
        return cls(engine.short_identity, threads)

    def __str__(self) -> str:
        return f"local {self.engine} threads:{self.threads}"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownWorker:
    """What is known of a worker.

    Attributes:
        facts: What it said when it was last checked.
        checked_at: When that was, in seconds since the epoch.
        measurement: What it could do when it was last measured.
        measured_at: When that was.
    """

    facts: WorkerFacts
    checked_at: float
    measurement: Measurement | None = None
    measured_at: float | None = None


def recall(worker: Endpoint | LocalKey) -> KnownWorker | None:
    """Return what is known of the worker at an address, or of the workers of this machine with a key."""
    entry = _read().get(str(worker))
    try:
        return None if entry is None else _known(entry)
    except (LookupError, TypeError, ValueError, AttributeError):
        return None


def remember(worker: Endpoint | LocalKey, facts: WorkerFacts, measurement: Measurement | None = None) -> KnownWorker:
    """Keep what was just learned, and return all that is known now.

    An older measurement stays if it seems to be the same worker: the same version, the same devices.
    """
    now = time.time()
    known = KnownWorker(
        facts=facts,
        checked_at=now,
        measurement=measurement,
        measured_at=None if measurement is None else now,
    )
    file = paths.worker_facts_file()
    with suppress(OSError), only_one(file):  # a cache that cannot be written is no failure
        before = recall(worker)
        if measurement is None and before is not None and _alike(before.facts, facts):
            known = replace(known, measurement=before.measurement, measured_at=before.measured_at)
        replace_json(file, {**_read(), str(worker): asdict(known)})
    return known


def _read() -> dict[str, Any]:
    try:
        document = read_json(paths.worker_facts_file(), missing={})
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _alike(a: WorkerFacts, b: WorkerFacts) -> bool:
    def looks(facts: WorkerFacts) -> tuple[Any, ...]:
        return (facts.version, [(device.memory_total, device.max_size) for device in facts.devices])

    return looks(a) == looks(b)


def _known(entry: dict[str, Any]) -> KnownWorker:
    facts, measured = entry["facts"], entry["measurement"]
    return KnownWorker(
        facts=WorkerFacts(
            version=ProtocolVersion(*facts["version"]),
            devices=tuple(Device(**device) for device in facts["devices"]),
            round_trip=float(facts["round_trip"]),
        ),
        checked_at=float(entry["checked_at"]),
        measurement=None
        if measured is None
        else Measurement(**{**measured, "weight_reading": tuple(measured["weight_reading"])}),
        measured_at=entry["measured_at"],
    )
