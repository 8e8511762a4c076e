"""Free TCP ports for servers that we start, and whether a port is taken. Nothing is connected to."""

from __future__ import annotations

import errno
import random
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from synaptic.errors import BackendUnavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Container

LOWEST: Final = 20_000
HIGHEST: Final = 65_535
_USUAL_EPHEMERAL: Final = (32_768, 60_999)
_FEWEST: Final = 1_000
_ATTEMPTS: Final = 200


def free_port(
    host: str = "127.0.0.1", *, avoid: Container[int] = (), choose: Callable[[int, int], int] = random.randint
) -> int:
    """Return a port at ``host`` that nothing listens at.

    It is one that the system does not hand out by itself: a server that is started again finds it free still, where
    an outgoing connection of anybody might have taken one of the others in the meantime.

    Args:
        host: An IPv4 address of this machine.
        avoid: Ports that are spoken for.
        choose: Returns a number between two, both included.

    Raises:
        UsageError: If the address is not one of this machine.
        BackendUnavailable: If no free port was found.
    """
    first, last = span(ephemeral_ports())
    for _ in range(_ATTEMPTS):
        port = choose(first, last)
        if port not in avoid and is_free(host, port):
            return port
    raise BackendUnavailable(
        f"no free port was found at {host} between {first} and {last}", hint="name one, as in --port 50052"
    )


def is_free(host: str, port: int) -> bool:
    """Return whether a server could listen at ``host`` and ``port`` now.

    Raises:
        UsageError: If the address is not one of this machine, or the port needs rights that we have not.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the RPC server does: what is left of connections that have ended does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise _refused(host, port, error) from error
    return True


def span(ephemeral: tuple[int, int]) -> tuple[int, int]:
    """Return the ports, first and last, that are chosen from where the system hands out ``ephemeral`` ones itself."""
    first, last = ephemeral
    if first - LOWEST >= _FEWEST:
        return LOWEST, first - 1
    if HIGHEST - last >= _FEWEST:
        return last + 1, HIGHEST
    return LOWEST, HIGHEST


def ephemeral_ports(file: Path = Path("/proc/sys/net/ipv4/ip_local_port_range")) -> tuple[int, int]:
    """Return the first and the last of the ports that the system gives to outgoing connections."""
    try:
        first, last = file.read_text(encoding="ascii").split()
        return int(first), int(last)
    except (OSError, ValueError):
        return _USUAL_EPHEMERAL


def _refused(host: str, port: int, error: OSError) -> UsageError:
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return UsageError(
            f"{host} is not an IPv4 address of this machine",
            hint="127.0.0.1 is for programs of this machine; 'ip -4 addr' lists the others",
        )
    if error.errno == errno.EACCES:
        return UsageError(f"port {port} is for the administrator alone", hint="name one from 1024 on")
    return UsageError(f"nothing can listen at {host}:{port}: {error.strerror or error}")
