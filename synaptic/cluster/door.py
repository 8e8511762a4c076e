"""Machines that we cannot reach, being behind NAT: they connect to a door of ours, and lend their SSH server.

The door is a small SSH server. It lets in one key for each machine, and what that may do is have one port of this
machine's loopback lead to its own SSH server; there is no shell, no file, no other port. It is open while a program of
ours uses the machine. Through that port all goes on as with other machines: we log in there, and not they here.
"""

from __future__ import annotations

import asyncio
import errno
import secrets
import shlex
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import asyncssh

from synaptic import paths
from synaptic.errors import BackendUnavailable, UsageError
from synaptic.processes import own_folder, replace_file
from synaptic.text import reason_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from synaptic.cluster.machine_list import Machine

ALIVE_EVERY: Final = 5
ALIVE_MISSED: Final = 3
"""Keep-alives that may stay without an answer: after 15 s without a sign the connection is over."""
KEY: Final = "ssh-ed25519"
"""The kind of the keys that we make."""
LINK_SECONDS: Final = 20.0
"""How long a machine may take to connect; one that runs the command tries every five seconds."""
_POLL_SECONDS: Final = 0.1
_TOKEN_BYTES: Final = 16
_LOOPBACK: Final = "127.0.0.1"

_open: dict[str, Door] = {}
"""The doors of this process, by where they listen: several connections to a machine go through one."""


