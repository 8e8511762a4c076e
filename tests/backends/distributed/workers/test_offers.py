"""What workers offer a placement."""

import os
import signal
from dataclasses import replace

import psutil
import pytest
from managed_worker_support import installed_engine, managed, within  # noqa: F401 - a fixture
from rpc_support import stand_in_process

from synaptic.backends.distributed.engine.engine import Engine
from synaptic.backends.distributed.placement.types import PlannedWorker
from synaptic.backends.distributed.workers import offers
from synaptic.backends.distributed.workers.local import (
    cache_limit,
    local_worker_count,
    local_worker_memory,
    local_worker_threads,
    local_workers,
)
from synaptic.backends.distributed.workers.machine import LocalDevice, group_rest, parse_devices
from synaptic.backends.distributed.workers.managed import ManagedWorker
from synaptic.backends.distributed.workers.measure import Measurement
from synaptic.backends.distributed.workers.offers import external_offers, gather_offers, managed_offers
from synaptic.backends.distributed.workers.probe import Device, WorkerFacts
from synaptic.backends.distributed.workers.protocol import Endpoint, ProtocolVersion
from synaptic.backends.distributed.workers.registry import Worker, WorkerRegistry
from synaptic.backends.distributed.workers.worker_check import WorkerLook, WorkerState
from synaptic.backends.distributed.workers.worker_facts import KnownWorker, recall
from synaptic.messages import ignore_report
from synaptic.settings import Settings
from synaptic.settings.endpoints import RpcBackendSettings
from synaptic.waiting import Rules

GIB = 1 << 30
FAR = Endpoint("10.0.0.4", 50052)
MEASURED = Measurement(round_trip=0.001, upload=1e8, download=1e8, weight_reading=(1e10, None))


