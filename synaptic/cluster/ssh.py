"""SSH connections: whose key is known, who logs in, and what an error means. ``asyncssh`` does the protocol."""

from __future__ import annotations

import asyncio
import shlex
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncssh

from synaptic.cluster.door import ALIVE_EVERY, ALIVE_MISSED, through_door
from synaptic.cluster.machine_list import SSH_PORT
from synaptic.errors import BackendUnavailable, UsageError
from synaptic.processes import replace_file
from synaptic.text import size

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from synaptic.cluster.machine_list import Machine

BACKEND: Final = "distributed"
LOGIN_SECONDS: Final = 20.0
FAST_CIPHERS: Final = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
"""Asked for before the others: twice as many bytes a second of a processor as asyncssh's own first one (ChaCha20)."""
SHELL_SECONDS: Final = 120.0
"""For a script of ours there, besides what it takes to send it something."""
SLOWEST: Final = 20_000
"""Bytes a second that a machine takes at least."""
MOST_SAID: Final = 1 << 20
"""Bytes that a script of ours says at most: they all say a few lines, and who says more means no good."""
SILENCE: Final = ALIVE_EVERY * ALIVE_MISSED
"""Seconds without a word of ours after which what we started there ends."""


class UnknownHostKey(UsageError):
    """A machine shows a key that this account has not seen yet.

    Attributes:
        fingerprint: Of the key, as ``ssh`` shows it: ``SHA256:…``.
        line: What is added to ``known_hosts`` once a person trusts it.
    """

    def __init__(self, machine: Machine, fingerprint: str, line: str) -> None:
        super().__init__(
            f"the key of {machine.host} is not known yet: {fingerprint}",
            hint=f"compare it with what the machine itself says (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub "
            f"there), and write --fingerprint {fingerprint}",
        )
        self.fingerprint = fingerprint
        self.line = line


@asynccontextmanager
async def connected(machine: Machine) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """Give a connection to a machine for the time of a block.

    Raises:
        UnknownHostKey: If its key was not trusted yet.
        BackendUnavailable: If it is not reached, shows another key than before, or does not let us in.
    """
    async with through_door(machine):
        with said(machine):
            await _check_key(machine)
            connection = await asyncssh.connect(machine.host, **_options(machine), known_hosts=str(_known_hosts_file()))
        async with until_left(connection):
            yield connection


@asynccontextmanager
async def until_left(connection: asyncssh.SSHClientConnection) -> AsyncIterator[None]:
    """End a connection with a block, whatever is under way in it."""
    try:
        yield
    finally:
        connection.abort()
        await connection.wait_closed()


def trust(unknown: UnknownHostKey) -> None:
    """Have a key known from now on, as ``ssh`` does.

    Raises:
        UsageError: If ``known_hosts`` cannot be written.
    """
    file = _known_hosts_file()
    try:
        file.parent.mkdir(mode=0o700, exist_ok=True)
        before = file.read_bytes() if file.exists() else b""
        joint = b"" if not before or before.endswith(b"\n") else b"\n"
        replace_file(file, before + joint + unknown.line.encode() + b"\n")
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from error


@contextmanager
def said(machine: Machine) -> Iterator[None]:
    """Say what the errors of a block mean.

    Raises:
        BackendUnavailable: For what SSH and the network raise in it.
    """
    try:
        yield
    except asyncssh.HostKeyNotVerifiable as error:
        raise _changed_key(machine) from error
    except asyncssh.PermissionDenied as error:
        user = machine.user or "you"
        raise _failed(
            machine,
            f"does not let {user} in: {error.reason}",
            "put your public key there (ssh-copy-id), have an agent with it (ssh-add), or name its file: --identity",
        ) from error
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise _failed(
            machine, f"cannot be asked with that key: {error}", "a key with a passphrase goes into the agent: ssh-add"
        ) from error
    except TimeoutError as error:
        raise _failed(machine, "does not answer", "is it on, and is its SSH server reached from here?") from error
    except (asyncssh.Error, OSError) as error:
        reason = getattr(error, "reason", "") or getattr(error, "strerror", "") or str(error) or type(error).__name__
        raise _failed(machine, f"is not reached: {reason}", f"try it yourself: ssh {machine.shown}") from error


