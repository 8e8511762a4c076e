"""Checking workers: those that may be held are never contacted, and all have to speak the same version."""

import asyncio
import socket

import pytest
from rpc_support import PATIENCE, QUICK, free_port, holding, local
from rpc_worker import RpcWorker

from synaptic.backends.distributed.workers.protocol import Endpoint, ProtocolVersion
from synaptic.backends.distributed.workers.registry import Worker, WorkerRegistry
from synaptic.backends.distributed.workers.who_talks import open_links
from synaptic.backends.distributed.workers.worker_check import ENGINE, WorkerState, check_worker, check_workers, verdict
from synaptic.backends.distributed.workers.worker_facts import recall
from synaptic.errors import ExitCode, UsageError

V6, V7 = ProtocolVersion(6, 0, 0), ProtocolVersion(7, 0, 0)


async def test_a_worker_that_is_well():
    with RpcWorker() as worker:
        endpoint = local(worker.port)
        look = await check_worker(endpoint)
    assert (look.state, look.well, look.fresh, look.reason) == (WorkerState.OK, True, True, "")
    assert look.known is not None
    assert look.known.facts.version == V7
    assert recall(endpoint) == look.known
    assert WorkerRegistry().holders() == [], "a check gives back what it held"


async def test_a_worker_that_is_recorded_as_held_is_not_contacted():
    with RpcWorker() as worker:
        endpoint = local(worker.port)
        before = (await check_worker(endpoint)).known
        WorkerRegistry().claim([Worker(endpoint, ("127.0.0.1",))], "the coordinator of big:70b")
        for name in ("127.0.0.1", "localhost"):
            look = await check_worker(Endpoint(name, worker.port))
            assert look.state is WorkerState.HELD
            assert "held by the coordinator of big:70b (process" in look.reason
            assert not look.fresh
        assert worker.connections == 1
        assert (await check_worker(endpoint)).known == before, "what was known is still shown"


async def test_a_worker_that_somebody_talks_to_is_not_contacted():
    """A coordinator that was started by hand is in no registry, but its connection is there to see."""
    with RpcWorker() as worker:
        with holding(worker.port):
            if not list(open_links()):
                pytest.skip("this system shows connections to root only")
            for name in ("127.0.0.1", "localhost"):
                look = await check_worker(Endpoint(name, worker.port))
                assert look.state is WorkerState.HELD
                assert "is connected to it; it was not contacted" in look.reason
        assert worker.connections == 1
        assert (await check_worker(local(worker.port))).well


async def test_two_checks_of_one_worker_take_turns():
    with RpcWorker() as worker:
        endpoints = [local(worker.port), Endpoint("localhost", worker.port)]
        looks = await check_workers([*endpoints, *endpoints])
    assert [look.state for look in looks] == [WorkerState.OK] * 4
    assert worker.connections == 4


async def test_every_way_not_to_be_well():
    with (
        RpcWorker() as well,
        RpcWorker(faults={"ACCEPT": "silent"}) as silent,
        RpcWorker(faults={"ACCEPT": "http"}) as web,
        RpcWorker((6, 0, 0)) as old,
        RpcWorker((8, 0, 0)) as new,
    ):
        ports = [well.port, silent.port, web.port, old.port, new.port, free_port()]
        endpoints = [*map(local, ports), Endpoint("no-such-host.invalid", 1)]
        looks = await check_workers(endpoints, engine=V7, limits=QUICK)
    assert [look.state for look in looks] == [
        WorkerState.OK,
        WorkerState.SILENT,
        WorkerState.PROTOCOL,
        WorkerState.MISMATCH,
        WorkerState.UNKNOWN_VERSION,
        WorkerState.UNREACHABLE,
        WorkerState.UNREACHABLE,
    ]
    assert all(look.reason and look.hint for look in looks[1:])
    assert all(str(look.endpoint) in look.reason for look in looks[1:])


@pytest.mark.parametrize("version", [(6, 0, 0), (7, 1, 0), (7, 0, 9)], ids=str)
async def test_a_version_other_than_the_engines(version: tuple[int, int, int]):
    with RpcWorker(version) as worker:
        (look,) = await check_workers([local(worker.port)], engine=V7)
    assert look.state is WorkerState.MISMATCH
    assert str(ProtocolVersion(*version)) in look.reason
    assert f"{ENGINE} 7.0.0" in look.reason
    assert look.fresh


async def test_without_an_engine_the_most_usual_version_decides():
    with RpcWorker((6, 0, 0)) as odd, RpcWorker() as one, RpcWorker() as other:
        looks = await check_workers([local(worker.port) for worker in (odd, one, other)])
    assert [look.state for look in looks] == [WorkerState.MISMATCH, WorkerState.OK, WorkerState.OK]
    assert "6.0.0" in looks[0].reason
    assert "7.0.0" in looks[0].reason


async def test_measured():
    with RpcWorker() as one, RpcWorker((6, 0, 0)) as other:
        looks = await check_workers([local(one.port), local(other.port)], measured=True)
    for look in looks:
        assert look.known is not None
        assert look.known.measurement is not None
        assert look.known.measured_at is not None


async def test_the_exit_code_tells_how_many_are_well():
    with RpcWorker() as worker:
        well = await check_worker(local(worker.port))
    down = await check_worker(local(free_port()))
    assert verdict([well, well]) is ExitCode.ANSWERED
    assert verdict([well, down]) is ExitCode.FAILED
    assert verdict([down, down]) is ExitCode.NO_BACKEND


async def test_a_registry_that_cannot_be_read_stops_everything():
    from synaptic import paths

    file = paths.worker_registry_file()
    file.parent.mkdir(parents=True)
    file.write_text("{")
    with RpcWorker() as worker:
        with pytest.raises(UsageError, match="does not say who holds"):
            await check_workers([local(worker.port)] * 2)
        assert worker.connections == 0


async def test_a_cancelled_check_gives_the_worker_back():
    with RpcWorker(faults={"HELLO": "silent"}) as worker:
        task = asyncio.create_task(check_workers([local(worker.port)]))
        async with asyncio.timeout(PATIENCE):
            while "HELLO" not in worker.names:
                await asyncio.sleep(0.01)
        assert [holder.by for holder in WorkerRegistry().holders()] == ["workers check"]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert WorkerRegistry().holders() == []


async def test_a_listener_that_is_no_worker_and_never_speaks():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        look = await check_worker(local(listener.getsockname()[1]), limits=QUICK)
    assert look.state is WorkerState.SILENT
    assert "a worker serves one at a time" in (look.hint or "")
