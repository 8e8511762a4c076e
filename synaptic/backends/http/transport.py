"""The transport under our clients: httpx outside, aiohttp inside.

Imported on first use only, since both libraries together take 0.4 s. Why not one of them alone, measured on two cores
with 64 calls at once (``benchmarks/http_transport.py``): httpx over its own pool carries 140 calls/s at 7 ms of
processor time each, over aiohttp 860 at 0.9 ms, aiohttp alone 1080 at 0.3 ms. So a client is an
:class:`httpx.AsyncClient` to its users, while our own calls (:meth:`NodeClient.reply`) go past its requests and
responses, which cost 0.3 ms a call, straight to aiohttp's connections and its parser: its sessions, made for cookies,
redirects and proxies as well, take as long as both together. The library ``httpx-aiohttp`` stands between the two in
speed, caps connections at 100, and takes a server that hung up for one that did not answer in time.
"""

from __future__ import annotations

import asyncio
import re
import select
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import aiohttp
import httpx
from aiohttp.http_exceptions import ContentLengthError, HttpProcessingError, TransferEncodingError
from multidict import CIMultiDict
from yarl import URL

from synaptic.trace_context import HEADER

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Mapping

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.http import RawResponseMessage

KEEPALIVE_SECONDS = 30.0
REMEMBERED_HEADS = 64
_NOT_ADDED = ("accept", "accept-encoding", "content-type", "user-agent")
SENT_TOGETHER = 64 * 1024
"""Bytes of a body that goes out in one piece with what is before it; a longer one is not copied for that."""

LEAVE_SECONDS = 1.0
"""How long a server may take to notice that its client has gone."""

MOST_UNREAD = 1024 * 1024
"""Bytes that are read of a reply which was given up."""

OK, SWITCHING = 200, 101
_TRACE = HEADER.encode()
_UNSENDABLE = re.compile(r"[\r\n\0]")

FOREIGN = (aiohttp.ClientError, HttpProcessingError, OSError, ValueError, RuntimeError)
"""What aiohttp raises: its own errors, those of sockets, and Python's where it is used after it was closed."""


