"""Which processes of this machine are connected to a worker, or have it and are connected to. Nothing is contacted.

The registry knows the coordinators that this program started. A ``llama-server`` that a person started by hand is
known by its connection, as long as it or the worker runs here.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, NamedTuple

import psutil

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from synaptic.backends.distributed.workers.registry import Worker


class Link(NamedTuple):
    """One end of an open connection, as the system lists it."""

    local: tuple[str, int]
    remote: tuple[str, int]
    pid: int | None


def who_talks(worker: Worker) -> str | None:
    """Return who is connected to a worker, in words, or ``None`` if no process is or the system does not tell."""
    own = _own_addresses()
    link = talking(worker, open_links(), own)
    return None if link is None else _words(link, worker)


def talking(worker: Worker, links: Iterable[Link], own: Collection[str]) -> Link | None:
    """Return the end of a connection to a worker, that of the client if both are here.

    ``own`` are the addresses of this machine, apart from 127.0.0.0/8.
    """
    port = worker.endpoint.port
    here = any(_is_own(address, own) for address in worker.addresses)
    at_worker = None
    for link in links:
        if link.remote[1] == port and (link.remote[0] in worker.addresses or (here and _is_own(link.remote[0], own))):
            return link
        # While something listens at a port, no outgoing connection is given it: this end is the worker's.
        if here and link.local[1] == port and _is_own(link.local[0], own):
            at_worker = link
    return at_worker


def open_links() -> Iterator[Link]:
    """Yield the open IPv4 connections that the system shows us; none where it shows them to root only (macOS)."""
    try:
        connections = psutil.net_connections(kind="tcp4")
    except (psutil.Error, OSError):
        return
    for connection in connections:
        if connection.status == psutil.CONN_ESTABLISHED and connection.laddr and connection.raddr:
            yield Link(
                (connection.laddr[0], connection.laddr[1]),
                (connection.raddr[0], connection.raddr[1]),
                connection.pid,
            )


def _own_addresses() -> frozenset[str]:
    try:
        return frozenset(entry.address for entries in psutil.net_if_addrs().values() for entry in entries)
    except (psutil.Error, OSError):
        return frozenset()


def _is_own(address: str, own: Collection[str]) -> bool:
    return address in own or ipaddress.ip_address(address).is_loopback


def _words(link: Link, worker: Worker) -> str:
    if link.local[1] == worker.endpoint.port:
        host, port = link.remote
        return f"a client at {host}:{port}"
    if link.pid is None:
        return "another user's process on this machine"
    try:
        return f"{psutil.Process(link.pid).name()} (process {link.pid})"
    except psutil.Error:
        return f"process {link.pid}"
