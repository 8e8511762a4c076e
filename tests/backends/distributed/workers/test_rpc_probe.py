"""Probing workers of every version, and everything else that may listen at a port, over real sockets."""

import asyncio
import os
import signal
import socket
import sys

import pytest
from rpc_support import HELLO, PATIENCE, QUICK, free_port, holding, local, stand_in_process
from rpc_worker import GIB, RpcWorker

from synaptic.backends.distributed.workers.probe import DEFAULT_LIMITS, Device, ProbeLimits, probe
from synaptic.backends.distributed.workers.protocol import Endpoint
from synaptic.errors import BackendBusy, BackendError, BackendUnavailable, ProtocolError

VERSIONS = [
    *((0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0), (3, 5, 0), (3, 6, 1), (4, 0, 0), (4, 0, 3)),
    *((5, 0, 0), (5, 1, 0), (6, 0, 0), (7, 0, 0), (7, 0, 9), (7, 1, 0)),
]


@pytest.mark.parametrize("version", VERSIONS, ids=str)
async def test_a_worker_of_every_version(version: tuple[int, int, int]):
    with RpcWorker(version, devices=((3 * GIB, 8 * GIB),)) as worker:
        facts = await probe(local(worker.port))
    assert facts.version == version
    (device,) = facts.devices
    assert device == Device(index=0, memory_free=3 * GIB, memory_total=8 * GIB, alignment=64, max_size=2**64 - 1)
    assert not device.memory_is_doubtful
    assert 0 < facts.round_trip < PATIENCE
    assert worker.connections == (1 if version[0] >= 4 else 2 if version[0] else 3)


@pytest.mark.parametrize("version", [(3, 0, 0), (6, 0, 0), (7, 0, 0)], ids=str)
async def test_several_devices(version: tuple[int, int, int]):
    memories = ((1 * GIB, 8 * GIB), (24 * GIB, 24 * GIB), (0, 2 * GIB))
    with RpcWorker(version, devices=memories) as worker:
        facts = await probe(local(worker.port))
    assert [(device.memory_free, device.memory_total) for device in facts.devices] == list(memories)
    assert [device.memory_is_doubtful for device in facts.devices] == [False, True, False]


async def test_of_a_version_that_nobody_knows_only_the_greeting_is_believed():
    with RpcWorker((8, 0, 0)) as worker:
        facts = await probe(local(worker.port))
    assert (facts.version, facts.devices) == ((8, 0, 0), ())
    assert worker.names == ["HELLO"]


async def test_a_worker_is_there_for_the_next_one_after():
    with RpcWorker() as worker:
        for _ in range(3):
            assert (await probe(local(worker.port))).version == (7, 0, 0)


# -- what is no worker -------------------------------------------------------------------------------------------------


async def failure(endpoint: Endpoint, kind: type[BackendError], limits: ProbeLimits = QUICK) -> BackendError:
    with pytest.raises(kind) as caught:
        await probe(endpoint, limits=limits)
    assert caught.value.message.startswith(str(endpoint))
    assert caught.value.node == str(endpoint)
    assert caught.value.hint
    return caught.value


async def test_nothing_listens():
    error = await failure(local(free_port()), BackendUnavailable)
    assert "refuses the connection" in error.message
    assert "synaptic workers start" in (error.hint or "")


async def test_a_name_that_does_not_resolve():
    error = await failure(Endpoint("no-such-host.invalid", 50052), BackendUnavailable, DEFAULT_LIMITS)
    assert "name no-such-host.invalid" in error.message


async def test_an_address_of_ipv6():
    error = await failure(Endpoint("[::1]", 50052), BackendUnavailable)
    assert "IPv4 only" in error.message


async def test_a_queue_that_is_full_is_a_connection_that_does_not_come():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(8)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        error = await failure(
            local(listener.getsockname()[1]),
            BackendError,
            ProbeLimits(connect=0.3, answer=0.3),  # Linux answers some of them
        )
        for client in waiting:
            client.close()
    assert isinstance(error, BackendUnavailable | BackendBusy)
    assert "coordinator" in (error.hint or "")


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        ("silent", BackendBusy, "does not answer HELLO within 0.3 s"),
        ("close", ProtocolError, "closes the connection, however it is greeted"),
        ("http", ProtocolError, "is no RPC worker: it answers 'HTTP/1.1'"),
        ("ssh", ProtocolError, "is no RPC worker: it answers 'SSH-2.0-'"),
    ],
)
async def test_what_is_no_worker_at_all(fault: str, kind: type[BackendError], said: str):
    with RpcWorker(faults={"ACCEPT": fault}) as worker:
        error = await failure(local(worker.port), kind)
    assert said in error.message
    if fault == "silent":
        assert "is another coordinator connected to it? a worker serves one at a time" in (error.hint or "")


