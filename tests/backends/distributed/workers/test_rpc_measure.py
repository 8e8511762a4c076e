"""Measuring workers of every version, what is left behind, and what is kept of it."""

import asyncio

import pytest
from rpc_support import PATIENCE, QUICK, local
from rpc_worker import GIB, RpcWorker

from synaptic import paths
from synaptic.backends.distributed.workers.measure import BLOCK_BYTES, Measurement, measure
from synaptic.backends.distributed.workers.probe import (
    DEFAULT_LIMITS,
    Device,
    ProbeLimits,
    WorkerFacts,
    ask_facts,
    conversation,
)
from synaptic.backends.distributed.workers.protocol import Endpoint, ProtocolVersion
from synaptic.backends.distributed.workers.worker_facts import recall, remember
from synaptic.errors import BackendBusy, ProtocolError
from synaptic.processes import read_json

TEN_MIB = 10 * 1024 * 1024  # what is larger goes into a worker's tensor cache, before version 7


async def measured(worker: RpcWorker, limits: ProbeLimits = DEFAULT_LIMITS) -> Measurement:
    async with conversation(local(worker.port), limits=limits) as talk:
        measurement = await measure(talk, (await ask_facts(talk)).devices)
        assert worker.buffers == {}, "freed, and not only because the connection has ended"
        return measurement


@pytest.mark.parametrize(
    "version", [(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 6, 1), (4, 0, 3), (5, 1, 0), (6, 0, 0), (7, 0, 9)], ids=str
)
async def test_a_worker_of_every_version(version: tuple[int, int, int]):
    with RpcWorker(version) as worker:
        measurement = await measured(worker)
    assert 0 < measurement.round_trip < PATIENCE
    assert measurement.upload > 0
    assert measurement.download > 0
    assert measurement.weight_reading == (None,), "the number of the operation is not known for it"
    assert "refused" not in worker.names
    assert {"SET_TENSOR", "GET_TENSOR", "FREE_BUFFER"} <= set(worker.names)
    assert "GRAPH_COMPUTE" not in worker.names
    assert max(length for _, length in worker.commands) < TEN_MIB
    assert worker.largest == BLOCK_BYTES


async def test_how_fast_each_device_reads_weights():
    with RpcWorker((7, 0, 0), devices=((GIB, GIB), (GIB, GIB))) as worker:
        measurement = await measured(worker)
    assert len(measurement.weight_reading) == 2
    assert all(rate is not None and rate > 0 for rate in measurement.weight_reading)
    assert "refused" not in worker.names
    assert worker.names.count("GRAPH_COMPUTE") == 2
    assert worker.names.count("GRAPH_RECOMPUTE") >= 2
    assert worker.names.count("ALLOC_BUFFER") == worker.names.count("FREE_BUFFER") == 3


async def test_a_device_without_room_for_the_weights():
    with RpcWorker((7, 0, 0), room=2 * BLOCK_BYTES) as worker:
        measurement = await measured(worker)
    assert measurement.weight_reading == (None,)


async def test_a_device_without_any_room():
    with RpcWorker(room=0) as worker, pytest.raises(ProtocolError, match="has no room for a buffer") as full:
        await measured(worker)
    assert "free memory" in (full.value.hint or "")


@pytest.mark.parametrize("command", ["ALLOC_BUFFER", "BUFFER_GET_BASE", "GET_TENSOR"])
@pytest.mark.parametrize(
    ("fault", "kind"), [("silent", BackendBusy), ("short", ProtocolError), ("close", ProtocolError)]
)
async def test_a_worker_that_fails_while_it_is_measured(command: str, fault: str, kind: type[Exception]):
    with RpcWorker(faults={command: fault}) as worker, pytest.raises(kind, match=command):
        await measured(worker, QUICK)


async def test_cancelling_ends_it_and_the_worker_frees_what_it_gave():
    with RpcWorker(faults={"GET_TENSOR": "silent"}) as worker:
        task = asyncio.create_task(measured(worker))
        while "GET_TENSOR" not in worker.names:
            await asyncio.sleep(0.01)
        assert worker.buffers
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(PATIENCE):
            while worker.buffers:
                await asyncio.sleep(0.01)


# -- what is kept ------------------------------------------------------------------------------------------------------

HERE = Endpoint("10.0.0.4", 50052)
MEASURED = Measurement(round_trip=1e-4, upload=1e9, download=2e9, weight_reading=(8e9, None))


def facts(version: tuple[int, int, int] = (7, 0, 0), total: int = GIB) -> WorkerFacts:
    device = Device(index=0, memory_free=GIB, memory_total=total, alignment=64, max_size=2**64 - 1)
    return WorkerFacts(version=ProtocolVersion(*version), devices=(device, device), round_trip=1e-4)


def test_what_was_learned_is_known_later():
    assert recall(HERE) is None
    kept = remember(HERE, facts(), MEASURED)
    assert recall(HERE) == kept
    assert kept.measured_at == kept.checked_at
    assert recall(Endpoint("10.0.0.4", 50053)) is None


def test_a_measurement_outlives_a_check_of_the_same_worker_only():
    first = remember(HERE, facts(), MEASURED)
    again = remember(HERE, facts())
    assert (again.measurement, again.measured_at) == (MEASURED, first.measured_at)
    assert remember(HERE, facts(version=(7, 0, 1))).measurement is None
    remember(HERE, facts(), MEASURED)
    assert remember(HERE, facts(total=2 * GIB)).measurement is None


@pytest.mark.parametrize("text", ["", "7", "[]", '{"10.0.0.4:50052": 7}', '{"10.0.0.4:50052": {"facts": {}}}'])
def test_a_damaged_cache_is_an_empty_one(text: str):
    file = paths.worker_facts_file()
    file.write_text(text)
    assert recall(HERE) is None
    remember(HERE, facts())
    assert recall(HERE) is not None


def test_what_is_known_of_others_stays():
    remember(Endpoint("a", 1), facts())
    remember(Endpoint("b", 1), facts())
    assert set(read_json(paths.worker_facts_file(), missing={})) == {"a:1", "b:1"}


def test_a_cache_that_cannot_be_written_is_no_failure():
    paths.worker_facts_file().mkdir()
    assert remember(HERE, facts()).facts == facts()
    assert recall(HERE) is None