class NodeClient(httpx.AsyncClient):
    """A client of one server, for one event loop at a time.

    Everything that httpx can do works. Our own calls use :meth:`reply`, which knows no redirects, cookies, hooks or
    authentication flows: the headers that the client was made with are all it sends.

    Attributes:
        has_ca_file: Whether ``tls`` believes other certificates than the system's.
        sends_secrets: Whether the headers have credentials.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str],
        connect_timeout: float,
        tls: ssl.SSLContext | None,
        has_ca_file: bool = False,
    ) -> None:
        self._to_node = AiohttpTransport(tls)
        self.has_ca_file = has_ca_file
        super().__init__(
            base_url=base_url,
            headers=headers,
            timeout=httpx.Timeout(None, connect=connect_timeout),
            transport=self._to_node,
            trust_env=False,
            follow_redirects=False,
        )
        if self.base_url.scheme not in {"http", "https"} or not self.base_url.host:
            raise httpx.UnsupportedProtocol("an address begins with http:// or https:// and the server's name")
        own = dict(headers)
        if self.base_url.userinfo and "authorization" not in own:
            pair = httpx.BasicAuth(self.base_url.username, self.base_url.password)
            signed = next(pair.sync_auth_flow(httpx.Request("GET", self.base_url)))
            own["authorization"] = signed.headers["authorization"]
        self._bare_headers = CIMultiDict({"accept": "*/*", "user-agent": "synapticllamas", **own})
        self.sends_secrets = "authorization" in self._bare_headers
        self._json_headers = CIMultiDict({**self._bare_headers, "content-type": "application/json"})
        self._timeout_of_calls = aiohttp.ClientTimeout(total=None, connect=connect_timeout)
        self._root = f"{self.base_url.scheme}://{self.base_url.netloc.decode('ascii')}"
        self._below = self.base_url.raw_path.decode("ascii").rstrip("/")
        self._heads: dict[tuple[str, str, bool], RequestHead] = {}

    def reply(self, method: str, path: str, body: bytes | None = None, traceparent: str = "") -> AiohttpReply:
        """Return the reply to a request that is sent when it begins; ``body`` is JSON, and belongs to that span."""
        key = (method, path, body is None)
        head = self._heads.get(key)
        if head is None:
            url = URL(f"{self._root}{self._below}/{path.lstrip('/')}", encoded=True)
            head = RequestHead(method, url, self._bare_headers if body is None else self._json_headers)
            if len(self._heads) < REMEMBERED_HEADS:
                self._heads[key] = head
        return AiohttpReply(self._to_node, head, body, self._timeout_of_calls, traceparent)

    async def upload(self, path: str, pieces: AsyncIterator[bytes], most: int) -> tuple[int, Mapping[str, str], bytes]:
        """Send a body piece by piece, as it comes, over a connection of its own; nothing of it is kept.

        Args:
            path: Below the base URL.
            pieces: Of the body. What it raises is raised.
            most: Bytes of the answer that are read.

        Returns:
            Status, headers and body of the answer.

        Raises:
            httpx.TransportError: If the server is not reached, or the connection is cut.
        """
        failed: list[Exception] = []

        async def sent() -> AsyncIterator[bytes]:
            try:
                async for piece in pieces:
                    yield piece
            except Exception as error:
                failed.append(error)
                raise

        url = URL(f"{self._root}{self._below}/{path.lstrip('/')}", encoded=True)
        connector = aiohttp.TCPConnector(ssl=self._to_node.tls or True, force_close=True)
        try:
            async with (
                aiohttp.ClientSession(
                    connector=connector, headers=self._bare_headers, timeout=self._timeout_of_calls, trust_env=False
                ) as session,
                session.post(url, data=sent(), allow_redirects=False) as reply,
            ):
                return reply.status, reply.headers, await reply.content.read(most)
        except FOREIGN as error:
            if failed:
                raise failed[0] from None
            foreign, cause = translated(error)
            raise foreign from cause


class RequestHead:
    """What a request begins with; the next one to the same address with the same headers begins so, too.

    Attributes:
        address: Tells aiohttp's connector where to connect to; it is not sent itself.
        method: Of HTTP.
        closes: Whether the server is told to close the connection behind its answer.

    Raises:
        httpx.TransportError: If something in it cannot be sent.
    """

    __slots__ = ("_lines", "address", "closes", "method")

    def __init__(self, method: str, url: URL, headers: CIMultiDict[str]) -> None:
        try:
            self.address = aiohttp.ClientRequest(
                method, url, headers=headers, skip_auto_headers=_NOT_ADDED, loop=asyncio.get_running_loop()
            )
        except (aiohttp.ClientError, ValueError) as error:
            foreign, cause = translated(error)
            raise foreign from cause
        self.method = self.address.method
        own = self.address.headers.copy()
        for name in ("content-length", "transfer-encoding"):  # a body is sent whole
            own.popall(name, None)
        self.closes = own.get("connection", "").lower() == "close"
        lines = [f"{self.method} {url.raw_path_qs} HTTP/1.1", *(f"{name}: {value}" for name, value in own.items())]
        if any(_UNSENDABLE.search(line) for line in lines):
            raise httpx.LocalProtocolError("a header has a character that cannot be sent")
        self._lines = "\r\n".join(lines).encode()

    def before(self, body: bytes | None, traceparent: str = "") -> bytes:
        """Return what is sent before a body, which may belong to a span of a trace."""
        if traceparent:
            length = len(body or b"")
            return b"%b\r\n%b: %b\r\nContent-Length: %d\r\n\r\n" % (self._lines, _TRACE, traceparent.encode(), length)
        if body is None and self.method not in aiohttp.ClientRequest.POST_METHODS:
            return self._lines + b"\r\n\r\n"
        return b"%b\r\nContent-Length: %d\r\n\r\n" % (self._lines, len(body or b""))


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends over one connector of aiohttp for each event loop that it is used in, one after the other.

    The number of connections is not capped; idle ones are kept for 30 s. Names are resolved again for each connection.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self._connector: _Connector | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self.replies: set[AiohttpReply] = set()

    async def connector(self) -> _Connector:
        """Return the connector of the running event loop.

        Raises:
            RuntimeError: If it is in use in another event loop.
        """
        loop = asyncio.get_running_loop()
        if self._connector is not None and self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                raise RuntimeError("this client is in use in another event loop; make one for each with new_client()")
            forgotten, self._connector = self._connector, None  # its connections died with their loop
            await forgotten.close()
        if self._connector is None:
            self._connector = _Connector(
                limit=0, keepalive_timeout=KEEPALIVE_SECONDS, use_dns_cache=False, ssl=self.tls or True
            )
            self._loop = loop
        return self._connector

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request of httpx."""
        limits = request.extensions.get("timeout", {})
        timeout = aiohttp.ClientTimeout(total=None, connect=limits.get("connect"), sock_read=limits.get("read"))
        headers = CIMultiDict(
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
        )
        url = URL(str(request.url.copy_with(username=None, password=None)), encoded=True)
        head = RequestHead(request.method, url, headers)
        reply = AiohttpReply(self, head, await request.aread() or None, timeout)
        await reply.begin()
        return httpx.Response(reply.status_code, headers=reply.raw_headers, stream=_Body(reply))

    async def aclose(self) -> None:
        """Close every connection; replies that are being read end with an error."""
        self._closed = True
        connector, self._connector = self._connector, None
        for reply in tuple(self.replies):
            reply.abort()
        if connector is not None:
            await connector.close()

    @property
    def closed(self) -> bool:
        """Whether :meth:`aclose` was called."""
        return self._closed


