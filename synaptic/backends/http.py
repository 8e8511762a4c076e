"""The one module that speaks HTTP: a client, streams, and the mapping of every foreign error to ours.

A backend sends with :func:`stream_request` and reads with :func:`ndjson` or :func:`sse`, or asks once with
:func:`get_json` and :func:`post_json`. Whatever goes wrong is a :class:`~synaptic.errors.BackendError`; what a server
says is untrusted, so it is cut and cleaned before it is quoted. httpx is imported on first use: it takes 0.2 s.
"""

from __future__ import annotations

import asyncio
import json as jsonlib
import ssl
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from synaptic.backends.http_errors import (
    Origin,
    ReadError,
    closed_client,
    error_in_stream,
    from_httpx,
    no_address,
    no_answer_within,
    not_json,
    status_error,
)
from synaptic.backends.http_reply import Reply
from synaptic.errors import BackendError, ProtocolError, StreamTruncated

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager

    import httpx

CONNECT_TIMEOUT = 5.0
"""Seconds to reach an address: two lost SYN packets (1 s and 3 s) still fit."""

MAX_LINE_BYTES = 16 * 1024 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
ERROR_BODY_SECONDS = 1.0
DRAIN_SECONDS = 0.05

JsonObject: TypeAlias = dict[str, Any]


def new_client(
    base_url: str, *, connect_timeout: float = CONNECT_TIMEOUT, headers: Mapping[str, str] | None = None
) -> httpx.AsyncClient:
    """Return a client for one server.

    Reads have no timeout: how long a reply may take is bounded by the policies around a backend, which know what
    is being waited for. The number of connections is not capped, for the same reason. Proxy variables of the
    environment are ignored: a company's proxy can neither reach nor should see a machine of the local network.

    Args:
        base_url: ``http://host:port``.
        connect_timeout: Seconds.
        headers: Sent with every request.

    """
    import httpx  # noqa: PLC0415 - heavy, and most commands never send anything

    try:
        urlsplit(base_url).port  # noqa: B018 - asked because it refuses port 99999, which httpx accepts
        return httpx.AsyncClient(
            base_url=base_url,
            headers={"accept-encoding": "identity", **(headers or {})},
            timeout=httpx.Timeout(None, connect=connect_timeout),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=16, keepalive_expiry=30.0),
            verify=_tls_context(base_url),
            trust_env=False,
            follow_redirects=False,
        )
    except (httpx.InvalidURL, ValueError) as error:
        raise no_address(error, Origin("http", base_url)) from error


@asynccontextmanager
async def stream_request(
    client: httpx.AsyncClient,
    method: str,
    path: str,
    *,
    backend: str,
    node: str,
    json: Mapping[str, Any] | None = None,
    read_error: ReadError | None = None,
) -> AsyncIterator[Reply]:
    """Send a request and give its reply, the status checked, the body unread.

    Errors of the connection are mapped inside the whole ``async with`` block. When the block is left before the body
    was read to its end, also by cancellation, the connection is closed before the block is left.

    Args:
        client: From :func:`new_client`, or any other.
        method: ``GET`` or ``POST``.
        path: Below the client's base URL.
        backend: Name of the backend, for the errors.
        node: Address of the server, for the errors.
        json: The body.
        read_error: Turns a status and body into the error that this API means by it; ``None`` from it means "as usual".

    Raises:
        BackendError: The one that fits, see :mod:`synaptic.errors`.

    """
    origin = Origin(backend, node)
    with mapped_errors(origin, answered=False):
        reply = Reply(client, _request(client, method, path, json, origin))
    try:
        with mapped_errors(origin, answered=False):
            await reply.begin()
        with mapped_errors(origin, answered=True):
            await _check(reply, origin, read_error)
            yield reply
    finally:
        await reply.aclose()


async def get_json(
    client: httpx.AsyncClient,
    path: str,
    *,
    backend: str,
    node: str,
    within: float | None = None,
    read_error: ReadError | None = None,
) -> JsonObject:
    """Return the JSON object at ``path``; ``within`` bounds the whole exchange, in seconds.

    Raises:
        BackendError: The one that fits, see :mod:`synaptic.errors`.

    """
    request = stream_request(client, "GET", path, backend=backend, node=node, read_error=read_error)
    return await _exchange(request, within, Origin(backend, node))


