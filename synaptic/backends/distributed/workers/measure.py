"""Measure one worker over the protocol itself: round trip, bandwidth each way, and how fast it reads weights.

Everything is written into buffers that were allocated for it; they are freed after, and would be by the worker when
the connection ends. It takes about two seconds and, for the weights, 145 MiB of each device.
"""

from __future__ import annotations

import statistics
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from synaptic.backends.distributed.workers.protocol import ProtocolVersion, Tensor, decode_number, decode_pair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from synaptic.backends.distributed.workers.probe import Device, RpcConnection

MIB: Final = 1024 * 1024
ROUND_TRIPS: Final = 32
ROUND_TRIP_SECONDS: Final = 1.0
WARM_UP: Final = 3

FIRST_BYTES: Final = 64 * 1024
BLOCK_BYTES: Final = 1 * MIB
"""Below 10 MiB, from where on a worker older than version 7 puts what it gets into its tensor cache."""
MOST_BYTES: Final = 64 * MIB
GROWTH: Final = 4
ENOUGH_SECONDS: Final = 0.25

# The numbers of operations move between versions, and a wrong one is undefined behaviour in the worker.
_MUL_MAT: Final = {ProtocolVersion(7, 0, 0): 29}
_COMPUTE: Final = 16  # GGML_TENSOR_FLAG_COMPUTE
_F32: Final = 0
_F32_BYTES: Final = 4
_Q4_0: Final = 2
_Q4_0_BLOCK: Final = (32, 18)  # weights, bytes
_COLUMNS: Final = 4096
_ROWS: Final = 8192
_MATRICES: Final = 8  # together 144 MiB: more than the caches of most CPUs
_RECOMPUTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What a worker and the way to it can do.

    Attributes:
        round_trip: Median from a cheap request to its answer, in seconds.
        upload: To the worker, bytes a second.
        download: From it, bytes a second.
        weight_reading: A device's bytes of Q4_0 weights a second in matrix-vector products, which is what generating
            a token is; ``None`` where it could not be measured. In the order of the devices.
    """

    round_trip: float
    upload: float
    download: float
    weight_reading: tuple[float | None, ...]


async def measure(talk: RpcConnection, devices: tuple[Device, ...]) -> Measurement:
    """Return what the worker at the other end, and the way to it, can do.

    The connection is at rest, and there is at least one device.

    Raises:
        BackendBusy: If it falls silent.
        ProtocolError: If it answers wrongly, closes the connection, or has no room for a small buffer.
    """
    round_trip = await _round_trip(talk)
    async with _buffer(talk, devices[0], BLOCK_BYTES) as buffer:
        if buffer is None:
            raise talk.wrong(f"has no room for a buffer of {BLOCK_BYTES} bytes", hint="free memory on that machine")
        upload = await _rate(lambda size: _upload(talk, buffer, size), round_trip)
        download = await _rate(lambda size: _download(talk, buffer, size), round_trip)
    reading = [await _weight_reading(talk, device, round_trip) for device in devices]
    return Measurement(round_trip=round_trip, upload=upload, download=download, weight_reading=tuple(reading))


class _Buffer(NamedTuple):
    name: int
    base: int


@asynccontextmanager
async def _buffer(talk: RpcConnection, device: Device, size: int) -> AsyncIterator[_Buffer | None]:
    """Allocate a buffer, ``None`` if there is no room, and free it after."""
    name, _ = decode_pair(await talk.ask(talk.dialect.alloc_buffer(device.index, size)))
    if name == 0:
        yield None
        return
    # No "finally": after a failure the connection is of no use, and the worker frees the buffer when it ends.
    yield _Buffer(name, decode_number(await talk.ask(talk.dialect.buffer_base(name))))
    await talk.ask(talk.dialect.free_buffer(name))
    await _settled(talk)


async def _settled(talk: RpcConnection) -> None:
    """Return once the worker has done all that it was asked for: it does one thing after the other."""
    await talk.ask(talk.dialect.alignment(0))


async def _round_trip(talk: RpcConnection) -> float:
    """Return the median of some round trips, in seconds; fewer where they are long."""
    for _ in range(WARM_UP):
        await _settled(talk)
    took: list[float] = []
    end = time.perf_counter() + ROUND_TRIP_SECONDS
    while len(took) < ROUND_TRIPS and (not took or time.perf_counter() < end):
        began = time.perf_counter()
        await _settled(talk)
        took.append(time.perf_counter() - began)
    return statistics.median(took)


async def _rate(transfer: Callable[[int], Awaitable[None]], round_trip: float) -> float:
    """Return the bytes a second of a transfer that takes long enough to tell, but not much longer."""
    size = FIRST_BYTES
    while True:
        began = time.perf_counter()
        await transfer(size)
        took = time.perf_counter() - began
        if took - round_trip >= ENOUGH_SECONDS or size >= MOST_BYTES:
            return size / _without(round_trip, took)
        size *= GROWTH


def _without(round_trip: float, took: float) -> float:
    """Return what a transfer took by itself; at least half, because a single round trip may be shorter than usual."""
    return max(took - round_trip, took / 2)


async def _upload(talk: RpcConnection, buffer: _Buffer, size: int) -> None:
    block = min(size, BLOCK_BYTES)
    request = talk.dialect.set_tensor(_vector(1, buffer, 0, block // _F32_BYTES), bytes(block))
    for _ in range(size // block):
        await talk.ask(request)
    await _settled(talk)


async def _download(talk: RpcConnection, buffer: _Buffer, size: int) -> None:
    block = min(size, BLOCK_BYTES)
    request = talk.dialect.get_tensor(_vector(1, buffer, 0, block // _F32_BYTES), block)
    count = size // block
    for _ in range(count):  # all are asked for at once, so that the round trips do not count
        await talk.send(request)
    for _ in range(count):
        await talk.answer(request, keep=False)


async def _weight_reading(talk: RpcConnection, device: Device, round_trip: float) -> float | None:
    operation = _MUL_MAT.get(talk.version)
    if operation is None:
        return None
    plan = _matvec_plan(device)
    async with _buffer(talk, device, plan.size) as buffer:
        if buffer is None:
            return None
        await talk.ask(talk.dialect.clear_buffer(buffer.name))  # what memory held before may be slow numbers
        tensors, nodes = _matvecs(buffer, plan, operation)
        await talk.ask(talk.dialect.graph_compute(device.index, nodes, tensors))
        await _settled(talk)
        done, began = 0, time.perf_counter()
        while done < _RECOMPUTES and (done == 0 or time.perf_counter() - began < ENOUGH_SECONDS):
            await talk.ask(talk.dialect.graph_recompute(device.index))
            await _settled(talk)
            done += 1
        took = time.perf_counter() - began
    return done * _MATRICES * plan.matrix / _without(done * round_trip, took)


class _MatvecPlan(NamedTuple):
    """Where things are in the buffer: matrices, then the vector, then the products; all in bytes."""

    matrix: int
    step: int
    vector: int
    product: int
    product_step: int
    size: int


def _matvec_plan(device: Device) -> _MatvecPlan:
    def aligned(size: int) -> int:
        unit = max(device.alignment, 256)
        return -(-size // unit) * unit

    weights, size = _Q4_0_BLOCK
    matrix = _COLUMNS // weights * size * _ROWS
    step, product_step = aligned(matrix), aligned(_ROWS * _F32_BYTES)
    vector = _MATRICES * step
    product = vector + aligned(_COLUMNS * _F32_BYTES)
    return _MatvecPlan(matrix, step, vector, product, product_step, product + _MATRICES * product_step)


def _matvecs(buffer: _Buffer, plan: _MatvecPlan, operation: int) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Return the tensors of a graph that multiplies one vector with some matrices, and which are its nodes."""
    weights, size = _Q4_0_BLOCK
    vector = _vector(1, buffer, plan.vector, _COLUMNS)
    tensors = [vector]
    for index in range(_MATRICES):
        matrix = Tensor(
            identity=10 + index,
            kind=_Q4_0,
            shape=(_COLUMNS, _ROWS),
            strides=(size, _COLUMNS // weights * size),
            buffer=buffer.name,
            address=buffer.base + index * plan.step,
        )
        product = _vector(
            100 + index,
            buffer,
            plan.product + index * plan.product_step,
            _ROWS,
            operation=operation,
            sources=(matrix.identity, vector.identity),
        )
        tensors += [matrix, product]
    return tuple(tensors), tuple(100 + index for index in range(_MATRICES))


def _vector(
    identity: int, buffer: _Buffer, offset: int, length: int, *, operation: int = 0, sources: tuple[int, ...] = ()
) -> Tensor:
    return Tensor(
        identity=identity,
        kind=_F32,
        shape=(length, 1),
        strides=(_F32_BYTES, length * _F32_BYTES),
        buffer=buffer.name,
        address=buffer.base + offset,
        operation=operation,
        flags=_COMPUTE if operation else 0,
        sources=sources,
    )
