"""A worker over a real sshd of this host, whose connection breaks under it."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from real_distributed import engine_in_home  # noqa: F401 - a fixture
from rpc_support import free_port
from ssh_server import NEEDS_SSHD, SshServer, near_server, running

from synaptic import cluster
from synaptic.backends.distributed import current_engine
from synaptic.backends.distributed.workers import Fleet
from synaptic.backends.distributed.workers.protocol import greetings
from synaptic.cluster.forwarding import forwarded
from synaptic.errors import UsageError
from synaptic.messages import BackendNotice
from synaptic.settings import Settings

pytestmark = [NEEDS_SSHD, pytest.mark.real_model, pytest.mark.usefixtures("engine_here")]

PATIENCE = 60.0


@pytest.fixture
def near(tmp_path: Path, own_home: Path) -> Iterator[SshServer]:
    with near_server(tmp_path / "near") as server:
        yield server


def end_connections() -> None:
    """Kill what sshd has for connections that are logged in."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.name().startswith("sshd") and process.ppid() != os.getpid():
                process.kill()


async def known(near: SshServer) -> cluster.Machine:
    """Return the machine, once its key is trusted."""
    machine = cluster.Machine(name="near", host=near.address, port=near.port, local_port=free_port(), threads=1)
    with pytest.raises(cluster.UnknownHostKey) as unknown:
        async with cluster.connected(machine):
            pass
    cluster.trust(unknown.value)
    return machine


async def answers(port: int) -> bool:
    """Return whether a worker greets whoever greets it there."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    greeting = greetings()[0]
    writer.write(greeting.frame())
    try:
        async with asyncio.timeout(PATIENCE):
            return bool(await reader.read(1))
    finally:
        writer.close()


class Heard:
    """What is reported, and whether the machine is back."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.back = asyncio.Event()

    def __call__(self, news: object) -> None:
        assert isinstance(news, BackendNotice)
        self.said.append(news.message)
        if news.message in {"near is back", "near is reached now"}:
            self.back.set()


async def test_a_worker_whose_connection_breaks_comes_back(near: SshServer):
    machine, heard = await known(near), Heard()
    worker = cluster.RemoteWorker(machine, await current_engine(), heard)
    await worker.start()
    try:
        await asyncio.to_thread(end_connections)
        async with asyncio.timeout(PATIENCE):
            await heard.back.wait()
        assert await answers(machine.local_port)
    finally:
        await worker.aclose()
    assert "it is tried again" in heard.said[0]


async def test_who_connects_and_leaves_before_the_worker_is_reached_does_not_keep_it(near: SshServer):
    machine = await known(near)
    worker = cluster.RemoteWorker(machine, await current_engine())
    await worker.start()
    try:
        for _ in range(3):  # closed before the event loop has even seen it
            with socket.create_connection(("127.0.0.1", machine.local_port)) as given_up:
                given_up.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # as a kill does it
        assert await answers(machine.local_port)
    finally:
        await worker.aclose()


async def test_a_port_that_nothing_listens_at_there_closes_at_once(near: SshServer):
    machine = await known(near)
    async with cluster.connected(machine) as connection, forwarded(connection, 0, free_port()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()


async def test_what_is_sent_through_a_slow_reader_arrives_whole_and_in_order(near: SshServer):
    sent = os.urandom(8 << 20)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while some := await reader.read(1 << 16):
            writer.write(some)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    machine = await known(near)
    there = server.sockets[0].getsockname()[1]
    async with server, cluster.connected(machine) as connection, forwarded(connection, 0, there) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            await writer.drain()  # nothing is read meanwhile: all buffers on the way fill, and hold the other end
            assert await reader.read() == sent
        writer.close()


async def test_an_end_that_is_killed_in_mid_stream_costs_no_word_on_the_terminal(
    near: SshServer, caplog: pytest.LogCaptureFixture
):
    gone = asyncio.Event()

    async def stream(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(bytes(1 << 16))
                await writer.drain()
        gone.set()

    server = await asyncio.start_server(stream, "127.0.0.1", 0)
    machine = await known(near)
    there = server.sockets[0].getsockname()[1]
    async with server, cluster.connected(machine) as connection, forwarded(connection, 0, there) as port:
        for _ in range(5):
            gone.clear()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await reader.readexactly(1 << 20)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            async with asyncio.timeout(PATIENCE):
                await gone.wait()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


async def test_a_port_that_another_program_has_is_told(near: SshServer):
    machine = await known(near)
    with socket.create_server(("127.0.0.1", machine.local_port)):
        worker = cluster.RemoteWorker(machine, await current_engine())
        with pytest.raises(UsageError, match="another program here uses near"):
            await worker.start()


async def test_a_machine_that_is_off_at_the_start_is_used_once_it_is_on(tmp_path: Path, own_home: Path):
    with near_server(tmp_path / "near") as server:
        machine = await known(server)
        cluster.keep(machine)
    heard = Heard()
    fleet = Fleet(Settings(local_workers=0), heard)
    try:
        assert await fleet.offers() == []
        assert "it is tried again" in heard.said[0]
        (why,) = fleet.unreached()
        assert why in heard.said[0].replace("; it is tried again", "")
        with running(server):
            async with asyncio.timeout(PATIENCE):
                await heard.back.wait()
            (offer,) = await fleet.offers()
            assert not offer.refusal
            assert offer.endpoint == ("127.0.0.1", machine.local_port)
            assert fleet.unreached() == []
    finally:
        await fleet.aclose()
    assert heard.said[1] == "near is reached now"


async def test_what_a_person_has_to_see_to_is_not_tried_again(near: SshServer):
    machine = await known(near)
    (Path.home() / ".ssh" / "known_hosts").write_text("")
    cluster.keep(machine)
    heard = Heard()
    lent = cluster.LentMachines(Settings(), heard)
    try:
        await lent.start(await current_engine())
        assert lent.reached() == []
    finally:
        await lent.aclose()
    (said,) = heard.said
    assert "is not known yet" in said
    assert "again" not in said
