"""Looking for Ollama in a range of addresses: only when a person names the range, and nothing outside it.

:func:`addresses` decides, without any I/O, what would be contacted; :func:`scan` contacts exactly that.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from synaptic.backends.http import Origin, get_json, new_client
from synaptic.errors import BackendError, UsageError
from synaptic.settings import OLLAMA_PORT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

    import httpx

MAX_ADDRESSES = 1024
"""A /22 of IPv4. A network with more machines is one whose addresses are known."""

CONCURRENCY = 64
WITHIN_SECONDS = 1.0
GRACE_SECONDS = 5.0
"""Beyond what the waits add up to, for a machine that is busy itself."""

_BACKEND = "ollama"
_NOT_WITHOUT_CREDENTIALS = frozenset({401, 403})

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class AddressRange:
    """The addresses of one network that a machine can have.

    Attributes:
        network: As it is written in full; bits of a host that were given with it are gone.
    """

    network: IpNetwork

    def __len__(self) -> int:
        """Count them; a network of IPv4 has two that no machine has, but for the very small ones."""
        every = self.network.num_addresses
        return every - 2 if self.network.version == 4 and every > 2 else every

    def __iter__(self) -> Iterator[str]:
        for number in self._hosts():
            yield f"[{number}]" if number.version == 6 else str(number)

    def __str__(self) -> str:
        single = self.network.num_addresses == 1
        return str(self.network.network_address if single else self.network)

    @property
    def is_public(self) -> bool:
        """Whether its addresses are reached over the internet, so that the machines are hardly the person's own."""
        return self.network.is_global

    def _hosts(self) -> Iterator[IpAddress]:
        # IPv6Network.hosts() leaves out the address of the subnet's routers, which may be one's own machine here.
        return iter(self.network) if self.network.version == 6 else iter(self.network.hosts())


@dataclass(frozen=True, slots=True)
class FoundNode:
    """Something that speaks like Ollama.

    Attributes:
        version: As it says; ``None`` where it asks for credentials first.
        note: What a person should know of it, "" if nothing.
    """

    url: str
    version: str | None
    note: str = ""


def addresses(cidr: str) -> AddressRange:
    """Return the addresses that ``cidr`` names: ``192.168.1.0/24``, or one address.

    Raises:
        UsageError: If it is not a network, or one of more than 1024 addresses; says what to write instead.
    """
    text = cidr.strip().strip("[]")
    example = "write a network such as 192.168.1.0/24, or one address"
    if re.fullmatch(r"[\d.]+-[\d.]+", text):
        raise UsageError(f"{cidr!r} is a range from one address to another", hint=example)
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as exc:
        raise UsageError(f"{cidr!r} is no network of IP addresses", hint=example) from exc
    if network.num_addresses > MAX_ADDRESSES:
        raise _too_large(text, network)
    if network.is_multicast or network.network_address.is_unspecified:
        raise UsageError(f"no machine has an address in {network}", hint=example)
    return AddressRange(network)


async def scan(
    found_at: Sequence[str] | AddressRange,
    port: int = OLLAMA_PORT,
    *,
    concurrency: int = CONCURRENCY,
    within: float = WITHIN_SECONDS,
    on_progress: Callable[[int], None] = lambda _: None,
) -> AsyncGenerator[FoundNode, None]:
    """Ask every address for its version of Ollama, and yield those that have one, as they answer.

    Args:
        found_at: Hosts; IPv6 addresses in brackets.
        port: The one that is tried.
        concurrency: Addresses that are asked at once.
        within: Seconds for each.
        on_progress: Told how many were asked so far, each time one is done.
    """
    hosts = list(found_at)
    bound = math.ceil(len(hosts) / concurrency) * within + GRACE_SECONDS
    found: asyncio.Queue[FoundNode | None] = asyncio.Queue()
    waiting = iter(hosts)
    done = 0

    async def work() -> None:
        nonlocal done
        for host in waiting:
            node = await _ask(f"http://{host}:{port}", within)
            done += 1
            on_progress(done)
            if node is not None:
                found.put_nowait(node)

    async def work_all() -> None:
        try:
            async with asyncio.timeout(bound), asyncio.TaskGroup() as tasks:
                for _ in range(min(concurrency, len(hosts))):
                    tasks.create_task(work())
        except TimeoutError:
            pass  # what was found stands; the rest took longer than an address may
        finally:
            found.put_nowait(None)

    scanning = asyncio.create_task(work_all())
    try:
        while (node := await found.get()) is not None:
            yield node
        await scanning
    finally:
        scanning.cancel()
        await asyncio.gather(scanning, return_exceptions=True)


async def _ask(url: str, within: float) -> FoundNode | None:
    """Return what is at ``url``, if it is an Ollama, or asks for credentials before it says what it is."""
    refused: list[int] = []

    def note_status(status: int, body: bytes) -> None:
        del body
        refused.append(status)

    client: httpx.AsyncClient = new_client(url, connect_timeout=within)
    try:
        async with asyncio.timeout(within):
            reply = await get_json(client, "/api/version", origin=Origin(_BACKEND, url), read_error=note_status)
    except (BackendError, TimeoutError):
        locked = not _NOT_WITHOUT_CREDENTIALS.isdisjoint(refused)
        return FoundNode(url, None, "asks for credentials") if locked else None
    finally:
        await client.aclose()
    version = reply.get("version")
    return FoundNode(url, version) if isinstance(version, str) else None


def _too_large(text: str, network: IpNetwork) -> UsageError:
    prefix = network.max_prefixlen - int(math.log2(MAX_ADDRESSES))
    start = re.sub(r"/.*", "", text)
    smaller = network.max_prefixlen - 8
    part = ipaddress.ip_network(f"{start}/{smaller}", strict=False)
    limit = f"more than {MAX_ADDRESSES:,} (/{prefix})"
    return UsageError(
        f"{network} has {network.num_addresses:,} addresses, and {limit} are not contacted",
        hint=f"name the part that your machines are in, such as {part}",
    )
