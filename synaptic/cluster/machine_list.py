"""The machines that a person lends: how each is reached, and what of it may be used. No secret is among it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from synaptic import paths
from synaptic.errors import UsageError
from synaptic.processes import only_one, read_json, replace_json, told
from synaptic.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

SSH_PORT: Final = 22
SSH_EXTRA: Final = "pip install 'synapticllamas[cluster]'"
"""What installs asyncssh, with which they are reached."""

_ADDRESS: Final = re.compile(r"(?:(?P<user>[^@\s:]+)@)?(?P<host>\[[^\]\s]+\]|[^@\s:]+)(?::(?P<port>\d{1,5}))?")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A computer that is reached over SSH.

    Attributes:
        name: What it is called here.
        host: Its name or address, or one that ``~/.ssh/config`` knows.
        user: Who logs in there; ``None`` for what SSH would choose.
        port: Of its SSH server.
        identity: The private key's file; ``None`` for the agent and the usual ones.
        jump: The host on the way, as ``ssh -J`` takes it.
        memory_gib: What layers may take there; ``None`` for four fifths of what is free.
        threads: That compute there; ``None`` for all its processors.
        local_port: Where its worker is reached on this machine, through the tunnel. Two programs do not both have it.
        worker: Whether it lends memory to large models.
        ollama_port: Where an Ollama that is used as a node listens on its loopback; ``None`` where none is.
        node_port: Where that is reached on this machine, through the tunnel.
        reverse: Where this machine listens for it, ``HOST:PORT``, if it connects to us; ``host`` and ``port`` are then
            the end of that connection here.
        reverse_key: The public key that it shows.
        reverse_port: Of its SSH server, on its own loopback.
    """

    name: str
    host: str
    user: str | None = None
    port: int = SSH_PORT
    identity: str | None = None
    jump: str | None = None
    memory_gib: float | None = None
    threads: int | None = None
    local_port: int
    worker: bool = True
    ollama_port: int | None = None
    node_port: int | None = None
    reverse: str | None = None
    reverse_key: str | None = None
    reverse_port: int = SSH_PORT

    @property
    def shown(self) -> str:
        """How a person writes it."""
        return f"{self.user}@{self.host}" if self.user else self.host

    @property
    def local_ports(self) -> tuple[int, ...]:
        """The ports of this machine's loopback that are its own."""
        through_door = self.port if self.reverse is not None else None
        return tuple(port for port in (self.local_port, self.node_port, through_door) if port is not None)

    @property
    def log_file(self) -> Path:
        """What its worker said to this machine."""
        return paths.state_dir() / "logs" / f"machine-{self.name}.log"

    @property
    def node_url(self) -> str | None:
        """The address of its Ollama on this machine, while a program here uses it; ``None`` where none is used."""
        return None if self.node_port is None or self.ollama_port is None else f"http://127.0.0.1:{self.node_port}"


def parse_address(text: str) -> tuple[str | None, str, int]:
    """Return user, host and port of ``[user@]host[:port]``.

    Raises:
        UsageError: If it is none.
    """
    match = _ADDRESS.fullmatch(text.strip())
    port = int(match["port"] or SSH_PORT) if match else 0
    if match is None or not 0 < port < 1 << 16 or match["host"].startswith("-"):
        raise UsageError(f"{text!r} is no address of a machine", hint="write user@host, or user@host:2222")
    return match["user"], match["host"].strip("[]"), port


def check_name(text: str) -> str:
    """Return the name of a machine.

    Raises:
        UsageError: If it has other characters than letters, digits, dots, underscores and hyphens.
    """
    if not _NAME.fullmatch(text):
        raise UsageError(f"{text!r} is no name of a machine", hint="letters, digits, '.', '_' and '-', 63 at most")
    return text


def machines() -> list[Machine]:
    """Return the machines that are lent, in the order in which they were added.

    Raises:
        UsageError: If the file that names them cannot be read.
    """
    with _mapped("read"):
        return _read()


def machine(name: str) -> Machine:
    """Return the machine of a name.

    Raises:
        UsageError: If there is none, with the nearest; or if the file cannot be read.
    """
    known = {one.name: one for one in machines()}
    if name not in known:
        raise UsageError(f"there is no machine {name!r}", hint=did_you_mean(name, known))
    return known[name]


def keep(new: Machine) -> None:
    """Add a machine, or replace the one of its name.

    Raises:
        UsageError: If that cannot be written.
    """
    _change(lambda before: [*(one for one in before if one.name != new.name), new])


def forget(name: str) -> None:
    """Remove a machine from the list; nothing happens there.

    Raises:
        UsageError: If that cannot be written.
    """
    _change(lambda before: [one for one in before if one.name != name])


def _change(change: Callable[[list[Machine]], list[Machine]]) -> None:
    file = paths.machines_file()
    with _mapped("written"), only_one(file):
        replace_json(file, {"machines": [asdict(one) for one in change(_read())]})


def _read() -> list[Machine]:
    known = {field.name for field in fields(Machine)}
    found: list[dict[str, Any]] = read_json(paths.machines_file(), missing={"machines": []})["machines"]
    return [Machine(**{key: value for key, value in one.items() if key in known}) for one in found]


def _mapped(done: str) -> AbstractContextManager[None]:
    return told(
        paths.machines_file(),
        "which names the machines that are lent",
        done,
        if_damaged="remove the file, and add the machines again: synaptic machines add user@host",
    )
