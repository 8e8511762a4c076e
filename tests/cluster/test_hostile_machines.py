"""Machines that mean no good: a real SSH server that lets us in, and then lies, floods, or says nothing."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import asyncssh
import pytest

from synaptic import cluster
from synaptic.cluster import ray_workers
from synaptic.cluster import ssh as ssh_module
from synaptic.cluster.looking import look_at_machine, look_for_ollama
from synaptic.cluster.machine_list import Machine
from synaptic.cluster.ray_cluster import RayNode
from synaptic.errors import BackendUnavailable
from synaptic.messages import ignore_report
from synaptic.processes import free_port
from synaptic.settings.load import Settings
from synaptic.ui.actions.machines import facts_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Answer = Callable[[asyncssh.SSHServerProcess[bytes]], Awaitable[None]]

pytestmark = pytest.mark.usefixtures("own_home")


class Anybody(asyncssh.SSHServer):
    """Lets everybody in, and connects to nothing but what it likes to say itself."""

    def begin_auth(self, username: str) -> bool:
        return False

    def connection_requested(self, *_: object) -> Any:
        """Say what no Ollama says, and never end."""

        async def say(reader: Any, writer: Any) -> None:
            writer.write(b'HTTP/1.1 200 OK\r\n\r\n{"version": "1\\u001b]0;owned\\u0007' + b"9" * 30_000 + b'"}')

        return say


@asynccontextmanager
async def hostile(answer: Answer) -> AsyncIterator[tuple[Machine, asyncssh.SSHClientConnection]]:
    """Give a machine whose every command is answered so, and a connection to it."""
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=Anybody,
        server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        process_factory=answer,
        encoding=None,
    )
    machine = Machine(name="liar", host="127.0.0.1", port=server.get_port(), local_port=free_port())
    try:
        with pytest.raises(cluster.UnknownHostKey) as unknown:
            async with cluster.connected(machine):
                pass
        cluster.trust(unknown.value)
        async with cluster.connected(machine) as connection:
            yield machine, connection
    finally:
        server.close()
        await server.wait_closed()


def says(text: bytes) -> Answer:
    async def answer(process: asyncssh.SSHServerProcess[bytes]) -> None:
        process.stdout.write(text)
        process.exit(0)

    return answer


async def floods(process: asyncssh.SSHServerProcess[bytes]) -> None:
    with suppress(asyncssh.Error, ConnectionError):
        while True:
            process.stdout.write(b"memory=1\n" * 10_000)
            await process.stdout.drain()


async def is_silent(process: asyncssh.SSHServerProcess[bytes]) -> None:
    with suppress(asyncssh.Error):
        await process.stdin.read()
        await asyncio.Event().wait()


LIES = b"""system=Linux \x1b]0;owned\x07\x1b[2J x86_64
processors=%s
processor=\xff\x1b[31m%s
memory=%s
free=1%s
disk=\xd9\xa1\xd9\xa2
graphics=%s
home=/home/\x1b[2Jliar
""" % (b"9" * 9, b"long " * 5000, b"9" * 5000, b"0" * 400, b"\x1b[5m," * 3000)


async def test_what_a_machine_says_of_itself_is_bounded_and_can_be_shown() -> None:
    async with hostile(says(LIES)) as (machine, connection):
        facts = await look_at_machine(machine, connection)
        assert facts.processors == 1024
        assert (facts.memory_bytes, facts.free_bytes) == (0, 0)
        line = facts_line(facts)
        assert line.isprintable()
        assert len(line) < 2000
        assert (await look_for_ollama(machine, connection, 11434) or "").isprintable()


async def test_a_machine_that_never_stops_talking_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_module, "MOST_SAID", 1 << 16)
    async with hostile(floods) as (machine, connection):
        with pytest.raises(BackendUnavailable, match="says more than"):
            await look_at_machine(machine, connection)


async def test_a_machine_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_module, "SHELL_SECONDS", 0.3)
    async with hostile(is_silent) as (machine, connection):
        with pytest.raises(BackendUnavailable, match="does not answer"):
            await look_at_machine(machine, connection)


async def test_a_server_that_never_shows_its_key_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_module, "LOGIN_SECONDS", 0.3)
    taken: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: taken.append(writer), "127.0.0.1", 0)
    machine = Machine(name="mute", host="127.0.0.1", port=server.sockets[0].getsockname()[1], local_port=free_port())
    async with server:
        with pytest.raises(BackendUnavailable, match="does not answer"):
            async with cluster.connected(machine):
                pass
        for writer in taken:
            writer.close()


@pytest.mark.parametrize("name", ["../../../evil", "/etc/x", "a\nb\x1b[2J", "x" * 300])
async def test_no_name_of_a_ray_node_leads_out_of_the_folder_of_logs(name: str) -> None:
    """Whoever starts a node names it, and what its worker says is written into a file of that name."""
    workers = ray_workers.RayWorkers(Settings(), ignore_report)
    worker = workers._worker(RayNode("id", name, 1), None)  # type: ignore[arg-type]
    await worker.aclose()
    logs = Machine(name="a", host="a", local_port=1).log_file.parent
    assert worker.log_file.resolve().parent == logs.resolve()
    assert worker.machine.name.isprintable()
    assert len(worker.log_file.name) < 100


async def test_the_door_refuses_every_name_without_the_token() -> None:
    port = free_port()
    machine = Machine(
        name="attic", host="127.0.0.1", port=free_port(), local_port=free_port(), reverse=f"127.0.0.1:{port}"
    )
    async with cluster.through_door(machine, token="0" * 32, within=0):
        for user in ("attic", "attic.", "attic." + "0" * 31, "attic." + "0" * 33, "ättic." + "0" * 32, "root"):
            with pytest.raises(asyncssh.PermissionDenied):
                await asyncssh.connect(
                    "127.0.0.1",
                    port,
                    username=user,
                    known_hosts=None,
                    config=None,
                    client_keys=[asyncssh.generate_private_key("ssh-ed25519")],
                )