class Door:
    """A door for one machine, which may be invited with a token before its key is known.

    Attributes:
        key: The public key that came in, as OpenSSH writes it.
    """

    def __init__(self, machine: Machine, address: str, token: str) -> None:
        self.machine = machine
        self.key = machine.reverse_key
        self.users = 0
        self.host, _, port = address.rpartition(":")
        self.port = int(port)
        self._token = token
        self._server: asyncssh.SSHAcceptor | None = None
        self._inside: set[asyncssh.SSHServerConnection] = set()
        self.listening = asyncio.ensure_future(self._listen())

    async def _listen(self) -> bool:
        """Listen; return false where another program of this machine does."""
        key = await asyncio.to_thread(_host_key)
        try:
            self._server = await asyncssh.listen(
                self.host.strip("[]"),
                self.port,
                server_factory=lambda: _Guard(self),
                server_host_keys=[key],
                keepalive_interval=ALIVE_EVERY,
                keepalive_count_max=ALIVE_MISSED,
                login_timeout=LINK_SECONDS,
                password_auth=False,
                kbdint_auth=False,
                gss_host=None,
                allow_pty=False,
                agent_forwarding=False,
                x11_forwarding=False,
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise UsageError(
                f"{self.machine.name} cannot be let in at {self.host}:{self.port}: {reason_of(error)}",
                hint="name an address of this machine that the other one reaches, and a free port of it",
            ) from error
        return True

    def command(self, *, again: bool = True) -> str:
        """Return the command that a person runs on the machine; with ``again``, in a loop."""
        return reverse_command(self.machine, self._token, again=again)

    def admits(self, user: str, key: asyncssh.SSHKey) -> bool:
        """Return whether that key may come in: the known one, or with the right token a first one."""
        shown = _public(key)
        if self.key is not None:
            return shown == self.key
        invited = f"{self.machine.name}.{self._token}".encode()
        return bool(self._token) and secrets.compare_digest(user.encode(errors="replace"), invited)

    def entered(self, connection: asyncssh.SSHServerConnection, key: asyncssh.SSHKey) -> None:
        """Take note of who came in: from now on, no other key does."""
        self.key = self.key or _public(key)
        self._inside.add(connection)

    def left(self, connection: asyncssh.SSHServerConnection) -> None:
        """Take note that a connection is over."""
        self._inside.discard(connection)

    async def linked(self, within: float) -> None:
        """Return once the machine's SSH server is reached through the door.

        Raises:
            BackendUnavailable: If the machine does not connect in time.
        """
        try:
            async with asyncio.timeout(within):
                while True:
                    if await _accepts(_LOOPBACK, self.machine.port):
                        return
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError as error:
            raise BackendUnavailable(
                f"{self.machine.name} has not connected to {self.host}:{self.port} within {within:.0f} s",
                hint=f"run there, and leave it running: {self.command()}",
                backend="distributed",
                node=self.machine.name,
            ) from error

    async def aclose(self) -> None:
        """Close the door, and what came through it."""
        await asyncio.gather(self.listening, return_exceptions=True)
        for connection in [*self._inside]:
            connection.abort()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()


class _Guard(asyncssh.SSHServer):
    """Decides about one connection."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._key: asyncssh.SSHKey | None = None
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def connection_lost(self, _exc: Exception | None) -> None:
        assert self._connection is not None
        self._door.left(self._connection)

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        self._key = key
        return self._door.admits(username, key)

    def auth_completed(self) -> None:
        assert self._connection is not None
        assert self._key is not None
        self._door.entered(self._connection, self._key)

    def server_requested(self, listen_host: str, listen_port: int) -> bool:
        return listen_host == _LOOPBACK and listen_port == self._door.machine.port


@asynccontextmanager
async def through_door(
    machine: Machine, *, token: str = "", within: float = LINK_SECONDS
) -> AsyncIterator[Door | None]:
    """Have a machine that connects to us be reached for the time of a block; nothing happens for others.

    Args:
        machine: Which.
        token: Lets a first key in.
        within: Seconds that it may take to connect; 0 does not wait.

    Raises:
        UsageError: If it cannot be listened there.
        BackendUnavailable: If the machine does not connect in time.
    """
    address = machine.reverse
    if address is None:
        yield None
        return
    door = _open.get(address)
    if door is None:
        door = _open[address] = Door(machine, address, token)
    door.users += 1
    try:
        await door.listening
        if within:
            await door.linked(within)
        yield door
    finally:
        door.users -= 1
        if not door.users:
            del _open[address]
            await door.aclose()


def new_token() -> str:
    """Return what lets a machine in for the first time; 128 random bits."""
    return secrets.token_hex(_TOKEN_BYTES)


def reverse_command(machine: Machine, token: str = "", *, again: bool = True) -> str:
    """Return the command that connects a machine to us, as a person types it; with ``again``, in a loop."""
    ssh = shlex.join(reverse_words(machine, token))
    return f"while :; do {ssh}; sleep 5; done" if again else ssh


def reverse_words(machine: Machine, token: str = "") -> list[str]:
    """Return the command that connects a machine to us, once: it knows our key, and shows its own."""
    assert machine.reverse is not None
    host, _, port = machine.reverse.rpartition(":")
    plain = host.strip("[]")
    known = f"/bin/echo [{plain}]:{port} {_public(_host_key())}"
    user = f"{machine.name}.{token}" if token else machine.name
    words = ["ssh", "-N", "-p", port, "-R", f"{_LOOPBACK}:{machine.port}:{_LOOPBACK}:{machine.reverse_port}"]
    for option in (
        "ExitOnForwardFailure=yes",
        f"ServerAliveInterval={ALIVE_EVERY}",
        f"ServerAliveCountMax={ALIVE_MISSED}",
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "UserKnownHostsFile=/dev/null",
        f"KnownHostsCommand={known}",
    ):
        words += ["-o", option]
    return [*words, f"{user}@{plain}"]


def _host_key() -> asyncssh.SSHKey:
    """Return the key by which machines know us; it is made once.

    Raises:
        UsageError: If it cannot be read or written.
    """
    file = paths.state_dir() / "door_key"
    try:
        if not file.exists():
            own_folder(file.parent)
            replace_file(file, asyncssh.generate_private_key(KEY).export_private_key())
        return asyncssh.read_private_key(str(file))
    except (OSError, asyncssh.KeyImportError) as error:
        raise UsageError(f"{file}, the key that machines know us by, cannot be used: {error}") from error


def _public(key: asyncssh.SSHKey) -> str:
    """Return kind and content of a public key, without a comment."""
    return " ".join(key.export_public_key().decode().split()[:2])


async def _accepts(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True