async def post_json(
    client: httpx.AsyncClient,
    path: str,
    payload: Mapping[str, Any],
    *,
    backend: str,
    node: str,
    within: float | None = None,
    read_error: ReadError | None = None,
) -> JsonObject:
    """Send ``payload`` to ``path`` and return the JSON object that comes back; ``within`` as in :func:`get_json`.

    Raises:
        BackendError: The one that fits, see :mod:`synaptic.errors`.

    """
    request = stream_request(client, "POST", path, json=payload, backend=backend, node=node, read_error=read_error)
    return await _exchange(request, within, Origin(backend, node))


async def ndjson(reply: Reply, *, backend: str, node: str) -> AsyncGenerator[JsonObject, None]:
    """Yield every line of the body as a JSON object. It cannot know whether the stream is complete: its caller must.

    Raises:
        ProtocolError: If a line is not a JSON object.
        StreamTruncated: If the body ends within a line, or the connection is cut.

    """
    origin = Origin(backend, node)
    async with aclosing(_lines(reply, origin)) as lines:
        async for line in lines:
            if text := line.strip():
                yield _line_object(text, origin, complete=line.endswith(b"\n"))


async def sse(reply: Reply, *, backend: str, node: str) -> AsyncGenerator[JsonObject, None]:
    """Yield the data of every server-sent event as a JSON object; return only after ``[DONE]``.

    Raises:
        ProtocolError: If the data of an event is not a JSON object.
        StreamFailed: If the server sends an error, as llama-server does in mid-stream.
        StreamTruncated: If the body ends without ``[DONE]``.

    """
    origin = Origin(backend, node)
    async with aclosing(_lines(reply, origin)) as lines:
        event = _Event()
        async for line in lines:
            if not line.endswith(b"\n"):
                break
            data = event.feed(line.rstrip(b"\r\n"))
            if data is None:
                continue
            if data.strip() == b"[DONE]":
                await drain(lines)
                return
            value = parse_object(data, origin)
            if error := error_in_stream(value, origin):
                raise error
            yield value
    raise StreamTruncated(
        f"{origin.node} ended the stream without announcing its end", backend=origin.backend, node=origin.node
    )


async def drain(stream: AsyncIterator[Any], seconds: float = DRAIN_SECONDS) -> None:
    """Read what is left of ``stream`` after its last useful item, so that its connection can be used again.

    It gives up after ``seconds`` and ignores what goes wrong: the reply is complete.
    """
    try:
        async with asyncio.timeout(seconds):
            async for _ in stream:
                pass
    except (TimeoutError, BackendError) as _complete_anyway:
        return


@contextmanager
def mapped_errors(origin: Origin, *, answered: bool) -> Iterator[None]:
    """Turn every exception of httpx into ours; ``answered`` says whether the headers of a reply had come."""
    import httpx  # noqa: PLC0415 - as above

    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL, httpx.CookieConflict, httpx.StreamError) as error:
        raise from_httpx(error, origin, answered=answered) from error


def _tls_context(base_url: str) -> ssl.SSLContext:
    """Return what checks certificates: the system's trust for https; nothing to trust where http needs none.

    Reading the system's certificates takes 70 ms, which no plain connection should pay.
    """
    return ssl.create_default_context() if base_url.startswith("https") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def encode_json(payload: Mapping[str, Any]) -> bytes:
    """Return ``payload`` as UTF-8; halves of surrogate pairs, which small models produce, become U+FFFD."""
    text = jsonlib.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _without_lone_surrogates(text).encode()


@dataclass(slots=True)
class _Event:
    """One server-sent event while its lines come in."""

    data: bytes | None = None

    def feed(self, line: bytes) -> bytes | None:
        """Take one line without its end; return the event's data when the line completes it.

        llama.cpp has sent errors both as ``error: {...}``, a field the standard does not know, and inside ``data``.
        """
        if not line:
            data, self.data = self.data, None
            return data
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"error":
            value = b'{"error":' + value + b"}"
        elif field != b"data":
            return None
        self.data = value if self.data is None else self.data + b"\n" + value
        return None


