"""How coordinators are shown: a bar of the layers on each worker, who has how much, how the load goes. Pure functions.

The bar has a segment for each share of the layers, in the order in which a token passes through them, as wide as it
has layers: heavy where the weights are in place, light where they are still to come, crosses where the worker is lost::

    ┃━━━━━━━━━━━ 1: 10.0.0.4:50052 ━━━━━━━━━━━┃━━━━━━ 2 ──────┃✗✗✗ 3 ✗✗✗┃
"""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from synaptic.backends.distributed import CoordinatorState, PlannedWorker
from synaptic.backends.distributed import workers as rpc_workers
from synaptic.text import gib, one_line, plural, rough_seconds, whole_seconds
from synaptic.ui.screen.output import table_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.backends import DraftStanding
    from synaptic.backends.distributed import (
        CoordinatorStatus,
        Endpoint,
        Holder,
        LoadProgress,
        Placement,
        Share,
        WorkerName,
        WorkerStanding,
    )

SHARE_HEADERS: Final = ("", "worker", "layers", "weights", "kv", "process", "state", "held by")

_NOTHING: Final = "–"
_WIDEST_BAR: Final = 100
_NAME_CELLS: Final = 60
_DIRECTORIES: Final = re.compile(r"(?<= )/(?:[^/]*/)*(?=[^/]+\.gguf)")
_LOADED: Final = frozenset(
    {CoordinatorState.READY, CoordinatorState.DEGRADED, CoordinatorState.SLEEPING},
)


class BarGlyphs(NamedTuple):
    """What the bar is drawn with; each is one cell wide."""

    edge: str
    loaded: str
    missing: str
    lost: str


UNICODE: Final = BarGlyphs("┃", "━", "─", "✗")
ASCII: Final = BarGlyphs("|", "=", "-", "x")


class Segment(NamedTuple):
    """One part of the bar.

    Attributes:
        weight: How wide it is, compared with the others: its number of layers.
        filled: Which part of it is loaded, from 0 to 1.
        lost: Whether its worker is gone.
        labels: What may stand in it, the longest first; the first that fits is taken.
    """

    weight: int
    filled: float
    lost: bool
    labels: tuple[str, ...]


def picture(
    status: CoordinatorStatus, width: int, now: float, glyphs: BarGlyphs = UNICODE, *, api_key: bool = False
) -> list[str]:
    """Return the lines that show a coordinator: how it is, its layers as a bar, and who has which of them.

    ``width`` is in cells, ``now`` in seconds since the epoch; ``api_key``, whether its address wants a key.
    """
    lines = [headline(status, now)]
    if status.reason:
        lines += [f"  {one_line(text, 300)}" for text in status.reason.splitlines()]
    if status.progress is not None and status.state is CoordinatorState.LOADING:
        lines.append(f"  {progress_words(status.progress)}")
    if status.url is not None:
        lines.append(f"  at {status.url}" + (" (with an API key)" if api_key else ""))
    if status.drafts is not None and (words := draft_words(status.drafts)):
        lines.append(f"  {words}")
    if status.placement is not None:
        lines += [f"  {words}" for words in placement_words(status.placement)]
        if bar := layer_bar(segments(status), width - 2, glyphs):
            lines.append(f"  {bar}")
        lines += [f"  {line}" for line in legend(status)]
    return lines


def headline(status: CoordinatorStatus, now: float) -> str:
    """Return ``llama3.1:70b: ready for 4 min 2 s, 12.3 tok/s, 2 calls and 1 waiting, restarted once``."""
    for_how_long = whole_seconds(max(now - status.since, 0.0))
    parts = [f"{status.state} for {for_how_long}"]
    if status.tokens_per_second is not None:
        parts.append(f"{status.tokens_per_second:.1f} tok/s")
    calls = [plural(status.calls, "call")] if status.calls else []
    if calls or status.waiting:
        parts.append(" and ".join((*calls, *([f"{status.waiting} waiting"] if status.waiting else []))))
    if status.restarts:
        parts.append("restarted once" if status.restarts == 1 else f"restarted {status.restarts} times")
    return f"{status.called(model_words(status.model))}: {', '.join(parts)}"


def draft_words(drafts: DraftStanding) -> str:
    """Return ``drafts: 35 of 44 drafted tokens were right, 2.9 tokens a pass``, why there are none, or "".

    Kinds of call are told apart where there are several: ``(schema 80%, text 12%)``.
    """
    if drafts.why_off:
        return f"no drafts: {drafts.why_off}"
    total = drafts.total
    if not total.drafted:
        return ""
    rates = [(kind, tally.acceptance) for kind, tally in drafts.by_kind if tally.acceptance is not None]
    kinds = ", ".join(f"{kind} {rate:.0%}" for kind, rate in rates)
    right = f"drafts: {total.accepted} of {total.drafted} drafted tokens were right"
    told = f"{right}, {total.tokens_a_pass:.1f} tokens a pass"
    return f"{told} ({kinds})" if len(rates) > 1 else told


