"""What a real call teaches of the workers' speed: a measurement may have met a busy moment, and is kept for days.

The whole call has one speed, so all workers of a placement are corrected alike: how fast they read weights is what is
uncertain, latency and bandwidth are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from synaptic.backends.distributed.placement import predict
from synaptic.backends.distributed.workers import recall, remember

if TYPE_CHECKING:
    from synaptic.backends.distributed.placement.types import Placement, WorkerName
    from synaptic.backends.distributed.workers import Endpoint, LocalKey

FEWEST_TOKENS: Final = 16
"""A shorter answer says too little of the speed."""
WORTH_KEEPING: Final = 0.05
MOST: Final = 4.0
"""No call is believed to be so many times as fast, or as slow, as predicted."""
TRUST: Final = 0.5
"""How much of the way to what was just seen is gone, in logarithms."""


Readings = Mapping[tuple["WorkerName", int], float]
"""Bytes of weights a second, by worker and device."""


def reading_factor(placement: Placement, readings: Readings, seconds: float) -> float:
    """Return how many times as fast as predicted the workers read weights. Pure.

    ``readings`` is what the prediction took for each share, ``seconds`` what a token really took.
    """
    shape = placement.shape
    computing = 0.0
    for share in placement.shares:
        layers = shape.layers[share.first : share.first + share.layers]
        read = sum(
            layer.active_bytes + layer.kv_bytes_per_token * predict.PREDICTED_CONTEXT + layer.state_bytes
            for layer in layers
        )
        read += shape.output_bytes if share.output else 0
        computing += read / readings[share.endpoint, share.device]
    if not computing or placement.tokens_per_second is None:
        return 1.0
    rest = 1 / placement.tokens_per_second - computing
    return max(1 / MOST, computing / max(seconds - rest, computing / MOST))


def corrected(kept: float, predicted: float, factor: float) -> float:
    """Return what to keep of a device's speed, in bytes a second: between what is kept and what was just seen. Pure."""
    return float(kept ** (1 - TRUST) * (predicted * factor) ** TRUST)


def learn(
    placement: Placement, readings: Readings, keys: Mapping[Endpoint, Endpoint | LocalKey], seconds: float
) -> None:
    """Correct what is kept of the workers' speed after a call that had them for itself.

    ``readings`` and ``seconds`` are as :func:`reading_factor` has them; ``keys`` say where each worker's measurement is
    kept.
    """
    factor = reading_factor(placement, readings, seconds)
    for endpoint in placement.endpoints:
        fact = recall(keys[endpoint])
        if fact is None or fact.measurement is None:
            continue
        before = fact.measurement.weight_reading
        after = tuple(
            corrected(kept, readings[endpoint, device], factor) if kept and (endpoint, device) in readings else kept
            for device, kept in enumerate(before)
        )
        if any(a and b and abs(a / b - 1) > WORTH_KEEPING for a, b in zip(after, before, strict=True)):
            remember(keys[endpoint], fact.facts, replace(fact.measurement, weight_reading=after))
