"""Who is let in, who has to leave for that, and whose time is over: pure decisions over plain data.

A connection whose request is being answered is never taken from anybody. All others wait for their client, and the one
that has the least time left makes room for the next, as nginx does with connections that are only kept. So any number
of half-sent requests leaves room for whole ones.
"""

from __future__ import annotations

import heapq
import ipaddress
import math
from collections import Counter
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from synaptic.server.limits.server_limits import ServerLimits

GRACE = 0.05
"""Seconds that a new connection stays in any case: its request follows by the time that a packet takes, and must not be
cut off by a thousand others that come meanwhile. They wait for this in the kernel."""

SHARE = 16
"""One in so many of those that may leave does so at a time."""


class Phase(Enum):
    """What a connection waits for."""

    NEW = auto()
    """The first byte of its first request."""

    HEADERS = auto()
    """The rest of a request that has begun."""

    BODY = auto()
    """The rest of a body."""

    ANSWERING = auto()
    """For nothing that its client owes us."""

    IDLE = auto()
    """Its next request."""


@dataclass(slots=True, eq=False)
class Place:
    """One connection, as the decisions see it; times are in seconds of the loop's clock.

    Attributes:
        client: Who it is (see :func:`client_of`).
        since: When the phase began.
        until: When its client must have done what we wait for.
        unsent: Bytes that its client has not taken yet, when it was last looked at.
        unsent_since: When that number last changed.
    """

    client: str
    phase: Phase
    since: float
    until: float
    unsent: int = 0
    unsent_since: float = 0.0

    @property
    def may_leave(self) -> bool:
        """Whether ending it takes no answer from anybody."""
        return self.phase is not Phase.ANSWERING and not self.unsent


def enter(place: Place, phase: Phase, limits: ServerLimits, now: float) -> None:
    """Begin a phase."""
    place.phase, place.since, place.until = phase, now, now + allowed(phase, limits)


def allowed(phase: Phase, limits: ServerLimits) -> float:
    """Return the seconds that a client has for a phase."""
    match phase:
        case Phase.NEW | Phase.HEADERS:
            return limits.header_time
        case Phase.BODY:
            return limits.body_time
        case Phase.IDLE:
            return limits.idle_time
        case Phase.ANSWERING:
            return math.inf


def brought(until: float, count: int, limits: ServerLimits, now: float) -> float:
    """Return until when the next of a body must come after ``count`` bytes of it have: they buy time, but no hoard."""
    return min(until + count / limits.body_rate, now + limits.body_time)


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a client is let in, which places are cleared for that, and in how many seconds they may be."""

    allowed: bool
    leaves: Sequence[Place] = ()
    wait: float = 0.0


def admit(client: str, places: Collection[Place], limits: ServerLimits, now: float) -> Admission:
    """Decide over a new connection of ``client`` beside those that there are.

    A client with too many makes room itself; where all are too many, the one with the most does.
    """
    held = Counter(place.client for place in places)
    if held[client] >= limits.connections_of_one:
        return instead((place for place in places if place.client == client), now)
    if len(places) < limits.connections:
        return Admission(allowed=True)
    most = max((held[place.client] for place in places if place.may_leave), default=0)
    return instead((place for place in places if held[place.client] == most), now)


def instead(places: Iterable[Place], now: float) -> Admission:
    """Return that somebody is let in for one of these: the one with the least time left; a new one has its grace.

    A few of them leave at once, so that a thousand who come together do not cost a thousand decisions.
    """
    waiting = [place for place in places if place.may_leave]
    if not waiting:
        return Admission(allowed=False)
    ready = [place for place in waiting if place.phase is not Phase.NEW or now >= place.since + GRACE]
    if ready:
        return Admission(True, heapq.nsmallest(max(len(ready) // SHARE, 1), ready, key=lambda place: place.until))
    oldest = min(waiting, key=lambda place: place.since)
    return Admission(True, [oldest], oldest.since + GRACE - now)


def is_over(place: Place, limits: ServerLimits, now: float) -> bool:
    """Tell whether the client of a connection has had its time. For a body, whoever reads it says so, with words."""
    if place.unsent:
        return now - place.unsent_since >= limits.unread_time
    return place.phase is not Phase.BODY and now >= place.until


def client_of(address: str) -> str:
    """Return what is one client: an address, or the network of IPv6 that one machine has for itself (a /64)."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(ipaddress.IPv6Network((parsed, 64), strict=False))
