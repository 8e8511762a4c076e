"""Shapes and offers for the tests of placements, and a way to lay out a model on real workers."""

from dataclasses import replace
from pathlib import Path

from synaptic.backends.distributed.placement.types import Offer
from synaptic.backends.distributed.workers.measure import Measurement
from synaptic.backends.distributed.workers.protocol import Endpoint
from synaptic.models.layers import LayerShape, ModelShape

MIB = 1024 * 1024
GIB = 1024 * MIB

MEASURED = Measurement(round_trip=0.2e-3, upload=117e6, download=117e6, weight_reading=(20e9,))


def make_shape(
    layers: int = 32,
    *,
    layer_bytes: int = 128 * MIB,
    kv: int = 4096,
    tied: bool = False,
    input_bytes: int = 256 * MIB,
    output_bytes: int = 256 * MIB,
) -> ModelShape:
    """A dense model of 4.5 GiB with 32 layers that are all alike, unless told otherwise."""
    layer = LayerShape(weight_bytes=layer_bytes, active_bytes=layer_bytes, kv_bytes_per_token=kv)
    return ModelShape(
        name="big:8b",
        files=(Path("/models/big.gguf"),),
        architecture="llama",
        layers=(layer,) * layers,
        input_bytes=input_bytes,
        output_bytes=output_bytes,
        tied=tied,
        embedding_length=4096,
        vocabulary=128_256,
        trained_context=8192,
        quantization="Q4_K_M",
        parameters=8_000_000_000,
    )


def make_offer(number: int, gib: float, *, reading: float = 20e9, device: int = 0, layers: int | None = None) -> Offer:
    """A device of the worker ``10.0.0.<number>``, behind a gigabit."""
    return Offer(
        endpoint=Endpoint(f"10.0.0.{number}", 50052),
        device=device,
        memory_bytes=int(gib * GIB),
        measurement=replace(MEASURED, weight_reading=(reading,) * (device + 1)),
        layers=layers,
    )
