"""One server under two names: ``localhost``, ``127.0.0.1`` and the machine's own name are found out and used once.

Ollama has nothing that identifies a server, so that addresses are compared: what resolves to the same address and port
is one. Two machines with the same models are not.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

RESOLVE_SECONDS = 2.0
DEFAULT_PORTS = {"http": 80, "https": 443}

Endpoint: TypeAlias = tuple[str, int]
"""An address, or ``here`` for any of this machine's own, and a port."""

HERE = "here"


async def endpoints(url: str, own: Collection[str]) -> frozenset[Endpoint]:
    """Return where ``url`` leads to; nothing if its name does not resolve in time.

    Args:
        url: ``http://host:port``.
        own: Addresses of this machine's interfaces.

    """
    parts = urlsplit(url)
    port = parts.port or DEFAULT_PORTS.get(parts.scheme, 80)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await loop.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError) as _unknown:
        return frozenset()
    return frozenset((_place(str(entry[4][0]), own), port) for entry in found)


def own_addresses() -> frozenset[str]:
    """Return the addresses of this machine's interfaces."""
    import psutil  # noqa: PLC0415 - heavy, and needed only where several nodes are named

    return frozenset(
        address.address.partition("%")[0] for addresses in psutil.net_if_addrs().values() for address in addresses
    )


def twins(places: Mapping[int, frozenset[Endpoint]]) -> dict[int, int]:
    """Return key -> key of the earlier one that is the same server."""
    found: dict[int, int] = {}
    first: dict[Endpoint, int] = {}
    for key, endpoints_of in places.items():
        known = min((first[endpoint] for endpoint in endpoints_of if endpoint in first), default=None)
        if known is None:
            first.update(dict.fromkeys(endpoints_of, key))
        else:
            found[key] = known
    return found


def _place(address: str, own: Collection[str]) -> str:
    bare = address.partition("%")[0]
    return HERE if bare in own or ipaddress.ip_address(bare).is_loopback else bare
