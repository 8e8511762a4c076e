"""The one module that speaks HTTP: a client, streams, and the mapping of every foreign error to ours.

A backend sends with :func:`stream_request` and reads with :func:`ndjson` or :func:`sse`, or asks once with
:func:`get_json` and :func:`post_json`. Whatever goes wrong is a :class:`~synaptic.errors.BackendError`; what a server
says is untrusted, so it is cut and cleaned before it is quoted. What carries the calls is chosen in :func:`new_client`
and nowhere else (:mod:`synaptic.backends.http.transport` says why). It is imported on first use: it takes 0.4 s.
"""

from __future__ import annotations

import asyncio
import json as jsonlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, cast
from urllib.parse import urlsplit

from pydantic_core import from_json

from synaptic.backends.http.access import authorization, checked_headers, sends_secrets, sent_secrets, tls_context
from synaptic.backends.http.bounds import MAX_BODY_BYTES, MAX_STREAM_BYTES, Event, Lines, too_long, without_framing
from synaptic.backends.http.error_map import (
    MappedErrors,
    ReadError,
    closed_client,
    compressed,
    error_in_stream,
    no_address,
    no_answer_within,
    not_json,
    status_error,
)
from synaptic.backends.http.origin import Origin
from synaptic.backends.http.reply import HttpReply, HttpxReply
from synaptic.errors import BackendError, ProtocolError, StreamTruncated, Trouble
from synaptic.text import encode_json, whole_characters
from synaptic.trace_context import HEADER, TRACEPARENT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from types import TracebackType

    import httpx

    from synaptic.backends.http.transport import NodeClient

__all__ = [
    "CONNECT_TIMEOUT",
    "JsonObject",
    "authorization",
    "drain",
    "get_json",
    "json_body",
    "ndjson",
    "new_client",
    "parse_object",
    "post_json",
    "sse",
    "stream_request",
    "upload",
]

CONNECT_TIMEOUT = 5.0
"""Seconds to reach an address: two lost SYN packets (1 s and 3 s) still fit."""

MAX_ERROR_BYTES = 64 * 1024
ERROR_BODY_SECONDS = 1.0
DRAIN_SECONDS = 0.05
OK = 200
CREATED = 201

JsonObject: TypeAlias = dict[str, Any]


def new_client(
    base_url: str,
    *,
    connect_timeout: float = CONNECT_TIMEOUT,
    headers: Mapping[str, str] | None = None,
    ca_file: Path | None = None,
    verify: bool = True,
) -> httpx.AsyncClient:
    """Return a client for one server. It carries hundreds of calls at once.

    Reads have no timeout: how long a reply may take is bounded by the policies around a backend, which know what
    is being waited for. The number of connections is not capped, for the same reason. Proxy variables of the
    environment are ignored: a company's proxy can neither reach nor should see a machine of the local network.

    A client belongs to the event loop in which it is first used; when that one is closed, it may be used in another.

    Args:
        base_url: ``http://host:port`` or ``https://host:port``.
        connect_timeout: Seconds to look up the name, connect and agree on encryption, all together.
        headers: Sent with every request; :func:`authorization` makes the one for credentials.
        ca_file: Certificates in PEM that are believed instead of the system's.
        verify: ``False`` believes every certificate.

    Raises:
        BackendUnavailable: If ``base_url`` is not the address of a server.
        ConfigError: If ``headers`` cannot be sent, or ``ca_file`` cannot be used.
    """
    import httpx  # noqa: PLC0415 - heavy, and most commands never send anything

    from synaptic.backends.http.transport import NodeClient  # noqa: PLC0415 - as above

    try:
        _ = urlsplit(base_url).port  # refuses port 99999, which httpx accepts
        return NodeClient(
            base_url,
            headers={"accept-encoding": "identity", **checked_headers(headers or {})},
            connect_timeout=connect_timeout,
            tls=tls_context(ca_file, verify=verify) if base_url.startswith("https") else None,
            has_ca_file=ca_file is not None,
        )
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError) as error:
        raise no_address(error, Origin("http", base_url)) from error


def stream_request(
    client: httpx.AsyncClient,
    method: str,
    path: str,
    *,
    origin: Origin,
    json: Mapping[str, Any] | None = None,
    read_error: ReadError | None = None,
) -> AbstractAsyncContextManager[HttpReply]:
    """Send a request and give its reply, the status checked, the body unread.

    Errors of the connection are mapped inside the whole ``async with`` block, and every error of ours is cleared there
    of the credentials that were sent: some servers repeat the request. When the block is left before the body
    was read to its end, also by cancellation, the connection is closed before the block is left.

    Args:
        client: From :func:`new_client`, or any other.
        method: ``GET`` or ``POST``.
        path: Below the client's base URL.
        origin: Who is asked, for the errors.
        json: The body.
        read_error: Turns a status and body into the error that this API means by it; ``None`` from it means "as usual".

    Raises:
        BackendError: The one that fits, see :mod:`synaptic.errors`.
    """
    return _Exchange(client, (method, path, json), _asked(client, path, origin), read_error)