def known(*totals: int, measured_at: float | None = None) -> KnownWorker:
    devices = tuple(
        Device(index=index, memory_free=total // 2, memory_total=total, alignment=64, max_size=2**63)
        for index, total in enumerate(totals)
    )
    return KnownWorker(
        facts=WorkerFacts(version=ProtocolVersion(7, 0, 0), devices=devices, round_trip=0.001),
        checked_at=1.0,
        measurement=None if measured_at is None else MEASURED,
        measured_at=measured_at,
    )


def look(known: KnownWorker | None, state: WorkerState = WorkerState.OK, **more: str) -> WorkerLook:
    return WorkerLook(endpoint=FAR, state=state, known=known, fresh=True, **more)


def test_a_worker_of_the_settings_offers_what_it_says_itself():
    (offer,) = external_offers(RpcBackendSettings(host="10.0.0.4"), look(known(8 * GIB, measured_at=5.0)))
    assert offer.endpoint == FAR
    assert offer.memory_bytes == 4 * GIB
    assert offer.measurement is MEASURED
    assert not offer.managed
    assert offer.refusal == ""


def test_what_the_settings_say_of_its_memory_comes_first_and_is_shared_by_its_devices():
    backend = RpcBackendSettings(host="10.0.0.4", memory_gib=8.0, layers=7)
    one, two = external_offers(backend, look(known(6 * GIB, 2 * GIB)))
    assert (one.memory_bytes, one.layers, one.device) == (6 * GIB, 7, 0)
    assert (two.memory_bytes, two.layers, two.device) == (2 * GIB, None, 1)
    left_out = external_offers(RpcBackendSettings(host="10.0.0.4", layers=0), look(known(6 * GIB, 2 * GIB)))
    assert [offer.layers for offer in left_out] == [0, 0]


@pytest.mark.parametrize("before", [None, known(8 * GIB)])
def test_one_that_is_not_well_is_refused_with_what_to_do(before: KnownWorker | None):
    seen = look(before, WorkerState.MISMATCH, reason="speaks RPC 6.0.0 and the engine 7.0.0", hint="restart it")
    (offer,) = external_offers(RpcBackendSettings(host="10.0.0.4"), seen)
    assert offer.refusal == "speaks RPC 6.0.0 and the engine 7.0.0 — restart it"
    assert offer.memory_bytes == (0 if before is None else 4 * GIB)


def test_one_without_devices_is_refused():
    (offer,) = external_offers(RpcBackendSettings(host="10.0.0.4", memory_gib=2.0), look(known()))
    assert offer.refusal == "10.0.0.4:50052 has no devices"
    assert offer.memory_bytes == 2 * GIB


@pytest.mark.parametrize(("version", "refused"), [("7.0.0", False), ("6.0.0", True), ("7.1.0", True), ("7.0.9", True)])
async def test_all_three_numbers_of_the_version_have_to_be_equal(engine: Engine, version: str, refused: bool):  # noqa: FBT001
    with stand_in_process("--version", version) as worker:
        settings = Settings(rpc_backends=[f"127.0.0.1:{worker.port}"])
        (offer,) = await gather_offers(settings, engine, measure=False)
    assert bool(offer.refusal) == refused
    if refused:
        assert f"speaks RPC {version}" in offer.refusal
        assert "the engine of this machine 7.0.0" in offer.refusal
        assert "restart the worker" in offer.refusal


async def test_one_that_somebody_holds_is_not_contacted(engine: Engine):
    async with managed(engine) as worker:
        registry = WorkerRegistry()
        registry.claim([Worker(worker.endpoint, ("127.0.0.1",))], "the coordinator of big:70b")
        settings = Settings(rpc_backends=[str(worker.endpoint)])
        external, own = await gather_offers(settings, engine, [worker], measure=True, registry=registry)
        assert "is held by the coordinator of big:70b" in external.refusal
        assert "is held by the coordinator of big:70b" in own.refusal
        assert not [line for line in worker.tail if "client" in line]


async def test_own_workers_are_measured_once_for_all_with_the_same_engine_and_threads(engine: Engine):
    async with managed(engine) as one, managed(engine, name="two") as two:
        before = await gather_offers(Settings(), engine, [one, two], measure=False, planned_local=1)
        assert [offer.measurement for offer in before] == [None] * 3
        after = await gather_offers(Settings(local_worker_threads=1), engine, [one, two], measure=True, planned_local=2)
        assert len({offer.measurement for offer in after}) == 1
        assert after[0].measurement is not None
        assert [isinstance(offer.endpoint, PlannedWorker) for offer in after] == [False, False, True, True]
        assert len({offer.endpoint for offer in after}) == 4
        assert all(offer.managed and not offer.refusal for offer in after)
        whole = psutil.virtual_memory().total
        assert 0 < sum(offer.memory_bytes for offer in after) < whole
        assert recall(one.endpoint) is not None
        assert recall(two.endpoint) is None
        again = await gather_offers(Settings(), engine, [one], measure=True)
        assert again[0].measurement == after[0].measurement


async def test_one_of_the_settings_is_measured_if_that_was_long_ago(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    async with managed(engine) as worker:
        settings = Settings(rpc_backends=[str(worker.endpoint)])
        (before,) = await gather_offers(settings, engine, measure=False)
        assert before.measurement is None
        (measured,) = await gather_offers(settings, engine, measure=True)
        assert measured.measurement is not None
        (kept,) = await gather_offers(settings, engine, measure=True)
        assert kept.measurement == measured.measurement
        monkeypatch.setattr(offers, "MEASURED_FOR_SECONDS", -1.0)
        (anew,) = await gather_offers(settings, engine, measure=True)
        assert anew.measurement != measured.measurement


async def test_one_that_does_not_run_is_refused(engine: Engine):
    worker = ManagedWorker(engine, threads=1, memory_bytes=GIB, cache_dir=None, name="idle")
    (offer,) = await gather_offers(Settings(), engine, [worker], measure=True)
    assert offer.refusal == "the local worker idle does not run (stopped)"
    assert offer.memory_bytes == GIB


async def test_one_that_has_failed_is_refused_with_its_reason(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Rules, "WORKER", replace(Rules.WORKER, delays=()))
    async with managed(engine) as worker:
        os.kill(worker.pid, signal.SIGKILL)
        await within(worker.wait_change(1))
        while worker.failure is None:
            await within(worker.changed())
        (offer,) = await gather_offers(Settings(), engine, [worker], measure=True)
        assert "is not started any more" in offer.refusal


async def test_devices_beside_the_processor_have_memory_of_their_own(engine: Engine):
    listed = ("CUDA0: NVIDIA H200 (143000 MiB, 142000 MiB free)", "RPC0: x:1 (2000 MiB, 2000 MiB free)", "a line")
    facts = replace(engine.facts, devices=listed)
    assert parse_devices(listed) == (LocalDevice("CUDA0", "NVIDIA H200", 143000 << 20, 142000 << 20),)
    async with managed(replace(engine, facts=facts)) as worker:
        assert worker.facts().device == "NVIDIA H200"
        (offer,) = managed_offers(worker, worker.facts(), GIB, None, "")
        assert offer.memory_bytes == 142000 << 20
        one, two = managed_offers(worker, worker.facts(), GIB, known(4 * GIB, 8 * GIB), "")
        assert (one.memory_bytes, two.memory_bytes, two.device) == (2 * GIB, 4 * GIB, 1)
        # Here the processor answers for it; what counts is that it is asked for what is free now.
        (asked,) = await gather_offers(Settings(), engine, [worker], measure=False)
        assert asked.memory_bytes < 142000 << 20


def test_how_many_local_workers_there_are():
    assert local_worker_count(Settings()) == 1
    assert local_worker_count(Settings(rpc_backends=["10.0.0.4"])) == 0
    assert local_worker_count(Settings(rpc_backends=["10.0.0.4"], local_workers=3)) == 3
    assert local_worker_count(Settings(local_workers=0)) == 0


def test_local_workers_share_the_cores():
    assert local_worker_threads(Settings(local_worker_threads=5)) == 5
    alone = local_worker_threads(Settings())
    assert alone >= 1
    assert local_worker_threads(Settings(local_workers=15)) == max(1, alone // 15)
    assert local_worker_threads(Settings(), 0) == alone


def test_the_bounds_of_local_workers():
    assert local_worker_memory(Settings()) is None
    assert local_worker_memory(Settings(local_worker_memory_gib=1.5)) == GIB * 3 // 2
    assert cache_limit(Settings(tensor_cache_gib=0)) == 0


async def test_the_local_workers_of_the_settings(engine: Engine):
    made = local_workers(
        Settings(local_workers=2, local_worker_threads=3, local_worker_memory_gib=1.0), engine, report=ignore_report
    )
    assert [worker.name for worker in made] == ["local-1", "local-2"]
    assert len({worker.endpoint for worker in made}) == 2
    assert {(worker.threads, worker.memory_bound) for worker in made} == {(3, GIB)}


@pytest.mark.parametrize(
    ("limit", "rest"),
    [("max\n", None), ("9223372036854771712\n", None), ("1000\n", 700), ("", None)],
)
def test_what_a_control_group_may_still_take(limit: str, rest: int | None):
    assert group_rest(limit, "400\n", "anon 1\ninactive_file 100\n") == rest
    assert group_rest("1000", "400", "") == 600
