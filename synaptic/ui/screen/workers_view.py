"""How RPC workers are shown: the table of those in the settings, and what a check told. Pure functions."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from synaptic.text import ago, gib, latency, one_line, plural, size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from synaptic.backends.distributed import Endpoint, Holder, workers

WORKER_HEADERS: Final = ("worker", "rpc", "memory", "round trip", "up", "down", "checked", "held by")
CPU_NOTE: Final = (
    "a CPU tells the whole memory of its machine as free, and the protocol does not tell how much really is"
)

_NOTHING: Final = "–"
_MINUTE: Final = 60
_LABEL: Final = 8
_NAME_CELLS: Final = 60


def worker_rows(
    endpoints: Sequence[Endpoint],
    known: Sequence[workers.KnownWorker | None],
    holders: Sequence[Holder | None],
    now: float,
) -> list[tuple[str, ...]]:
    """Return the rows of the table of workers: one a worker.

    ``now`` is in seconds since the epoch.
    """
    return [
        (one_line(str(endpoint), _NAME_CELLS), *_known_cells(fact, now), one_line(holder.shown) if holder else _NOTHING)
        for endpoint, fact, holder in zip(endpoints, known, holders, strict=True)
    ]


def worker_json(endpoint: Endpoint, known: workers.KnownWorker | None, holder: Holder | None) -> dict[str, Any]:
    """Return a worker of the settings as a JSON object."""
    held = None
    if holder is not None:
        held = {"by": holder.by, "pid": holder.pid, "machine": holder.machine, "since": holder.since}
    return {"host": endpoint.host, "port": endpoint.port, **_known_json(known), "held_by": held}


def served_json(served: workers.Served | None, *, named: bool) -> dict[str, Any]:
    """Return what a list adds to a worker: whether the settings name it, and the process that serves it from here."""
    here = None if served is None else {"pid": served.pid, "since": served.since}
    return {"in_settings": named, "served_here": here}


def served_line(served: workers.Served, now: float) -> str:
    """Return that a worker runs on this machine for others.

    ``now`` is in seconds since the epoch.
    """
    began = ago(now - served.since)
    return (
        f"{served.endpoint} runs here, kept by process {served.pid}, started {began}; "
        f"to end it: synaptic workers stop {served.endpoint}"
    )


def look_lines(look: workers.WorkerLook, now: float) -> Iterator[str]:
    """Yield what a check of one worker told: how it is, its devices, and what to do.

    ``now`` is in seconds since the epoch.
    """
    indent = " " * _LABEL
    known = look.known if look.fresh else None
    if look.reason:
        yield f"{look.state:<{_LABEL - 1}} {look.reason}"
    elif known is not None:
        devices = plural(len(known.facts.devices), "device")
        answers = f"answers in {latency(known.facts.round_trip)}"
        yield f"{look.state:<{_LABEL - 1}} {look.endpoint}: RPC {known.facts.version}, {devices}, {answers}"
    if known is not None:
        measured = known.measurement
        for device in known.facts.devices:
            yield f"{indent}  {_device_words(device, measured)}"
        if measured is not None:
            yield f"{indent}  {measurement_words(measured)}{_age(known, now)}"
    if look.hint:
        yield f"{indent}fix: {look.hint}"


def look_json(look: workers.WorkerLook) -> dict[str, Any]:
    """Return what a check of one worker told as a JSON object."""
    return {
        "host": look.endpoint.host,
        "port": look.endpoint.port,
        "ok": look.well,
        "state": str(look.state),
        "contacted_now": look.fresh,
        "reason": look.reason,
        "hint": look.hint,
        **_known_json(look.known),
    }


def needs_cpu_note(looks: Sequence[workers.WorkerLook]) -> bool:
    """Return whether a device among these tells a free memory that is not to be believed."""
    known = [look.known for look in looks if look.fresh and look.known is not None]
    return any(device.memory_is_doubtful for one in known for device in one.facts.devices)


def measurement_words(measured: workers.Measurement) -> str:
    """Return ``round trip 28 µs, 940 MB/s up, 1.1 GB/s down``."""
    return f"round trip {latency(measured.round_trip)}, {_rate(measured.upload)} up, {_rate(measured.download)} down"


def _known_cells(known: workers.KnownWorker | None, now: float) -> tuple[str, ...]:
    if known is None:
        return (_NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING, "never")
    measured = known.measurement
    return (
        str(known.facts.version),
        " + ".join(gib(device.memory_total) for device in known.facts.devices) or _NOTHING,
        latency(known.facts.round_trip if measured is None else measured.round_trip),
        _NOTHING if measured is None else _rate(measured.upload),
        _NOTHING if measured is None else _rate(measured.download),
        ago(now - known.checked_at),
    )


def _device_words(device: workers.Device, measured: workers.Measurement | None) -> str:
    free = f"{gib(device.memory_free)} free of {gib(device.memory_total)}"
    if device.memory_is_doubtful:
        free = f"{gib(device.memory_total)}, all of it free as it says (as every CPU does)"
    reading = None
    if measured is not None and device.index < len(measured.weight_reading):
        reading = measured.weight_reading[device.index]
    return f"device {device.index}: {free}" + (f", reads weights at {_rate(reading)}" if reading else "")


def _age(known: workers.KnownWorker, now: float) -> str:
    if known.measured_at is None or now - known.measured_at < _MINUTE:
        return ""
    return f" (measured {ago(now - known.measured_at)})"


def _known_json(known: workers.KnownWorker | None) -> dict[str, Any]:
    if known is None:
        nothing = ("rpc_version", "devices", "round_trip", "checked_at", "measurement", "measured_at")
        return dict.fromkeys(nothing)
    return {
        "rpc_version": str(known.facts.version),
        "devices": [
            {**asdict(device), "memory_is_doubtful": device.memory_is_doubtful} for device in known.facts.devices
        ],
        "round_trip": known.facts.round_trip,
        "checked_at": known.checked_at,
        "measurement": None if known.measurement is None else asdict(known.measurement),
        "measured_at": known.measured_at,
    }


def _rate(value: float) -> str:
    return f"{size(value)}/s"