class _Exchange:
    """A request and its reply, for a block; a class, since every call enters it."""

    __slots__ = ("_client", "_errors", "_read_error", "_reply", "_sent")

    def __init__(
        self,
        client: httpx.AsyncClient,
        sent: tuple[str, str, Mapping[str, Any] | None],
        origin: Origin,
        read_error: ReadError | None,
    ) -> None:
        self._client, self._sent, self._read_error = client, sent, read_error
        self._errors = MappedErrors(origin, answered=False, secrets=sent_secrets(client))
        self._reply: HttpReply

    async def __aenter__(self) -> HttpReply:
        with self._errors as errors:
            reply = self._reply = _reply(self._client, *self._sent, errors.origin)
            try:
                await reply.begin()
                errors.answered = True
                if reply.status_code != OK or _is_web_page(reply) or _encoding(reply):
                    await _refuse(reply, errors.origin, self._read_error)
            except BaseException:
                await reply.aclose()
                raise
            return reply

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._errors:
            await self._reply.aclose()
        self._errors.__exit__(kind, error, trace)


async def get_json(
    client: httpx.AsyncClient,
    path: str,
    *,
    origin: Origin,
    within: float | None = None,
    read_error: ReadError | None = None,
) -> JsonObject:
    """Return the JSON object at ``path``; ``within`` bounds the whole exchange, in seconds.

    Raises:
        BackendError: The one that fits, see :mod:`synaptic.errors`.
    """
    request = stream_request(client, "GET", path, origin=origin, read_error=read_error)
    return await _exchange(request, within, origin)


async def get_json_objects(
    client: httpx.AsyncClient,
    path: str,
    *,
    origin: Origin,
    within: float | None = None,
    read_error: ReadError | None = None,
) -> list[JsonObject]:
    """Return the list of JSON objects at ``path``; ``within`` bounds the whole exchange, in seconds.

    Raises:
        BackendError: The one that fits, see :mod:`synaptic.errors`.
    """
    request = stream_request(client, "GET", path, origin=origin, read_error=read_error)
    text = await _body(request, within, origin)
    value = _parse(text, origin)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise not_json(text, origin)
    return value


async def post_json(
    client: httpx.AsyncClient,
    path: str,
    payload: Mapping[str, Any],
    *,
    origin: Origin,
    within: float | None = None,
    read_error: ReadError | None = None,
) -> JsonObject:
    """Send ``payload`` to ``path`` and return the JSON object that comes back; ``within`` as in :func:`get_json`.

    Raises:
        BackendError: The one that fits, see :mod:`synaptic.errors`.
    """
    request = stream_request(client, "POST", path, json=payload, origin=origin, read_error=read_error)
    return await _exchange(request, within, origin)


async def upload(
    client: httpx.AsyncClient,
    path: str,
    pieces: AsyncIterator[bytes],
    *,
    origin: Origin,
    read_error: ReadError | None = None,
) -> int:
    """Send a body of any length as it comes, and return the status of the answer, 200 or 201.

    Args:
        client: From :func:`new_client`.
        path: Below the client's base URL.
        pieces: Of the body; what it raises is raised.
        origin: Who is asked, for the errors.
        read_error: As in :func:`stream_request`.

    Raises:
        BackendError: The one that fits, see :mod:`synaptic.errors`.
    """
    origin = _asked(client, path, origin)
    with MappedErrors(origin, answered=False, secrets=sent_secrets(client)):
        status, headers, body = await cast("NodeClient", client).upload(path, pieces, MAX_ERROR_BYTES)
        if status not in {OK, CREATED}:
            raise status_error(status, headers, body, origin, read_error=read_error)
        return status


