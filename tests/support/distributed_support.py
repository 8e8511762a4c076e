"""What the tests of services and of their views share: a model of eight layers on two workers, at any moment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from synaptic.backends.distributed.coordinator.states import (
    CoordinatorState,
    CoordinatorStatus,
    LoadProgress,
    WorkerStanding,
)
from synaptic.backends.distributed.placement.types import DeviceVerdict, Placement, ServingNeeds, Share
from synaptic.backends.distributed.workers.protocol import Endpoint
from synaptic.models.layers import LayerShape, ModelShape

if TYPE_CHECKING:
    from typing import Any

NEAR = Endpoint("127.0.0.1", 50052)
FAR = Endpoint("10.0.0.4", 50053)
MB = 1_000_000

LAYER = LayerShape(weight_bytes=10 * MB, active_bytes=10 * MB, kv_bytes_per_token=1024)
SHAPE = ModelShape(
    name="big:latest",
    files=(Path("/models/big.gguf"),),
    architecture="llama",
    layers=(LAYER,) * 6 + (replace(LAYER, weight_bytes=20 * MB),) * 2,
    input_bytes=5 * MB,
    output_bytes=5 * MB,
    tied=False,
    embedding_length=64,
    vocabulary=1000,
    trained_context=8192,
    quantization="Q4_1",
    parameters=100 * MB,
)
FIRST = Share(
    endpoint=NEAR,
    device=0,
    first=0,
    layers=6,
    output=False,
    embeddings=True,
    weight_bytes=60 * MB,
    kv_bytes=3 * MB,
    compute_bytes=MB,
    seconds_per_token=0.01,
)
SECOND = replace(
    FIRST, endpoint=FAR, device=1, first=6, layers=2, output=True, embeddings=False, weight_bytes=45 * MB, kv_bytes=MB
)
PLACEMENT = Placement(
    shape=SHAPE,
    needs=ServingNeeds(context=4096, slots=4),
    shares=(FIRST, SECOND),
    coordinator_bytes=7 * MB,
    tokens_per_second=12.25,
    load_seconds=9.0,
    verdicts=(DeviceVerdict(endpoint=NEAR, device=0, used=True, reason="the fastest"),),
)
WORKERS = (
    WorkerStanding(
        endpoint=NEAR,
        managed=True,
        alive=True,
        pid=77,
        resident_bytes=70 * MB,
        restarts=2,
        log_file=Path("/logs/w.log"),
    ),
    WorkerStanding(endpoint=FAR, managed=False, alive=None),
)
LOADING = CoordinatorStatus(
    model="big:latest",
    state=CoordinatorState.LOADING,
    since=1000.0,
    placement=PLACEMENT,
    progress=LoadProgress(fraction=0.375, bytes_done=45 * MB, bytes_total=120 * MB, seconds_left=40.0),
    workers=WORKERS,
)
READY = CoordinatorStatus(
    model="big:latest",
    state=CoordinatorState.READY,
    since=1000.0,
    url="http://127.0.0.1:4321",
    pid=88,
    placement=PLACEMENT,
    workers=WORKERS,
    calls=2,
    waiting=1,
    restarts=1,
    tokens_per_second=12.3,
    log_file=Path("/logs/llama.log"),
)


def lost(status: CoordinatorStatus, endpoint: Endpoint) -> CoordinatorStatus:
    """Return the same with one worker gone."""
    workers = tuple(replace(one, alive=False) if one.endpoint == endpoint else one for one in status.workers)
    return replace(status, workers=workers)


def with_shares(*shares: dict[str, Any]) -> CoordinatorStatus:
    """Return a ready coordinator of other shares, each given by how it differs from the first one."""
    placement = replace(PLACEMENT, shares=tuple(replace(FIRST, **share) for share in shares))
    return replace(READY, placement=placement)
