"""A worker over a real sshd of this host, whose connection breaks under it."""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from real_distributed import engine_in_home  # noqa: F401 - a fixture
from rpc_support import free_port
from ssh_server import NEEDS_SSHD, SshServer, near_server

from synaptic import cluster
from synaptic.backends.distributed import current_engine
from synaptic.messages import BackendNotice

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


async def test_a_worker_whose_connection_breaks_comes_back(near: SshServer):
    machine = cluster.Machine(name="near", host=near.address, port=near.port, local_port=free_port(), threads=1)
    with pytest.raises(cluster.UnknownHostKey) as unknown:
        async with cluster.connected(machine):
            pass
    cluster.trust(unknown.value)
    back = asyncio.Event()
    said: list[str] = []

    def report(news: object) -> None:
        assert isinstance(news, BackendNotice)
        said.append(news.message)
        if news.message == "near is back":
            back.set()

    worker = cluster.RemoteWorker(machine, await current_engine(), report)
    await worker.start()
    try:
        await asyncio.to_thread(end_connections)
        async with asyncio.timeout(PATIENCE):
            await back.wait()
        _, writer = await asyncio.open_connection("127.0.0.1", machine.local_port)
        writer.close()
    finally:
        await worker.aclose()
    assert "it is tried again" in said[0]
