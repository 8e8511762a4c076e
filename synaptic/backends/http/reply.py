"""One HTTP reply: what it looks like to its reader, and how one is had of any client of httpx.

A reply of our own client is :class:`~synaptic.backends.http.transport.AiohttpReply`. That of another client is read by
a task of its own, so that it can be abandoned at any moment without a trace: httpcore guards its clean-up with the
cancel scopes of anyio, which ``Task.cancel()`` passes straight through: one cancellation at the wrong step, or two in a
row, leave a connection open without an owner. So the task that talks to httpx is only ever cancelled through
such a scope, and the task that waits for the reply may be cancelled anywhere.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import httpx

CLOSE_SECONDS = 1.0
UNREAD_PACKETS = 256
"""How far the network may run ahead of the reader: 16 MiB, as httpcore reads 64 KiB at a time."""


class HttpReply(Protocol):
    """The reply to one request, its body unread. Its maker closes it."""

    @property
    def status_code(self) -> int:
        """The status, once the reply has begun."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, once the reply has begun."""
        ...

    @property
    def has_ended(self) -> bool:
        """Whether the end of the body has come, read or not: the connection is free."""
        ...

    async def begin(self) -> None:
        """Return when the headers have come; raise what httpx raised instead."""
        ...

    async def read(self) -> bytes:
        """Return what has come of the body, ``b""`` at its end; raise what httpx raised in the middle of it."""
        ...

    async def leave(self, take: Callable[[bytes], None]) -> None:
        """Ask for nothing more, and give ``take`` what was sent and not read, whatever cancels this task meanwhile."""
        ...

    async def aclose(self) -> None:
        """Give up what has not come yet and close its connection, whatever else cancels this task meanwhile."""
        ...


class HttpxReply:
    """A reply read by a task of its own."""

    def __init__(self, client: httpx.AsyncClient, request: httpx.Request) -> None:
        import anyio  # noqa: PLC0415 - comes with httpx, which is imported by now

        request.extensions = {**request.extensions, "trace": self._trace}
        self._scope = anyio.CancelScope()
        self._answered = asyncio.Event()
        self._response: httpx.Response | None = None
        self._packets: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._opened: list[Any] = []
        self._task = asyncio.get_running_loop().create_task(self._read(client, request))

    @property
    def status_code(self) -> int:
        """The status, once the reply has begun."""
        return self._begun().status_code

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, once the reply has begun."""
        return self._begun().headers

    @property
    def has_ended(self) -> bool:
        """Whether the end of the body has come, read or not: the connection is free."""
        return self._task.done() and not self._scope.cancel_called

    async def begin(self) -> None:
        """Return when the headers have come; raise what httpx raised instead."""
        await self._answered.wait()
        if self._response is None:
            await self._end()

    async def read(self) -> bytes:
        """Return what has come of the body, ``b""`` at its end; raise what httpx raised in the middle of it."""
        if (packet := await self._packets.get()) is not None:
            self._room.set()
            return packet
        self._packets.put_nowait(None)  # for the next reader of the same body, who finds it at its end
        await self._end()
        return b""

    async def leave(self, take: Callable[[bytes], None]) -> None:
        """Give ``take`` what has come and was not read: httpx cannot close a half of its connections."""
        for _ in range(self._packets.qsize()):
            take(self._packets.get_nowait() or b"")

    async def aclose(self) -> None:
        """Give up what has not come yet and close its connection, whatever else cancels this task meanwhile."""
        self._scope.cancel()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CLOSE_SECONDS
        cancelled: asyncio.CancelledError | None = None
        while not self._task.done():
            if loop.time() >= deadline:
                self._task.cancel()
            try:
                await asyncio.wait({self._task}, timeout=CLOSE_SECONDS)
            except asyncio.CancelledError as error:
                cancelled = error
        if not self._task.cancelled():
            self._task.exception()  # retrieved, or asyncio would log it: the reader is gone
        if cancelled is not None:
            raise cancelled

    def _begun(self) -> httpx.Response:
        assert self._response is not None, "begin() has not returned"
        return self._response

    async def _end(self) -> None:
        await asyncio.wait({self._task})
        self._task.result()

    async def _read(self, client: httpx.AsyncClient, request: httpx.Request) -> None:
        with self._scope:
            try:
                self._response = await self._send(client, request)
                self._answered.set()
                async for packet in self._response.aiter_bytes():
                    if not packet:
                        continue
                    self._packets.put_nowait(packet)
                    while self._packets.qsize() >= UNREAD_PACKETS:
                        self._room.clear()
                        await self._room.wait()
            finally:
                self._answered.set()
                self._packets.put_nowait(None)

    async def _send(self, client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
        """Send the request; if that is abandoned, close the connection that was opened for it.

        Between opening a connection and its first use, httpcore 1.0 forgets it when it is cancelled.
        """
        import anyio  # noqa: PLC0415 - as above

        try:
            return await client.send(request, stream=True)
        except BaseException:
            with anyio.CancelScope(shield=True):
                for opened in self._opened:
                    await opened.aclose()
            raise

    async def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        if event in {"connection.connect_tcp.complete", "connection.start_tls.complete"}:
            self._opened.append(info["return_value"])