async def ndjson(
    reply: HttpReply,
    *,
    origin: Origin,
    most: int = MAX_STREAM_BYTES,
    unread: Callable[[JsonObject], None] | None = None,
) -> AsyncGenerator[JsonObject, None]:
    """Yield every line of the body as a JSON object. It cannot know whether the stream is complete: its caller must.

    Some proxies send the lines as server-sent events, with comments between them while a model loads.

    Args:
        reply: Whose body it is.
        origin: Who sends it, for the errors.
        most: Bytes of the body.
        unread: Takes what the server had sent when this is cancelled or closed.

    Raises:
        ProtocolError: If a line is not a JSON object.
        ReplyTooLong: If the body has more than ``most`` bytes, or a line is too long.
        StreamTruncated: If the body ends within a line, or the connection is cut.
    """
    lines, begun = Lines(origin, most), False
    coming: Iterator[bytes] = iter(())
    try:
        while data := await reply.read():
            coming = iter(lines.feed(data))
            for line in coming:
                if text := without_framing(line):
                    yield parse_object(text, origin)
                    begun = True
        if text := without_framing(lines.rest()):
            yield _last_line(text, origin, begun=begun)
    except ProtocolError as error:
        speaks_it = begun or "ndjson" in reply.headers.get("content-type", "")
        if speaks_it and error.trouble is Trouble.NO_API:
            error.trouble = error.hint = None  # a broken reply: no other program answers so
        raise
    except (asyncio.CancelledError, GeneratorExit):
        if unread is not None:

            def take(line: bytes) -> None:
                if text := without_framing(line):
                    unread(parse_object(text, origin))

            await _leave(reply, coming, lines, take)
        raise


async def sse(
    reply: HttpReply,
    *,
    origin: Origin,
    most: int = MAX_STREAM_BYTES,
    unread: Callable[[JsonObject], None] | None = None,
) -> AsyncGenerator[JsonObject, None]:
    """Yield the data of every server-sent event as a JSON object; return only after ``[DONE]``.

    The last event may lack the empty line behind it. Not every server sends ``[DONE]``: a caller who knows another sign
    of the end may take :class:`StreamTruncated` for one. The arguments are those of :func:`ndjson`.

    Raises:
        ProtocolError: If the data of an event is not a JSON object.
        ReplyTooLong: If the body has more than ``most`` bytes, or an event is too long.
        StreamFailed: If the server sends an error, as llama-server does in mid-stream.
        StreamTruncated: If the body ends without ``[DONE]``.
    """
    lines, event, begun = Lines(origin, most), Event(origin), False
    coming: Iterator[bytes] = iter(())
    try:
        while piece := await reply.read():
            coming = iter(lines.feed(piece))
            for line in coming:
                data = event.feed(line.removesuffix(b"\r"))
                if data is None or not data.strip():
                    continue
                if data.strip() == b"[DONE]":
                    await drain(reply)
                    return
                value = parse_object(data, origin)
                if error := error_in_stream(value, origin, begun=begun):
                    raise error
                yield value
                begun = True
    except (asyncio.CancelledError, GeneratorExit):
        if unread is not None:

            def take(line: bytes) -> None:
                data = event.feed(line.removesuffix(b"\r"))
                if data is not None and data.strip() not in {b"", b"[DONE]"}:
                    unread(parse_object(data, origin))

            await _leave(reply, coming, lines, take)
        raise
    data = event.rest(lines.rest())
    if data is not None and data.strip() not in {b"", b"[DONE]"}:
        yield _last_line(data, origin, begun=begun)
    if data is None or data.strip() != b"[DONE]":
        raise StreamTruncated(
            f"{origin.node} ended the stream without announcing its end", backend=origin.backend, node=origin.node
        )


async def _leave(reply: HttpReply, coming: Iterator[bytes], lines: Lines, take: Callable[[bytes], None]) -> None:
    """Give ``take`` the lines of a packet that were not read, and those that the server had sent behind it."""

    def feed(data: bytes) -> None:
        with suppress(BackendError):
            for line in lines.feed(data):
                take(line)

    with suppress(BackendError):
        for line in coming:
            take(line)
    await reply.leave(feed)


async def json_body(reply: HttpReply, *, origin: Origin) -> JsonObject:
    """Return the body of a reply as the JSON object that it is.

    Raises:
        ProtocolError: If it is anything else.
        ReplyTooLong: If it is too long.
        StreamTruncated: If the connection is cut.
    """
    return parse_object(await _read_all(reply, origin), origin)


async def drain(reply: HttpReply, seconds: float = DRAIN_SECONDS) -> None:
    """Read what is left of a body after its last useful item, so that its connection can be used again.

    It gives up after ``seconds`` and ignores what goes wrong: the reply is complete.
    """
    if reply.has_ended:
        return
    with suppress(TimeoutError, BackendError), MappedErrors(Origin("", ""), answered=True):
        async with asyncio.timeout(seconds):
            while await reply.read():
                pass
    if not reply.has_ended:
        await reply.aclose()