def model_words(model: str) -> str:
    """Return what a model is called on the screen: a file without the directories that it is in."""
    return one_line(model.rpartition("/")[2] if model.startswith("/") else model, _NAME_CELLS)


def placement_words(placement: Placement) -> tuple[str, str]:
    """Return ``80 layers, 39.6 GiB, on 3 workers; 0.5 GiB in the coordinator``, and how many calls at what speed."""
    shape, needs = placement.shape, placement.needs
    layers, workers = plural(len(shape.layers), "layer"), plural(len(placement.endpoints), "worker")
    held = f"{layers}, {gib(shape.weight_bytes)}, on {workers}; {gib(placement.coordinator_bytes)} in the coordinator"
    calls = f"{plural(needs.slots, 'call')} at once of {needs.context} tokens"
    speed = placement.tokens_per_second
    copied = placement.drafted_tokens_per_second
    most = "" if copied is None else f", up to {copied:.1f} where it repeats a text"
    return held, calls if speed is None else f"{calls}; {speed:.1f} tok/s predicted for one{most}"


def progress_words(progress: LoadProgress) -> str:
    """Return ``42 % (18.2 GiB of 43.0 GiB), about 40 s left``."""
    parts = [f"{100 * progress.fraction:.0f} % ({gib(progress.bytes_done)} of {gib(progress.bytes_total)})"]
    if progress.seconds_left is not None:
        parts.append(f"about {rough_seconds(progress.seconds_left)} left")
    return ", ".join(parts)


def segments(status: CoordinatorStatus) -> list[Segment]:
    """Return the parts of the bar: a segment a share; a load fills them in the order of the layers."""
    if status.placement is None:
        return []
    shares = status.placement.shares
    total = sum(_weight(share) for share in shares)
    done = _loaded_part(status) * total
    standing: dict[WorkerName, WorkerStanding] = {worker.endpoint: worker for worker in status.workers}
    found = []
    for number, share in enumerate(shares, start=1):
        weight = _weight(share)
        worker = standing.get(share.endpoint)
        lost = worker is not None and worker.alive is False
        labels = (f"{number}: {share.endpoint}, {plural(share.layers, 'layer')}", f"{number}: {share.endpoint}")
        found.append(Segment(weight, min(max(done / weight, 0.0), 1.0), lost, (*labels, str(number))))
        done -= weight
    return found


def layer_bar(parts: Sequence[Segment], width: int, glyphs: BarGlyphs = UNICODE) -> str:
    """Return the bar, at most ``width`` cells wide; "" where that is too narrow for the segments."""
    room = min(width, _WIDEST_BAR) - len(parts) - 1
    if not parts or room < len(parts):
        return ""
    cells = shared_out([part.weight for part in parts], room)
    drawn = (_segment(part, count, glyphs) for part, count in zip(parts, cells, strict=True))
    return glyphs.edge + glyphs.edge.join(drawn) + glyphs.edge


def shared_out(weights: Sequence[int], cells: int) -> list[int]:
    """Return how many of ``cells`` each weight gets: in proportion, at least one each, ``cells`` in all."""
    spare = cells - len(weights)
    total = sum(weights)
    exact = [weight * spare / total for weight in weights]
    counts = [int(value) for value in exact]
    by_rest = sorted(range(len(weights)), key=lambda index: counts[index] - exact[index])
    for index in by_rest[: spare - sum(counts)]:
        counts[index] += 1
    return [count + 1 for count in counts]


def legend(status: CoordinatorStatus) -> list[str]:
    """Return a line a share: ``1  10.0.0.4:50052  0-39  18.2 GiB  alive``."""
    shares = () if status.placement is None else status.placement.shares
    rows = [
        (str(number), _endpoint(share), layer_span(share), gib(share.weight_bytes), _standing_words(status, share))
        for number, share in enumerate(shares, start=1)
    ]
    return table_lines((), rows)


def share_rows(statuses: Sequence[CoordinatorStatus], holders: Sequence[Holder]) -> list[tuple[str, ...]]:
    """Return the rows of the table of workers: one a share of each coordinator, in order."""
    return [
        (
            str(number),
            _endpoint(share),
            layer_span(share),
            gib(share.weight_bytes),
            gib(share.kv_bytes),
            _process(_worker(status, share.endpoint)),
            _standing_words(status, share),
            _holder_words(share.endpoint, holders),
        )
        for status in statuses
        if status.placement is not None
        for number, share in enumerate(status.placement.shares, start=1)
    ]


def free_worker_row(endpoint: Endpoint, holders: Sequence[Holder]) -> tuple[str, ...]:
    """Return the row of a worker of the settings that has no layers of ours."""
    known, holder = rpc_workers.recall(endpoint), _holder_words(endpoint, holders)
    free = "" if known is None else "; ".join(gib(device.memory_total) for device in known.facts.devices)
    words = f"has {free} (synaptic workers check)" if free else "never checked: /rpc check"
    name = one_line(str(endpoint), _NAME_CELLS)
    return ("", name, _NOTHING, _NOTHING, _NOTHING, _NOTHING, words, holder)