@pytest.mark.parametrize("command", ["HELLO", "DEVICE_COUNT", "GET_DEVICE_MEMORY", "GET_ALIGNMENT", "GET_MAX_SIZE"])
@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        ("silent", BackendBusy, "does not answer {command} within 0.3 s"),
        ("slow", BackendBusy, "does not answer {command} within 0.3 s"),
        ("garbage", ProtocolError, "answers {command} with"),
        ("length", ProtocolError, "answers {command} with 1099511627776 bytes"),
        ("short", ProtocolError, "closed the connection at {command}, after"),
        ("header", ProtocolError, "closed the connection at {command}, after 2 bytes of the"),
        ("close", ProtocolError, "closed the connection at {command}, without an answer"),
    ],
)
async def test_every_answer_may_be_wrong(command: str, fault: str, kind: type[BackendError], said: str):
    with RpcWorker(faults={command: fault}) as worker:
        error = await failure(local(worker.port), kind)
    if (command, fault) == ("HELLO", "close"):
        said = "however it is greeted"
    assert said.format(command=command) in error.message


@pytest.mark.parametrize("count", [0, 65, 2**32 - 1])
async def test_a_number_of_devices_that_cannot_be(count: int):
    with RpcWorker(says={"DEVICE_COUNT": count.to_bytes(4, "little")}) as worker:
        error = await failure(local(worker.port), ProtocolError)
    assert f"{count} devices" in error.message


async def test_a_worker_that_answers_slowly_has_an_end():
    devices = ((GIB, GIB),) * 60
    with RpcWorker(devices=devices, faults={"GET_MAX_SIZE": "slow"}) as worker:
        error = await failure(local(worker.port), BackendBusy, ProbeLimits(answer=PATIENCE, whole=0.5))
    assert "0.5 s were not enough" in error.message


async def test_a_greeting_that_contradicts_itself():
    with RpcWorker(says={"HELLO": bytes([3, 0, 0]) + bytes(25)}) as worker:
        error = await failure(local(worker.port), ProtocolError)
    assert "speaks RPC 3.0.0, in the greeting of another version" in error.message


# -- nothing is left behind, nobody is killed --------------------------------------------------------------------------


async def test_cancelling_closes_the_connection():
    with RpcWorker(faults={"GET_MAX_SIZE": "silent"}) as worker:
        task = asyncio.create_task(probe(local(worker.port)))
        while "GET_MAX_SIZE" not in worker.names:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        worker.faults.clear()
        assert (await probe(local(worker.port))).version == (7, 0, 0)  # it has noticed, and takes the next one


async def test_the_stand_in_dies_as_the_real_one_does():
    """The danger is real: who greets a worker that is held, and hangs up, kills it when it is free again."""
    with stand_in_process() as worker:
        with holding(worker.port), socket.create_connection(("127.0.0.1", worker.port)) as careless:
            careless.sendall(HELLO)
        assert worker.returncode_within(PATIENCE) == -signal.SIGPIPE


async def test_a_held_worker_survives_a_probe_all_the_same():
    with stand_in_process() as worker:
        with holding(worker.port):
            await failure(local(worker.port), BackendBusy)
        assert (await probe(local(worker.port))).version == (7, 0, 0)
        assert worker.process.poll() is None


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
async def test_a_held_worker_survives_a_prober_that_is_killed(end: signal.Signals):
    program = (
        "import asyncio, sys\n"
        "from synaptic.backends.distributed.workers import probe as p\n"
        "from synaptic.backends.distributed.workers.protocol import Endpoint\n"
        "asyncio.run(p.probe(Endpoint('127.0.0.1', int(sys.argv[1])), limits=p.ProbeLimits(answer=60)))\n"
    )
    with stand_in_process() as worker:
        with holding(worker.port):
            prober = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", program, str(worker.port)), stderr=asyncio.subprocess.DEVNULL
            )
            while not connected(prober.pid, worker.port):
                assert prober.returncode is None
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.1)  # the greeting follows at once
            os.kill(prober.pid, end)
            async with asyncio.timeout(PATIENCE):
                assert await prober.wait() != 0
        assert (await probe(local(worker.port))).version == (7, 0, 0)
        assert worker.process.poll() is None


def connected(pid: int, port: int) -> bool:
    import psutil

    connections = psutil.Process(pid).net_connections("tcp4")
    return any(one.raddr and one.raddr[1] == port and one.status == "ESTABLISHED" for one in connections)
