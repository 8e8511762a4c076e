"""Which addresses a worker may have: the RPC protocol knows no password, so only such as no stranger reaches."""

from __future__ import annotations

import ipaddress
import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

SETTING: Final = "public_workers"

# Not ipaddress's is_private, which also counts what is reserved for documentation, tests and later times.
_PRIVATE: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "127.0.0.0/8",  # loopback
        "10.0.0.0/8",  # RFC 1918, as the next two
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",  # link-local, RFC 3927
        "100.64.0.0/10",  # shared address space, RFC 6598: Tailscale's
        "::1/128",
        "fc00::/7",  # unique local, RFC 4193
        "fe80::/10",  # link-local, RFC 4291
    )
)


def is_private(address: str) -> bool:
    """Return whether an IP address is one of this machine or of a private network.

    That of all networks (``0.0.0.0``) is not: whether a public one is among them can change at any time.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    if mapped is not None:
        return is_private(str(mapped))
    return any(found.version == network.version and found in network for network in _PRIVATE)


def public_ones(host: str, addresses: Iterable[str], allowed: Collection[str]) -> tuple[str, ...]:
    """Return those addresses of a host that are neither private nor allowed by the settings.

    Args:
        host: How it is called; if that is allowed, all of its addresses are.
        addresses: Its addresses.
        allowed: Names and addresses that the settings allow (``public_workers``).
    """
    if host in allowed:
        return ()
    return tuple(address for address in addresses if address not in allowed and not is_private(address))


def allowing(host: str) -> str:
    """Return the command that allows a host in the settings; it replaces what they allow so far."""
    return f"synaptic config set {SETTING} '{json.dumps([host])}'"
