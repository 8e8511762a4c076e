"""A port of this machine's loopback that leads to one of another machine's, through an SSH connection.

asyncssh's own forwarding forgets a channel whose near end is closed while it is being opened, as a probe's is that
gives up while a cable is out: the channel stays, and with it the connection to a worker, which serves one at a time.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, cast

import asyncssh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LOOPBACK: Final = "127.0.0.1"


@asynccontextmanager
async def forwarded(connection: asyncssh.SSHClientConnection, here: int, there: int) -> AsyncIterator[int]:
    """Have a port of this machine lead to port ``there`` of another one for the time of a block; give its number.

    Args:
        connection: To the other machine.
        here: Its number; 0 for any that is free.
        there: Where it leads.

    Raises:
        OSError: If the port is taken.
    """
    server = await asyncio.get_running_loop().create_server(lambda: _Near(connection, there), LOOPBACK, here)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


class _Near(asyncio.Protocol):
    """What has connected to the port here. It is read once there is a channel, so that its end finds one to close."""

    def __init__(self, connection: asyncssh.SSHClientConnection, port: int) -> None:
        self._connection = connection
        self._port = port
        self._opening: asyncio.Task[None] | None = None
        self.channel: asyncssh.SSHTCPChannel[bytes] | None = None
        self.at_end = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        near = cast("asyncio.Transport", transport)
        near.pause_reading()
        self._opening = asyncio.create_task(self._open(near))

    async def _open(self, near: asyncio.Transport) -> None:
        try:
            await self._connection.create_connection(lambda: _Far(self, near), LOOPBACK, self._port)
        except (asyncssh.Error, OSError):  # it is not listened there, or the connection is gone
            near.abort()
        else:
            near.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self.channel is not None and not self.channel.is_closing():
            self.channel.write(data)

    def eof_received(self) -> bool:
        """Return whether something may still come from there."""
        self.at_end = True
        if self.channel is not None and not self.channel.is_closing():
            self.channel.write_eof()
        return self.channel is not None

    def pause_writing(self) -> None:
        if self.channel is not None:
            self.channel.pause_reading()

    def resume_writing(self) -> None:
        if self.channel is not None:
            self.channel.resume_reading()

    def connection_lost(self, _exc: Exception | None) -> None:
        if self.channel is not None:
            self.channel.close()


class _Far(asyncssh.SSHTCPSession[bytes]):
    """What it leads to."""

    def __init__(self, near: _Near, transport: asyncio.Transport) -> None:
        self._near = near
        self._transport = transport

    def connection_made(self, chan: asyncssh.SSHTCPChannel[bytes]) -> None:
        self._near.channel = chan

    def data_received(self, data: bytes, _datatype: asyncssh.DataType) -> None:
        if not self._transport.is_closing():  # asyncio warns of each further piece
            self._transport.write(data)

    def eof_received(self) -> bool:
        """Return whether something may still go there."""
        if not self._transport.is_closing():
            self._transport.write_eof()
        return not self._near.at_end

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._near.channel = None
        self._transport.close()
