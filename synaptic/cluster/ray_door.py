"""An SSH server on a node of a Ray cluster, for the one program that ordered it, and ended with that.

Ray brings us onto its machines; from there on they are machines like all others: what is done over SSH, in an
encrypted connection to which nobody else has the key, is the same. Keys are made anew for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Final

import asyncssh

from synaptic.cluster.door import ALIVE_EVERY, ALIVE_MISSED, KEY
from synaptic.cluster.ray_cluster import end_actor, start_actor
from synaptic.cluster.ssh import said, until_left, usual_options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from synaptic.cluster.machine_list import Machine
    from synaptic.cluster.ray_cluster import RayNode

_PIECE: Final = 1 << 16
"""Bytes that are passed on at a time."""


@asynccontextmanager
async def connected_by_ray(node: RayNode, machine: Machine) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """Give a connection to a node of the cluster for the time of a block: an actor there listens for it.

    Args:
        node: Where.
        machine: What it is to us; its `memory_gib` is reserved for the actor.

    Raises:
        BackendUnavailable: If the node is gone, has too little memory left, or is not reached.
    """
    key = asyncssh.generate_private_key(KEY)
    guest = key.export_public_key().decode()
    actor = await start_actor(SshDoor, node, guest, memory_gib=machine.memory_gib)
    try:
        host, port, host_key = await actor.open.remote()
        with said(replace(machine, host=host, port=port)):
            known: tuple[list[asyncssh.SSHKey], ...] = ([asyncssh.import_public_key(host_key)], [], [])
            connection = await asyncssh.connect(
                host, port, config=None, client_keys=[key], known_hosts=known, **usual_options()
            )
        async with until_left(connection):
            yield connection
    finally:
        end_actor(actor)


class SshDoor:
    """The actor.

    Args:
        guest: The public key of who may come in, in OpenSSH's format.
    """

    def __init__(self, guest: str) -> None:
        self._guest = guest
        self._server: asyncssh.SSHAcceptor | None = None

    async def open(self) -> tuple[str, int, str]:
        """Listen at the node's address, and return that, the port, and the public key of the server."""
        key = asyncssh.generate_private_key(KEY)
        address: str = import_module("ray").util.get_node_ip_address()
        self._server = await open_door(address, key, self._guest)
        return address, self._server.get_port(), key.export_public_key().decode()


async def open_door(address: str, key: asyncssh.SSHKey, guest: str) -> asyncssh.SSHAcceptor:
    """Listen at an address, with a key, for one guest, who may run commands and reach the loopback."""
    return await asyncssh.listen(
        address,
        0,
        server_factory=_Guarded,
        server_host_keys=[key],
        authorized_client_keys=asyncssh.import_authorized_keys(guest),
        process_factory=_carry_out,
        encoding=None,
        keepalive_interval=ALIVE_EVERY,
        keepalive_count_max=ALIVE_MISSED,
    )


class _Guarded(asyncssh.SSHServer):
    """Lets the guest reach the loopback of the node, where its worker listens, and nothing else."""

    def connection_requested(self, dest_host: str, *_: object) -> bool:
        """Return whether a connection is made from here."""
        return dest_host == "127.0.0.1"


async def _carry_out(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """Run what was ordered; all of it ends with its channel.

    An error in what `redirect` does by itself would break the connection, with all that goes on over it: hence neither
    stream closes the channel to the other, all that is written is waited for before the exit, and what comes for a
    program that has ended is left out.
    """
    loop = asyncio.get_running_loop()
    running, child = await loop.subprocess_exec(
        lambda: _Child(_PIECE, loop), "sh", "-c", process.command or "exit 0", start_new_session=True
    )
    feeding = asyncio.create_task(_feed(process.stdin, child.stdin))
    try:
        await process.redirect(stdout=child.stdout, stderr=child.stderr, send_eof=False)
        await child.exited.wait()
    finally:
        feeding.cancel()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.get_pid(), signal.SIGKILL)
    await process.stdout.drain()
    await process.stderr.drain()
    process.exit(running.get_returncode() or 0)


class _Child(asyncio.subprocess.SubprocessStreamProtocol):
    """Tells the end of a process itself: `wait` waits for its pipes, too, which what goes on behind it may hold."""

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit, loop)
        self.exited = asyncio.Event()

    def process_exited(self) -> None:
        """Be told so by the event loop."""
        super().process_exited()
        self.exited.set()


async def _feed(coming: asyncssh.SSHReader[bytes], stdin: asyncio.StreamWriter | None) -> None:
    """Give a program what comes for it, as long as it takes that."""
    assert stdin is not None  # it is a pipe
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while piece := await coming.read(_PIECE):
            stdin.write(piece)
            await stdin.drain()
        stdin.close()