def status_document(status: CoordinatorStatus) -> dict[str, Any]:
    """Return a coordinator as a JSON object for programs: no key, and the model's layers as a number."""
    placement = status.placement
    return {
        "model": status.model,
        "replica": status.replica,
        "state": str(status.state),
        "since": status.since,
        "reason": status.reason or None,
        "url": status.url,
        "pid": status.pid,
        "progress": None if status.progress is None else asdict(status.progress),
        "calls": status.calls,
        "waiting": status.waiting,
        "restarts": status.restarts,
        "tokens_per_second": status.tokens_per_second,
        "drafts": None if status.drafts is None else _draft_document(status.drafts),
        "log_file": None if status.log_file is None else str(status.log_file),
        "placement": None if placement is None else _placement_document(placement),
        "workers": [_worker_document(worker) for worker in status.workers],
    }


def _draft_document(drafts: DraftStanding) -> dict[str, Any]:
    return {
        "on": drafts.on,
        "why_off": drafts.why_off or None,
        **asdict(drafts.total),
        "by_kind": {kind: asdict(tally) for kind, tally in drafts.by_kind},
    }


def _placement_document(placement: Placement) -> dict[str, Any]:
    shape = placement.shape
    return {
        "layers": len(shape.layers),
        "weight_bytes": shape.weight_bytes,
        "quantization": shape.quantization,
        "file": str(shape.file),
        "context": placement.needs.context,
        "slots": placement.needs.slots,
        "coordinator_bytes": placement.coordinator_bytes,
        "output_here": placement.output_here,
        "tokens_per_second": placement.tokens_per_second,
        "drafted_tokens_per_second": placement.drafted_tokens_per_second,
        "load_seconds": placement.load_seconds,
        "shares": [{**asdict(share), "endpoint": str(share.endpoint)} for share in placement.shares],
    }


def _worker_document(worker: WorkerStanding) -> dict[str, Any]:
    log_file = None if worker.log_file is None else str(worker.log_file)
    return {**asdict(worker), "endpoint": str(worker.endpoint), "log_file": log_file}


def _weight(share: Share) -> int:
    """Return how wide a share is drawn: its layers; one with the output alone still has to be seen."""
    return max(share.layers, 1)


def _loaded_part(status: CoordinatorStatus) -> float:
    if status.state in _LOADED:
        return 0.0 if status.state is CoordinatorState.SLEEPING else 1.0
    if status.state is CoordinatorState.LOADING and status.progress is not None:
        return status.progress.fraction
    return 0.0


def _segment(part: Segment, cells: int, glyphs: BarGlyphs) -> str:
    full = round(part.filled * cells)
    line = glyphs.lost * cells if part.lost else glyphs.loaded * full + glyphs.missing * (cells - full)
    for label in part.labels:
        # A cell of the line has to be left on both sides, or one cannot see how far it is loaded.
        if len(label) + 4 <= cells:
            start = (cells - len(label) - 2) // 2
            return f"{line[:start]} {label} {line[start + len(label) + 2 :]}"
    return line


def _worker(status: CoordinatorStatus, endpoint: WorkerName) -> WorkerStanding | None:
    return next((worker for worker in status.workers if worker.endpoint == endpoint), None)


def _standing_words(status: CoordinatorStatus, share: Share) -> str:
    worker = _worker(status, share.endpoint)
    if worker is None:
        return _NOTHING
    words = {True: "alive", False: "lost", None: "not ours to look at"}[worker.alive]
    parts = [words if worker.managed or worker.alive is not None else "external"]
    if worker.resident_bytes is not None:
        parts.append(f"{gib(worker.resident_bytes)} resident")
    if worker.restarts:
        parts.append("restarted once" if worker.restarts == 1 else f"restarted {worker.restarts} times")
    return ", ".join(parts)


def _process(worker: WorkerStanding | None) -> str:
    if worker is None or worker.pid is None:
        return _NOTHING
    return str(worker.pid)


def _endpoint(share: Share) -> str:
    name = one_line(str(share.endpoint), _NAME_CELLS)
    return f"{name} device {share.device}" if share.device else name


def layer_span(share: Share) -> str:
    """Return ``0-39 + output``."""
    last = share.first + share.layers - 1
    span = [f"{share.first}-{last}" if share.layers > 1 else str(share.first)] if share.layers else []
    parts = [*span, *(["output"] if share.output else []), *(["embeddings"] if share.embeddings else [])]
    return " + ".join(parts)


def holder_words(holder: Holder) -> str:
    """Return who a holder is, in a few words: a model's file without the directories that it is in."""
    return one_line(_DIRECTORIES.sub("", holder.shown))


def _holder_words(endpoint: WorkerName, holders: Sequence[Holder]) -> str:
    return next((holder_words(holder) for holder in holders if _is_held(holder, endpoint)), _NOTHING)


def _is_held(holder: Holder, endpoint: WorkerName) -> bool:
    return (
        not isinstance(endpoint, PlannedWorker)
        and holder.port == endpoint.port
        and endpoint.host in {holder.host, *holder.addresses}
    )
