"""Where clients come in: an accept loop that counts them, and goes on when there are too many or no file is left."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from aiohttp import web

from synaptic.errors import BackendUnavailable
from synaptic.server.limits.client_connections import ClientConnection
from synaptic.server.limits.log_rate import LogRate
from synaptic.server.limits.server_room import ROOM

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable

    from synaptic.server.limits.server_room import ServerRoom

BACKLOG = 4096
"""Connections that the kernel keeps until they are taken; Linux keeps no more (``somaxconn``). What is beyond them asks
again after a second."""

DAY = 86400.0
SWEEP = 0.5  # seconds between two looks at whose time is over
BACK_OFF = 0.02  # seconds until the next try where no file is left; twice as long each time, up to the most
MOST_BACK_OFF = 0.5
_NO_RESOURCE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_FULL = json.dumps({"error": "this server has as many connections as it may; try again in a moment"}).encode()
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json; charset=utf-8\r\nretry-after: 1\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(_FULL), _FULL)
)

log = logging.getLogger(__name__)


@asynccontextmanager
async def listening(
    app: web.Application, host: str, port: int, *, drain: float, tls: Callable[[], ssl.SSLContext] | None = None
) -> AsyncIterator[list[str]]:
    """Serve a :func:`limited` application during the block, which gets the addresses (``http://127.0.0.1:11434``).

    Args:
        app: What to serve.
        host: An address, or a name that may have several.
        port: 0 finds a free one.
        drain: Seconds that replies under way get at the end.
        tls: Returns what the next connection is encrypted with; ``None`` for connections that are not.

    Raises:
        BackendUnavailable: If the port is taken.
    """
    room = app[ROOM]
    runner = web.AppRunner(
        app,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=drain,
        logger=log,
        keepalive_timeout=DAY,  # ours tells the wait for headers from the one for a request
        lingering_time=room.limits.linger_time,
        max_line_size=room.limits.header_size,
        max_field_size=room.limits.header_size,
        max_headers=room.limits.headers,
        auto_decompress=False,
    )
    loggers, rate = (log, logging.getLogger("asyncio")), LogRate()
    for logger in loggers:
        logger.addFilter(rate)
    try:
        await runner.setup()
        assert runner.server is not None
        sockets = await _bind(host, port)
        try:
            async with asyncio.TaskGroup() as tasks:
                door = _Door(runner.server, room, tls)
                running = [tasks.create_task(_accept(one, door)) for one in sockets]
                running.append(tasks.create_task(_sweep(room)))
                try:
                    yield [_url(*one.getsockname()[:2], secured=tls is not None) for one in sockets]
                finally:
                    for task in running:
                        task.cancel()
                    await door.aclose()
        finally:
            for one in sockets:
                one.close()
    finally:
        await runner.cleanup()
        for logger in loggers:
            logger.removeFilter(rate)


async def _bind(host: str, port: int) -> list[socket.socket]:
    found: list[socket.socket] = []
    try:
        for family, _, _, _, address in await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            found.append(socket.create_server(address, family=family, backlog=BACKLOG))
            found[-1].setblocking(False)
    except OSError as error:
        for one in found:
            one.close()
        raise BackendUnavailable(
            f"cannot listen at {host} port {port}: {error.strerror or error}",
            hint="is another server running there? choose another --port; 0 finds a free one",
        ) from error
    return found


class _Door:
    """Makes connections of what was taken; those that are encrypted first agree on how, each in a task of its own.

    Until then they have their place among all others, and leave it as these do.
    """

    def __init__(
        self, http: Callable[[], asyncio.Protocol], room: ServerRoom, tls: Callable[[], ssl.SSLContext] | None
    ) -> None:
        self.room = room
        self._http = http
        self._tls = tls
        self._agreeing: set[asyncio.Task[None]] = set()

    async def enter(self, taken: socket.socket, client: str) -> None:
        """Begin a connection."""
        loop, connection = asyncio.get_running_loop(), ClientConnection(self._http(), self.room.connections, client)
        if self._tls is None:
            with suppress(OSError):
                await loop.connect_accepted_socket(lambda: connection, taken)
                return
            taken.close()
            return
        task = loop.create_task(self._agree(taken, connection, self._tls()))
        connection.agreeing = task
        self.room.connections.add(connection.http, connection)
        self._agreeing.add(task)
        task.add_done_callback(self._agreeing.discard)

    async def _agree(self, taken: socket.socket, connection: ClientConnection, tls: ssl.SSLContext) -> None:
        limit = self.room.limits.header_time
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection, taken, ssl=tls, ssl_handshake_timeout=limit
            )
        except OSError:  # also of TLS: it is the trouble of that one client
            taken.close()
        finally:
            if connection.transport is None:
                self.room.connections.remove(connection.http)

    def refuse(self, taken: socket.socket) -> None:
        """Say that there is no room, where that can be said in a word, and close."""
        with suppress(OSError), taken:
            if self._tls is None:
                taken.setblocking(False)
                taken.send(FULL)

    async def aclose(self) -> None:
        """Give up those that do not agree yet."""
        for task in self._agreeing:
            task.cancel()
        if self._agreeing:
            await asyncio.wait(self._agreeing)


async def _accept(listener: socket.socket, door: _Door) -> None:
    """Take connections, for ever."""
    loop, wait, room = asyncio.get_running_loop(), BACK_OFF, door.room
    while True:
        try:
            taken, address = await loop.sock_accept(listener)
        except OSError as error:
            if error.errno in _NO_RESOURCE:
                log.warning("no connection can be taken: %s; trying again", error.strerror)
                if not await room.connections.give_up_one():
                    await asyncio.sleep(wait)
                    wait = min(2 * wait, MOST_BACK_OFF)
            continue  # anything else is the trouble of that one client, who has left already
        wait = BACK_OFF
        client = str(address[0])
        if not await room.connections.make_room(client):
            log.warning("no room for %s: all %d connections are being answered", client, len(room.connections))
            door.refuse(taken)
            continue
        await door.enter(taken, client)


async def _sweep(room: ServerRoom) -> None:
    while True:
        await asyncio.sleep(SWEEP)
        room.connections.end_overdue()


def _url(host: str, port: int, *, secured: bool) -> str:
    scheme = "https" if secured else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
