"""The connections that there are: what each waits for, and the end of those whose time is over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from synaptic.server.limits.admission import Admission, Phase, Place, admit, allowed, client_of, enter, instead, is_over

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from synaptic.server.limits.server_limits import ServerLimits


class ClientConnection(asyncio.Protocol):
    """One client's connection: hands everything on to the protocol that speaks HTTP, and knows what it waits for."""

    def __init__(self, http: asyncio.Protocol, connections: ClientConnections, client: str) -> None:
        self.http = http
        self._connections = connections
        self.place = connections.place(client)
        self.transport: asyncio.Transport | None = None
        self.agreeing: asyncio.Task[None] | None = None  # on how it is encrypted; there is no transport until then

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._connections.add(self.http, self)
        self.http.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Hand it on; the first bytes after a pause begin a request."""
        if self.place.phase is Phase.IDLE or self.place.phase is Phase.NEW:
            self._connections.enter(self.place, Phase.HEADERS)
        self.http.data_received(data)

    def eof_received(self) -> bool | None:
        """Hand it on."""
        return self.http.eof_received()

    def pause_writing(self) -> None:
        """Hand it on."""
        self.http.pause_writing()

    def resume_writing(self) -> None:
        """Hand it on."""
        self.http.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the place."""
        self._connections.remove(self.http)
        self.http.connection_lost(exc)

    def look(self, now: float) -> None:
        """Note how much of what was sent the client has not taken."""
        unsent = self.transport.get_write_buffer_size() if self.transport else 0
        if unsent != self.place.unsent:
            self.place.unsent, self.place.unsent_since = unsent, now

    def end(self) -> None:
        """Close at once, whatever has not been sent."""
        if self.transport is not None:
            self.transport.abort()
        elif self.agreeing is not None:
            self.agreeing.cancel()


class InPhase:
    """A block during which a connection is in one phase; a class, since every request enters it."""

    __slots__ = ("_after", "_connections", "_during", "_place")

    def __init__(self, connections: ClientConnections, place: Place | None, during: Phase, after: Phase) -> None:
        self._connections, self._place, self._during, self._after = connections, place, during, after

    def __enter__(self) -> Place | None:
        if self._place is not None:
            self._connections.enter(self._place, self._during)
        return self._place

    def __exit__(self, *_: object) -> None:
        if self._place is not None:
            self._connections.enter(self._place, self._after)


class ClientConnections:
    """All of one server's, by the protocol that speaks HTTP on each."""

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._connections: dict[asyncio.BaseProtocol, ClientConnection] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def place(self, client: str) -> Place:
        """Return a place for a new connection."""
        now = asyncio.get_running_loop().time()
        return Place(client, Phase.NEW, now, now + allowed(Phase.NEW, self._limits))

    def enter(self, place: Place, phase: Phase) -> None:
        """Begin a phase of a connection."""
        enter(place, phase, self._limits, asyncio.get_running_loop().time())

    def add(self, http: asyncio.BaseProtocol, connection: ClientConnection) -> None:
        """Keep a connection."""
        self._connections[http] = connection

    def remove(self, http: asyncio.BaseProtocol) -> None:
        """Forget one that has ended."""
        self._connections.pop(http, None)

    async def make_room(self, address: str) -> bool:
        """Tell whether a client at ``address`` is let in; another connection is ended where that takes it."""
        if len(self) < self._limits.connections_of_one:
            return True
        return await self._clear(lambda places, now: admit(client_of(address), places, self._limits, now))

    async def give_up_one(self) -> bool:
        """End the connection that is the least loss, and tell whether there was one."""
        return await self._clear(instead)

    async def _clear(self, decide: Callable[[Collection[Place], float], Admission]) -> bool:
        while True:
            now, places = self._look()
            found = decide(places.keys(), now)
            if found.wait <= 0:
                break
            await asyncio.sleep(found.wait)
        for leaving in map(places.__getitem__, found.leaves):
            leaving.end()
            self.remove(leaving.http)  # it counts no longer; its file is closed in the loop's next turn
        await asyncio.sleep(0)
        return found.allowed

    def end_overdue(self) -> None:
        """End those whose time is over."""
        now, places = self._look()
        for place, connection in places.items():
            if is_over(place, self._limits, now):
                connection.end()

    def phase(self, http: asyncio.BaseProtocol | None, during: Phase, after: Phase) -> InPhase:
        """Let a connection be in one phase during a block, and in another after it; none that is unknown to us."""
        connection = self._connections.get(http) if http is not None else None
        return InPhase(self, None if connection is None else connection.place, during, after)

    def _look(self) -> tuple[float, dict[Place, ClientConnection]]:
        now = asyncio.get_running_loop().time()
        for connection in self._connections.values():
            connection.look(now)
        return now, {connection.place: connection for connection in self._connections.values()}
