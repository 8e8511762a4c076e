"""What all requests of one server share: its connections, the memory of their bodies, and the thread that decodes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING

from aiohttp import web

from synaptic.errors import SynapticError
from synaptic.server.limits.admission import Phase
from synaptic.server.limits.client_connections import ClientConnections
from synaptic.server.limits.server_limits import ServerLimits
from synaptic.text import size

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

UNAVAILABLE = 503
ALWAYS_TAKEN = 64 * 1024  # bytes of one call that are taken however much is held: short calls go on


class BodyRefused(SynapticError):
    """A body that is not taken: the status, and what is wrong with it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class HeldBody:
    """The memory of one request, counted against what all may take; safe to call from any thread."""

    def __init__(self, room: ServerRoom) -> None:
        """Begin with nothing."""
        self._room = room
        self._taken = 0
        self._ended = False

    def take(self, count: int) -> None:
        """Count so many bytes more.

        Raises:
            BodyRefused: If all requests together hold too many.
        """
        with self._room.lock:
            if self._ended:
                return
            most = self._room.limits.bodies_size
            if self._taken + count > ALWAYS_TAKEN and self._room.bodies + count > most:
                raise BodyRefused(
                    UNAVAILABLE,
                    f"this server holds as much of other requests as it may ({size(most)}); try again in a moment",
                )
            self._taken += count
            self._room.bodies += count

    def end(self) -> None:
        """Give all back, for good."""
        with self._room.lock:
            self._ended = True
            self._room.bodies -= self._taken


class ServerRoom:
    """One server's. ``bodies`` counts bytes, under ``lock``."""

    def __init__(self, limits: ServerLimits) -> None:
        """Begin empty; the thread starts with the first long body."""
        self.limits = limits
        self.connections = ClientConnections(limits)
        self.decoder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bodies")
        self.lock = Lock()
        self.bodies = 0

    def held(self, request: web.Request) -> HeldBody:
        """Return the count of a request."""
        return request[_HELD]

    async def aclose(self) -> None:
        """End the thread."""
        self.decoder.shutdown(wait=False, cancel_futures=True)


ROOM = web.AppKey("ROOM", ServerRoom)
_HELD = web.RequestKey("held", HeldBody)


def limited(app: web.Application, limits: ServerLimits | None = None) -> web.Application:
    """Return ``app``, which now counts what its requests take; bodies are read by :func:`read_request` only."""
    room = app[ROOM] = ServerRoom(limits or ServerLimits())
    app.middlewares.insert(0, _counted)
    app.on_cleanup.append(lambda _: room.aclose())
    return app


@web.middleware
async def _counted(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Mark a request's connection as one that is being answered, and give its memory back at the end."""
    room = request.app[ROOM]
    held = request[_HELD] = HeldBody(room)
    try:
        with room.connections.phase(request.protocol, Phase.ANSWERING, Phase.IDLE):
            return await handler(request)
    finally:
        held.end()