def _reply(
    client: httpx.AsyncClient, method: str, path: str, json: Mapping[str, Any] | None, origin: Origin
) -> HttpReply:
    """Return the reply, not yet begun, by the shortest way that the client knows."""
    if client.is_closed:
        raise closed_client(origin)
    body = None if json is None else encode_json(json)
    traceparent = "" if body is None else TRACEPARENT.get()
    if hasattr(client, "reply"):
        return cast("NodeClient", client).reply(method, path, body, traceparent)
    headers = None if body is None else {"content-type": "application/json"}
    if headers is not None and traceparent:
        headers[HEADER] = traceparent
    return HttpxReply(client, client.build_request(method, path, content=body, headers=headers))


def _asked(client: httpx.AsyncClient, path: str, origin: Origin) -> Origin:
    """Return who is asked, and with what: errors say something else to those who have given credentials."""
    ca_file = getattr(client, "has_ca_file", False)
    return Origin(origin.backend, origin.node, path, secret=sends_secrets(client), ca_file=ca_file)


def _is_web_page(reply: HttpReply) -> bool:
    return reply.headers.get("content-type", "").partition(";")[0].strip().lower() == "text/html"


def _encoding(reply: HttpReply) -> str:
    """Return how the body is compressed, against what was asked; "" if it is not, or httpx has undone it."""
    if isinstance(reply, HttpxReply):
        return ""
    encoding = reply.headers.get("content-encoding", "").strip().lower()
    return "" if encoding == "identity" else encoding


async def _refuse(reply: HttpReply, origin: Origin, read_error: ReadError | None) -> NoReturn:
    """Raise what a status other than 200, a web page, or a body that cannot be read means."""
    encoding = _encoding(reply)
    if encoding and reply.status_code == OK:
        raise compressed(encoding, origin)
    body = b"" if encoding else await _start_of_body(reply)
    if reply.status_code == OK:
        raise not_json(body, origin)
    raise status_error(reply.status_code, reply.headers, body, origin, read_error=read_error)


async def _start_of_body(reply: HttpReply) -> bytes:
    """Return the first bytes of an error's body: as many as come in time and fit."""
    body = bytearray()
    try:
        async with asyncio.timeout(ERROR_BODY_SECONDS):
            while len(body) < MAX_ERROR_BYTES and (data := await reply.read()):
                body += data
    except TimeoutError:
        return bytes(body)
    return bytes(body[:MAX_ERROR_BYTES])


async def _exchange(
    request: AbstractAsyncContextManager[HttpReply], within: float | None, origin: Origin
) -> JsonObject:
    return parse_object(await _body(request, within, origin), origin)


async def _body(request: AbstractAsyncContextManager[HttpReply], within: float | None, origin: Origin) -> bytes:
    try:
        async with asyncio.timeout(within), request as reply:
            return await _read_all(reply, origin)
    except TimeoutError as error:
        raise no_answer_within(within, origin) from error


async def _read_all(reply: HttpReply, origin: Origin) -> bytes:
    body = bytearray()
    while data := await reply.read():
        body += data
        if len(body) > MAX_BODY_BYTES:
            raise too_long("a reply", MAX_BODY_BYTES, origin)
    return bytes(body)


def parse_object(text: bytes, origin: Origin) -> JsonObject:
    """Return the JSON object that ``text`` is.

    Raises:
        ProtocolError: If it is anything else.
    """
    value = _parse(text, origin)
    if not isinstance(value, dict):
        raise not_json(text, origin)
    return value


def _parse(text: bytes, origin: Origin) -> Any:
    try:
        return from_json(text)  # in a third of the time that Python's own takes
    except ValueError:
        return _parse_leniently(text, origin)


def _parse_leniently(text: bytes, origin: Origin) -> Any:
    """Return what ``text`` is, halves of surrogate pairs replaced."""
    try:
        value = jsonlib.loads(text.decode())
        if b"\\ud" in text or b"\\uD" in text:
            value = jsonlib.loads(whole_characters(jsonlib.dumps(value, ensure_ascii=False)))
    except (ValueError, RecursionError) as error:
        raise not_json(text, origin) from error
    return value


def _last_line(text: bytes, origin: Origin, *, begun: bool) -> JsonObject:
    """Return the object on a line that has no end; where it is none, the line was cut, if it began as one."""
    try:
        return parse_object(text, origin)
    except ProtocolError as error:
        if not (begun or text.startswith(b"{") or b"[DONE]".startswith(text)):
            raise
        raise StreamTruncated(
            f"{origin.node} ended the stream in the middle of a line", backend=origin.backend, node=origin.node
        ) from error
