"""The figures, with the names that HAProxy, Caddy, nginx and Apache have for them."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Self

MOST_CONNECTIONS = 1024
"""So one address, which may be a proxy with everybody behind it, has more than the 500 streams that one process can
carry."""

RESERVED_FILES = 64
"""File descriptors that are no connection of a client: the listener, the loop, models, children, their pipes."""

FILES_PER_CONNECTION = 2
"""Its own, and that of the call which is made for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What is the most. Times are in seconds, sizes in bytes.

    Attributes:
        connections: At once (HAProxy's ``maxconn``).
        header_time: From a connection, or from a request's first byte on one that is kept, to the end of its headers
            (HAProxy's ``http-request``, Caddy's ``read_header``). Bytes that drip in do not prolong it.
        idle_time: That a connection is kept without a request (HAProxy's ``http-keep-alive``, Caddy's ``idle``).
        body_time: That a body may take to come (Caddy's ``read_body``), and that it may pause.
        body_rate: Bytes that prolong this by a second (Apache's ``MinRate``): so a long body may take its time.
        unread_time: That a client may leave what was sent to it without taking any (nginx's ``send_timeout``).
        linger_time: That the rest of a body is still taken and thrown away after the reply (nginx's
            ``lingering_timeout``); without it, the client would see a broken connection instead of the reply.
        header_size: One header, or the request's first line.
        headers: How many.
        body_size: One body, after it was unpacked.
        bodies_size: All bodies of calls that are not finished, and what was read from them.
    """

    connections: int = MOST_CONNECTIONS
    header_time: float = 10.0
    idle_time: float = 20.0
    body_time: float = 20.0
    body_rate: int = 500
    unread_time: float = 60.0
    linger_time: float = 5.0
    header_size: int = 8 * 1024
    headers: int = 64
    body_size: int = 32_000_000
    bodies_size: int = 256_000_000

    @property
    def connections_of_one(self) -> int:
        """Connections of one client, that is of one address: three quarters, so that nobody shuts the others out."""
        return max(self.connections * 3 // 4, 1)

    @classmethod
    def of_this_process(cls) -> Self:
        """Return the limits with as many connections as this process may have files open for.

        Where it may raise that number itself (``ulimit -Sn``, up to ``-Hn``) and has too few, it does.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = RESERVED_FILES + FILES_PER_CONNECTION * MOST_CONNECTIONS
        if soft != resource.RLIM_INFINITY and soft < wanted:
            soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return cls(connections=connections_for(soft))


def connections_for(files: int) -> int:
    """Return how many connections a process with so many file descriptors takes; ``files`` is -1 for no limit."""
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return min(max((files - RESERVED_FILES) // FILES_PER_CONNECTION, 1), MOST_CONNECTIONS)