async def shell(
    connection: asyncssh.SSHClientConnection, script: str, *arguments: str, stdin: bytes = b""
) -> tuple[int, str]:
    """Return the exit code of a POSIX shell script there, and what it said.

    Raises:
        asyncssh.ProtocolError: If it says more than such scripts do.
        TimeoutError: If it does not end.
        asyncssh.Error: If the connection breaks.
    """
    words = shell_words(script, *arguments)
    async with asyncio.timeout(SHELL_SECONDS + len(stdin) / SLOWEST):
        process = await connection.create_process(words, encoding=None, stderr=asyncssh.STDOUT)
        try:
            with suppress(BrokenPipeError):  # it has ended without reading that
                process.stdin.write(stdin)
                process.stdin.write_eof()
            told = bytearray()
            while piece := await process.stdout.read(MOST_SAID):
                told += piece
                if len(told) > MOST_SAID:
                    raise asyncssh.ProtocolError(
                        f"it says more than {size(MOST_SAID)} where a few lines were asked for"
                    )
            await process.wait_closed()
        finally:
            process.close()
    return process.returncode or 0, told.decode(errors="replace")


async def beat(process: asyncssh.SSHClientProcess[str]) -> None:
    """Let a shell there hear of us every few seconds, for ever."""
    while True:
        process.stdin.write("\n")
        await asyncio.sleep(ALIVE_EVERY)


def shell_words(script: str, *arguments: str) -> str:
    """Return the command that runs a POSIX shell script there, whatever the login shell is."""
    return " ".join(shlex.quote(word) for word in ("sh", "-c", script, "sh", *arguments))


def _failed(machine: Machine, what: str, hint: str) -> BackendUnavailable:
    return BackendUnavailable(
        f"{machine.name} ({machine.shown}, port {machine.port}) {what}", hint=hint, backend=BACKEND, node=machine.name
    )


def _changed_key(machine: Machine) -> BackendUnavailable:
    return _failed(
        machine,
        "shows another key than the one that is known: somebody may be in between",
        f"if it was set up anew, remove the old key: ssh-keygen -R {machine.host}",
    )


def usual_options() -> dict[str, Any]:
    """Return the options of every connection of ours: it is given up if nothing comes from it."""
    return {
        "encoding": "utf-8",
        "encryption_algs": FAST_CIPHERS,
        "keepalive_interval": ALIVE_EVERY,
        "keepalive_count_max": ALIVE_MISSED,
        "login_timeout": LOGIN_SECONDS,
        "connect_timeout": LOGIN_SECONDS,
    }


def _options(machine: Machine) -> dict[str, Any]:
    options: dict[str, Any] = {"port": machine.port, **usual_options()}
    if machine.user:
        options["username"] = machine.user
    if machine.identity:
        options["client_keys"] = [str(Path(machine.identity).expanduser())]
    if machine.jump:
        options["tunnel"] = machine.jump
    return options


async def _check_key(machine: Machine) -> None:
    """Refuse a machine of which no key is known, before anything is sent to it; ``connect`` refuses another key."""
    file = _known_hosts_file()
    known = asyncssh.match_known_hosts(str(file), machine.host, "", machine.port) if file.exists() else ((), ())
    if any(known[:2]):
        return
    async with asyncio.timeout(LOGIN_SECONDS):
        key = await asyncssh.get_server_host_key(machine.host, machine.port, tunnel=machine.jump or ())
    if key is None:
        raise _failed(machine, "shows no key", f"try it yourself: ssh {machine.shown}")
    host = machine.host if machine.port == SSH_PORT else f"[{machine.host}]:{machine.port}"
    raise UnknownHostKey(machine, key.get_fingerprint(), f"{host} {key.export_public_key().decode().strip()}")


def _known_hosts_file() -> Path:
    return Path.home() / ".ssh" / "known_hosts"
