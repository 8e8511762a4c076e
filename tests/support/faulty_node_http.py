"""A lean HTTP/1.1 server side for the scripted node: requests in, raw bytes out, and at once when a client leaves.

It exists because the scripted node must carry over a thousand calls a second beside whatever it is measured with, and
must be able to break every rule of HTTP where a real server library would keep it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import Protocol

REASONS = {
    200: "OK",
    201: "Created",
    400: "Bad Request",
    404: "Not Found",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
JSON = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson"
TEXT = "text/plain"


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Host(Protocol):
    """Who serves the requests of a connection."""

    def opened(self, connection: Connection) -> None: ...

    def closed(self, connection: Connection) -> None: ...

    async def serve(self, connection: Connection, request: Request) -> None: ...


class Connection(asyncio.Protocol):
    """One client, kept for its next request. A client that closes its side has left: its request is cancelled."""

    transport: asyncio.Transport

    def __init__(self, host: Host) -> None:
        self._host = host
        self._buffer = bytearray()
        self._outgoing = b""
        self._task: asyncio.Task[None] | None = None
        self._keep = True
        self.cut_by_us = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._host.opened(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._task is None:
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
        self._host.closed(self)

    def reply(self, status: int, body: bytes, content_type: str = JSON) -> None:
        """Answer properly, in one piece."""
        self.transport.write(head(status, content_type, f"Content-Length: {len(body)}") + body)

    def chunks(self, lines: list[bytes], first: bytes = b"") -> None:
        """Have each line sent as a chunk of its own, after the bytes of ``first``, with the next :meth:`flush`."""
        self._outgoing += first + b"".join(b"%x\r\n%b\r\n" % (len(line), line) for line in lines)

    def flush(self) -> None:
        """Send what is to be sent."""
        outgoing, self._outgoing = self._outgoing, b""
        self.transport.write(outgoing)

    def end(self) -> None:
        """End a chunked body as it should be."""
        self._outgoing += b"0\r\n\r\n"
        self.flush()

    def cut(self, *, reset: bool) -> None:
        """Close the connection from our side: with RST, or in the orderly way of TCP (FIN) after what was written."""
        self.cut_by_us = True
        if reset and not self.transport.is_closing():
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()

    def _next(self) -> None:
        """Start to serve the next request if all of it is there."""
        request = self._take()
        if request is not None:
            self._keep = request.headers.get("connection", "").lower() != "close"
            self._task = asyncio.get_running_loop().create_task(self._host.serve(self, request))
            self._task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled():
            return
        if error := task.exception():
            asyncio.get_running_loop().call_exception_handler(
                {"message": "the scripted node failed", "exception": error}
            )
            self.cut(reset=True)
        elif not self._keep:
            self.transport.close()
        elif self._buffer and not self.transport.is_closing():
            self._next()

    def _take(self) -> Request | None:
        """Take one whole request from what has come, or ``None``."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        first, *fields = self._buffer[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        if headers.get("transfer-encoding", "").lower() == "chunked":
            found = unchunked(self._buffer, end + 4)
        else:
            length = int(headers.get("content-length", "0"))
            whole = len(self._buffer) >= end + 4 + length
            found = (bytes(self._buffer[end + 4 : end + 4 + length]), end + 4 + length) if whole else None
        if found is None:
            return None
        body, after = found
        del self._buffer[:after]
        method, target, _ = first.split(" ")
        return Request(method, target.partition("?")[0], headers, body)


def head(status: int, content_type: str, field: str = "Transfer-Encoding: chunked") -> bytes:
    """Return the status line and the headers of an answer."""
    return (
        f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}\r\nContent-Type: {content_type}\r\n{field}\r\n\r\n".encode()
    )


def unchunked(data: bytearray, start: int) -> tuple[bytes, int] | None:
    """Return the chunked body that starts at ``start`` and where it ends, or ``None`` if it is not whole yet."""
    body = b""
    while (line := data.find(b"\r\n", start)) >= 0:
        size = int(data[start:line].partition(b";")[0], 16)
        stop = line + 2 + size
        if len(data) < stop + 2:
            return None
        if size == 0:
            return body, stop + 2
        body += data[line + 2 : stop]
        start = stop + 2
    return None
