"""One server under two names: ``localhost``, ``127.0.0.1`` and the machine's own name are found out and used once.

Ollama has nothing that identifies a server, so that addresses are compared: what resolves to the same address and port
is one. Two machines with the same models are not; nor are two names of one reverse proxy, or a name for several
machines and one of those.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psutil

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

RESOLVE_SECONDS = 1.0
DEFAULT_PORTS = {"http": 80, "https": 443}

HERE = "here"


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where an address leads to.

    Attributes:
        addresses: What its name resolves to; :data:`HERE` for any of this machine's own.
        path: What requests are sent below; "" for the server's root.
        virtual_host: The name, where the server behind it may depend on that: HTTPS, and the port of the web.
    """

    addresses: frozenset[str]
    port: int
    path: str = ""
    virtual_host: str = ""

    def is_same_server(self, other: ServerAddress) -> bool:
        """Return whether both are one server for certain."""
        if (self.port, self.path, self.virtual_host) != (other.port, other.path, other.virtual_host):
            return False
        if not self.addresses & other.addresses:
            return False
        return self.addresses == other.addresses or _is_one_machine(self.addresses | other.addresses)


async def place_of(url: str, own: Collection[str]) -> ServerAddress | None:
    """Return where ``url`` leads to; ``None`` if its name does not resolve in time.

    ``own`` are the addresses of this machine's interfaces.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORTS.get(parts.scheme, 80)
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError, TimeoutError):
        return None
    shared = parts.scheme == "https" or port in DEFAULT_PORTS.values()
    host = (parts.hostname or "").rstrip(".")
    addresses = frozenset(_address(str(entry[4][0]), own) for entry in found)
    return ServerAddress(addresses, port, parts.path.rstrip("/"), host if shared else "")


def own_addresses() -> frozenset[str]:
    """Return the addresses of this machine's interfaces."""
    return frozenset(
        address.address.partition("%")[0] for addresses in psutil.net_if_addrs().values() for address in addresses
    )


def twins(places: Mapping[int, ServerAddress | None]) -> dict[int, int]:
    """Return key -> key of the earlier one that is the same server."""
    found: dict[int, int] = {}
    kept: dict[int, ServerAddress] = {}
    for key, place in places.items():
        if place is None:
            continue
        same = next((other for other, known in kept.items() if known.is_same_server(place)), None)
        if same is None:
            kept[key] = place
        else:
            found[key] = same
    return found


async def one_server_twice(urls: Sequence[str]) -> dict[int, int]:
    """Return index -> index of the earlier address that leads to the same server."""
    if len(urls) < 2:
        return {}
    own = own_addresses()
    return twins(dict(enumerate(await asyncio.gather(*(place_of(url, own) for url in urls)))))


async def server_names(urls: Sequence[str]) -> list[str]:
    """Return what each address leads to, in a form that is the same for other names of that server on this machine.

    Where an address does not resolve, that is the address itself.
    """
    own = own_addresses()
    places = await asyncio.gather(*(place_of(url, own) for url in urls))
    return [
        url if place is None else " ".join([*sorted(place.addresses), str(place.port), place.path, place.virtual_host])
        for url, place in zip(urls, places, strict=True)
    ]


def once_notice(url: str, first_url: str, first_name: str) -> str:
    """Return what is said of a server that has two names among the nodes."""
    return f"{url} and {first_url} are one server: it is used once, as {first_name}"


def _is_one_machine(addresses: frozenset[str]) -> bool:
    """Return whether a machine may have all these addresses: many of IPv6, but one of IPv4."""
    return sum(":" not in address for address in addresses) <= 1


def _address(text: str, own: Collection[str]) -> str:
    bare = text.partition("%")[0]
    address = ipaddress.ip_address(bare)
    plain = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    address = plain or address
    return HERE if str(address) in own or address.is_loopback else str(address)