class AiohttpReply:
    """The reply to one request, read by the caller; :class:`~synaptic.backends.http.reply.Reply` says how."""

    def __init__(
        self,
        owner: AiohttpTransport,
        head: RequestHead,
        body: bytes | None,
        timeout: aiohttp.ClientTimeout,
        traceparent: str = "",
    ) -> None:
        self._owner = owner
        self._traceparent = traceparent
        self._head = head
        self._body = body
        self._timeout = timeout
        self._message: RawResponseMessage | None = None
        self._content: aiohttp.StreamReader | None = None
        self._lent: Connection | None = None
        self._failure: Exception | None = None
        self.connection: asyncio.Transport | None = None

    @property
    def status_code(self) -> int:
        """The status, once the reply has begun."""
        return self._begun().code

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, once the reply has begun."""
        return self._begun().headers

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers as they came, once the reply has begun."""
        return list(self._begun().raw_headers)

    @property
    def has_ended(self) -> bool:
        """Whether the end of the body has come, read or not: the connection is free."""
        return self._content is not None and self._content.is_eof()

    async def begin(self) -> None:
        """Send the request and return when the headers have come; raise what httpx would raise."""
        connector = await self._owner.connector()
        self._owner.replies.add(self)
        try:
            self._lent = lent = await connector.lend(self, self._head, self._timeout)
            await self._exchange(lent)
        except FOREIGN as error:
            await self._give_up()
            foreign, cause = self._translated(error)
            raise foreign from cause
        except BaseException:
            await self._give_up()
            raise

    async def _exchange(self, lent: Connection) -> None:
        """Send the request over a connection, and wait for the headers of the reply.

        The parts of aiohttp that its sessions are made of, without what a session adds for other uses: cookies,
        redirects, proxies, and a task for each body.
        """
        protocol = lent.protocol
        assert protocol is not None
        if self.connection is None:
            raise aiohttp.ClientConnectionResetError("the connection was closed before the request")
        protocol.set_response_params(
            skip_payload=self._head.method == "HEAD",
            read_until_eof=True,
            auto_decompress=False,
            read_timeout=self._timeout.sock_read,
        )
        before = self._head.before(self._body, self._traceparent)
        if self._body is None or len(self._body) > SENT_TOGETHER:
            self.connection.write(before)
            if self._body is not None:
                self.connection.write(self._body)
        else:
            self.connection.write(before + self._body)
        protocol.start_timeout()
        while True:
            message, content = await protocol.read()
            if message.code >= OK or message.code == SWITCHING:
                break
        self._message, self._content = message, content
        content.on_eof(self._ended)

    def _ended(self) -> None:
        """Give the connection back: the whole body has come. One that has not taken the whole request is closed."""
        lent, self._lent = self._lent, None
        if lent is None:
            return
        if self.connection is None or self.connection.get_write_buffer_size() or self.status_code == SWITCHING:
            lent.close()
        else:
            lent.release()

    async def read(self) -> bytes:
        """Return what has come of the body; ``b""`` at its end."""
        content = self._content
        assert content is not None, "begin() has not returned"
        try:
            if self._failure is None:
                return await content.readany()
            raise self._failure
        except FOREIGN as error:
            if self._failure is None:
                self._failure = error
                if came_before := _unread(content):
                    return came_before
            foreign, cause = self._translated(error)
            raise foreign from cause

    async def leave(self, take: Callable[[bytes], None]) -> None:
        """Ask for nothing more, and give ``take`` what the server had sent until it noticed, but not for long.

        Our half of the connection is closed. Servers take that for a client that has gone, as they do a closed one, but
        what was under way still arrives: Go's ``net/http`` cancels the request, cpp-httplib finds its socket dead, and
        asyncio closes the connection. TLS has no such half: there, what lies in our buffers is all that can be had.
        """
        if self.has_ended:
            assert self._content is not None
            take(self._content.read_nowait())
            return
        lent, connection = self._lent, self.connection
        seconds = LEAVE_SECONDS
        if lent is not None and connection is not None:
            assert lent.protocol is not None
            lent.protocol.force_close()  # no other request goes over it
            if connection.can_write_eof():
                connection.write_eof()
            else:
                seconds = 0.0
        reading = asyncio.get_running_loop().create_task(self._rest(take, seconds))
        cancelled: asyncio.CancelledError | None = None
        while not reading.done():
            try:
                await asyncio.wait({reading})
            except asyncio.CancelledError as error:  # a client that goes may be noticed twice
                cancelled = error
        reading.result()
        if cancelled is not None:
            raise cancelled

    async def _rest(self, take: Callable[[bytes], None], seconds: float) -> None:
        left = MOST_UNREAD
        with suppress(TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(seconds):
                while left > 0 and (data := await self.read()):
                    take(data)
                    left -= len(data)

    async def aclose(self) -> None:
        """Give up what has not come yet and close its connection, whatever else cancels this task meanwhile."""
        self._owner.replies.discard(self)
        if self._lent is not None or self.connection is None or self.connection.is_closing():
            # Closing may mean: waiting until the rest of a request is sent that the server has answered already.
            await self._give_up()

    def abort(self) -> None:
        """Close the connection now, without waiting for what is still to be sent over it."""
        if self.connection is not None:
            self.connection.abort()
        lent, self._lent = self._lent, None
        if lent is not None:
            lent.close()

    def lost(self, reason: BaseException | None) -> None:
        """Wake the reader with an error, because the connection is gone, unless the body is complete."""
        content = self._content
        if content is not None and not content.is_eof() and content.exception() is None:
            content.set_exception(reason or aiohttp.ServerDisconnectedError())

    async def _give_up(self) -> None:
        """Abort, and let the event loop close the socket and end what was sending: that takes it two turns."""
        self._owner.replies.discard(self)
        self.abort()
        cancelled: asyncio.CancelledError | None = None
        for _ in range(2):
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    def _begun(self) -> RawResponseMessage:
        assert self._message is not None, "begin() has not returned"
        return self._message

    def _translated(self, error: Exception) -> tuple[Exception, BaseException | None]:
        if self._owner.closed and isinstance(error, (aiohttp.ClientError, RuntimeError)):
            return httpx.ReadError("closed by this program"), error
        return translated(error)


class _Body(httpx.AsyncByteStream):
    """The body of a reply, for httpx."""

    def __init__(self, reply: AiohttpReply) -> None:
        self._reply = reply

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self._reply.read():
            yield data

    async def aclose(self) -> None:
        await self._reply.aclose()


class _Connector(aiohttp.TCPConnector):
    """Hands out connections that are good for one more request, as far as anyone can know."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # Both ends are weak: a reply holds its connection, and its request with all that was asked.
        self._carried: WeakKeyDictionary[ResponseHandler, ref[AiohttpReply]] = WeakKeyDictionary()

    async def lend(self, reply: AiohttpReply, head: RequestHead, within: aiohttp.ClientTimeout) -> Connection:
        """Return an idle connection, or a new one, for one request; the reply hears when it is lost.

        aiohttp offers an idle connection whose end has arrived but was not yet read (the event loop was busy), and one
        on which the server sent something unasked, which it would take for the answer to the next request.

        Raises:
            aiohttp.ClientError: If there is none to be had.
        """
        while True:
            try:
                connection = await self.connect(head.address, [], within)
            except TimeoutError as error:
                raise aiohttp.ConnectionTimeoutError("no connection in time") from error
            protocol = connection.protocol
            assert protocol is not None
            if protocol not in self._carried:
                if protocol.closed is not None:
                    protocol.closed.add_done_callback(partial(self._lost, ref(protocol)))
                break
            if not protocol.should_close and not _readable(protocol.transport):
                break
            connection.close()
        if head.closes:
            protocol.force_close()  # whatever the server announces: it was told to close, and some do
        self._carried[protocol] = ref(reply)
        reply.connection = protocol.transport
        return connection

    def _lost(self, protocol: ref[ResponseHandler], closed: asyncio.Future[None]) -> None:
        """Tell the reply that its connection is gone: aiohttp 3.14 has readers wait forever after a broken chunk."""
        if not closed.cancelled():
            closed.exception()  # retrieved, or asyncio would log it: there may be no reader
        carrier = protocol()
        carried = None if carrier is None else self._carried.pop(carrier, None)
        reply = None if carried is None else carried()
        if carrier is not None and reply is not None:
            reply.lost(carrier.exception())


def _readable(transport: asyncio.Transport | None) -> bool:
    """Tell whether an idle connection has something to read: its end, or what cannot be an answer."""
    socket = None if transport is None else transport.get_extra_info("socket")
    number = -1 if socket is None else socket.fileno()
    if number < 0:
        return True
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([number], [], [], 0)[0])
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(0))


def _unread(content: aiohttp.StreamReader) -> bytes:
    """Return what came before the body broke off, which aiohttp would not give any more."""
    content.set_exception(None)  # type: ignore[arg-type]  # (takes the error back, so that reading goes on)
    return content.read_nowait()


def translated(error: Exception) -> tuple[Exception, BaseException | None]:
    """Return the exception of httpx that means what ``error`` (:data:`FOREIGN`) does, and the cause to be shown.

    The cause is never one that carries the request's headers: they may hold a secret.
    """
    cause = error.__cause__
    found: Exception
    match error:
        case aiohttp.InvalidURL():
            found = httpx.UnsupportedProtocol(str(error))
        case aiohttp.ClientResponseError():
            return httpx.RemoteProtocolError(error.message), cause
        case aiohttp.ConnectionTimeoutError():
            found = httpx.ConnectTimeout("no connection in time")
        case aiohttp.SocketTimeoutError():
            found = httpx.ReadTimeout("nothing came in time")
        case aiohttp.ClientConnectorError():
            found = httpx.ConnectError(str(cause or error))
        case aiohttp.ServerDisconnectedError():
            found = httpx.RemoteProtocolError("server disconnected")
        case aiohttp.ClientPayloadError():
            found = _broken_body(error, cause)
        case aiohttp.ClientError():
            found = httpx.ReadError(str(cause or error))
        case HttpProcessingError():
            found = httpx.RemoteProtocolError(error.message)
        case ValueError():
            found = httpx.LocalProtocolError("a header has a character that cannot be sent")
        case _:
            found = httpx.ReadError(str(error))
    return found, error


def _broken_body(error: aiohttp.ClientPayloadError, cause: BaseException | None) -> Exception:
    """Tell a body that was cut from one that is not HTTP."""
    text = str(cause or error)
    cut = isinstance(cause, (ContentLengthError, OSError)) or "not enough data" in text.lower()
    if isinstance(cause, TransferEncodingError) and not cut:
        return httpx.RemoteProtocolError(cause.message)
    return httpx.ReadError(text if isinstance(cause, OSError) or not cut else "the server closed it")