def _request(
    client: httpx.AsyncClient, method: str, path: str, json: Mapping[str, Any] | None, origin: Origin
) -> httpx.Request:
    if client.is_closed:
        raise closed_client(origin)
    if json is None:
        return client.build_request(method, path)
    return client.build_request(method, path, content=encode_json(json), headers={"content-type": "application/json"})


async def _check(reply: Reply, origin: Origin, read_error: ReadError | None) -> None:
    """Raise unless the status is 200 and the body is no web page."""
    content_type = reply.headers.get("content-type", "")
    html = content_type.partition(";")[0].strip().lower() == "text/html"
    if reply.status_code == 200 and not html:  # noqa: PLR2004 - the number is the name
        return
    body = await _start_of_body(reply)
    if reply.status_code == 200:  # noqa: PLR2004 - the number is the name
        raise not_json(body, origin)
    raise status_error(reply.status_code, reply.headers, body, origin, html=html, read_error=read_error)


async def _start_of_body(reply: Reply) -> bytes:
    """Return the first bytes of an error's body: as many as come in time and fit."""
    body = bytearray()
    try:
        async with asyncio.timeout(ERROR_BODY_SECONDS), aclosing(reply.aiter_bytes()) as pieces:
            async for data in pieces:
                body += data
                if len(body) >= MAX_ERROR_BYTES:
                    break
    except TimeoutError:
        return bytes(body)
    return bytes(body[:MAX_ERROR_BYTES])


async def _exchange(request: AbstractAsyncContextManager[Reply], within: float | None, origin: Origin) -> JsonObject:
    body = bytearray()
    try:
        async with asyncio.timeout(within), request as reply, aclosing(reply.aiter_bytes()) as pieces:
            async for data in pieces:
                body += data
                if len(body) > MAX_BODY_BYTES:
                    raise _too_long("a reply", MAX_BODY_BYTES, origin)
    except TimeoutError as error:
        raise no_answer_within(within, origin) from error
    return parse_object(bytes(body), origin)


def parse_object(text: bytes, origin: Origin) -> JsonObject:
    """Return the JSON object that ``text`` is.

    Raises:
        ProtocolError: If it is anything else.

    """
    try:
        value = jsonlib.loads(text.decode())
        if b"\\ud" in text or b"\\uD" in text:
            value = jsonlib.loads(_without_lone_surrogates(jsonlib.dumps(value, ensure_ascii=False)))
    except (ValueError, RecursionError) as error:
        raise not_json(text, origin) from error
    if not isinstance(value, dict):
        raise not_json(text, origin)
    return value


def _line_object(text: bytes, origin: Origin, *, complete: bool) -> JsonObject:
    try:
        return parse_object(text, origin)
    except ProtocolError as error:
        if complete:
            raise
        raise StreamTruncated(
            f"{origin.node} ended the stream in the middle of a line", backend=origin.backend, node=origin.node
        ) from error


async def _lines(reply: Reply, origin: Origin) -> AsyncGenerator[bytes, None]:
    """Yield the body's lines with their ends; only the last can lack one. Bytes, since packets split characters."""
    parts: list[bytes] = []
    size = 0
    async with aclosing(reply.aiter_bytes()) as body:
        async for data in body:
            *complete, rest = data.split(b"\n")
            for piece in complete:
                yield b"".join((*parts, piece, b"\n"))
                parts.clear()
                size = 0
            if rest:
                parts.append(rest)
                size += len(rest)
            if size > MAX_LINE_BYTES:
                raise _too_long("a line", MAX_LINE_BYTES, origin)
    if parts:
        yield b"".join(parts)


def _too_long(what: str, limit: int, origin: Origin) -> ProtocolError:
    message = f"{origin.node} sent {what} of more than {limit} bytes"
    return ProtocolError(message, backend=origin.backend, node=origin.node)


def _without_lone_surrogates(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
