"""A coordinator's standing as JSON and back: what a background service writes down for everybody else."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synaptic.backends.distributed.coordinator import CoordinatorState, CoordinatorStatus, LoadProgress, WorkerStanding
from synaptic.backends.distributed.placement import DeviceVerdict, Placement, ServingNeeds, Share
from synaptic.backends.distributed.workers import Endpoint
from synaptic.models import LayerShape, ModelShape

if TYPE_CHECKING:
    from collections.abc import Mapping

_LAYER_FIELDS = ("weight_bytes", "active_bytes", "kv_bytes_per_token", "state_bytes")


def status_json(status: CoordinatorStatus) -> dict[str, Any]:
    """Return a standing as a JSON object; equal layers that follow each other are written once."""
    document = asdict(status)
    document["log_file"] = _text(status.log_file)
    document["workers"] = [{**asdict(worker), "log_file": _text(worker.log_file)} for worker in status.workers]
    if status.placement is not None:
        document["placement"]["shape"] = _shape_json(status.placement.shape)
    return document


def status_from_json(document: Mapping[str, Any]) -> CoordinatorStatus:
    """Return the standing that :func:`status_json` wrote.

    Raises:
        LookupError: If something is missing.
        TypeError: If something is there that does not belong, or of another kind.
        ValueError: If a value is none of those that there are.

    """
    placement, progress = document["placement"], document["progress"]
    values = {
        **document,
        "state": CoordinatorState(document["state"]),
        "placement": None if placement is None else _placement(placement),
        "progress": None if progress is None else LoadProgress(**progress),
        "workers": tuple(
            WorkerStanding(**{**_placed(worker), "log_file": _path(worker["log_file"])})
            for worker in document["workers"]
        ),
        "log_file": _path(document["log_file"]),
    }
    return CoordinatorStatus(**values)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _placed(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of something that has an endpoint, with the endpoint made one again."""
    host, port = entry["endpoint"]
    return {**entry, "endpoint": Endpoint(host, port)}


def _placement(document: Mapping[str, Any]) -> Placement:
    return Placement(
        **{
            **document,
            "shape": _shape(document["shape"]),
            "needs": ServingNeeds(**document["needs"]),
            "shares": tuple(Share(**_placed(share)) for share in document["shares"]),
            "verdicts": tuple(DeviceVerdict(**_placed(verdict)) for verdict in document["verdicts"]),
        }
    )


def _shape_json(shape: ModelShape) -> dict[str, Any]:
    runs = [[len(list(run)), *(getattr(layer, name) for name in _LAYER_FIELDS)] for layer, run in groupby(shape.layers)]
    own = {name: getattr(shape, name) for name in ModelShape.__slots__ if name not in {"layers", "files"}}
    return {**own, "files": [str(file) for file in shape.files], "layers": runs}


def _shape(document: Mapping[str, Any]) -> ModelShape:
    layers = tuple(
        layer
        for count, *values in document["layers"]
        for layer in [LayerShape(**dict(zip(_LAYER_FIELDS, values, strict=True)))] * count
    )
    return ModelShape(**{**document, "files": tuple(Path(file) for file in document["files"]), "layers": layers})
