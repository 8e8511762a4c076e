"""Which of our errors a failed HTTP exchange is: pure decisions, no I/O.

The rule behind the table: what the caller can do about it. Nothing was answered -> unavailable, try later or elsewhere;
an answer broke off -> truncated; the answer makes no sense -> protocol; a status -> what the status says.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeAlias
from urllib.parse import urlsplit, urlunsplit

from synaptic.errors import (
    BackendBusy,
    BackendError,
    BackendUnavailable,
    ContextOverflow,
    ModelNotFound,
    ProtocolError,
    RequestRejected,
    ServerError,
    StreamFailed,
    StreamTruncated,
)
from synaptic.text import one_line

QUOTE_CHARACTERS = 80
MESSAGE_CHARACTERS = 300
OTHER_PROGRAM = "is another program, or a proxy, listening on that port?"

ReadError: TypeAlias = Callable[[int, bytes], BackendError | None]
"""Reads an API's own meaning of a status and body; ``None`` means "as usual"."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who was asked: the backend's name and the server's address, fit to be shown (no password in it)."""

    backend: str
    node: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "node", without_password(self.node))


def without_password(url: str) -> str:
    """Return ``url`` without the user and password that it may carry."""
    if "@" not in url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def server_text(text: str | bytes, limit: int = MESSAGE_CHARACTERS) -> str:
    """Return what a server said as one line of at most ``limit`` characters, control characters removed."""
    start = text[: limit * 8]
    return one_line(start.decode(errors="replace") if isinstance(start, bytes) else start, limit)


def error_text(body: bytes) -> str:
    """Return the message in an error's body: Ollama's ``error`` string, OpenAI's ``error.message``, else its start."""
    return _message(_error_field(body)) or server_text(body)


def error_in_stream(value: Mapping[str, object], origin: Origin) -> BackendError | None:
    """Return the error that one object of a stream announces with its ``error`` field, or ``None`` if it has none."""
    error = value.get("error")
    if not error:
        return None
    text = _message(error) or "no reason given"
    kind = ContextOverflow if _is_context_overflow(error) else StreamFailed
    return kind(f"{origin.node} failed in mid-stream: {text}", backend=origin.backend, node=origin.node)


def status_error(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    origin: Origin,
    *,
    html: bool = False,
    read_error: ReadError | None = None,
) -> BackendError:
    """Return the error that a status other than 200 means."""
    error = read_error(status, body) if read_error else None
    if error is None:
        error = _usual_error(status, body, origin, html=html)
    error.backend = error.backend or origin.backend
    error.node = error.node or origin.node
    if isinstance(error, BackendBusy) and error.retry_after is None:
        error.retry_after = retry_after_seconds(headers.get("retry-after"))
    return error


def retry_after_seconds(value: str | None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks to wait; it is a number of seconds or a date (RFC 9110)."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)

    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def from_httpx(error: Exception, origin: Origin, *, answered: bool) -> BackendError:
    """Return our error for an exception of httpx; ``answered`` says whether the headers of a reply had come."""
    import httpx  # noqa: PLC0415 - heavy; code that raises such an exception has imported it

    node = origin.node
    if isinstance(error, httpx.HTTPStatusError):
        response = error.response
        return status_error(response.status_code, response.headers, b"", origin)
    if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol)):
        return no_address(error, origin)
    if isinstance(error, httpx.LocalProtocolError):
        message = f"the request to {node} is not valid HTTP: {server_text(str(error))}"
        return RequestRejected(message, backend=origin.backend, node=node)
    if isinstance(error, (httpx.DecodingError, httpx.TooManyRedirects, httpx.CookieConflict)) or _is_nonsense(error):
        return ProtocolError(
            f"{node} does not speak proper HTTP: {server_text(str(error), QUOTE_CHARACTERS)}",
            hint=OTHER_PROGRAM,
            backend=origin.backend,
            node=node,
        )
    if answered:
        reason = server_text(str(error)) or type(error).__name__
        message = f"the connection to {node} was cut before the reply was complete ({reason})"
        return StreamTruncated(message, backend=origin.backend, node=node)
    return _not_reached(error, origin)


def no_address(error: Exception, origin: Origin) -> BackendError:
    """Return the error for an address that cannot be one of a server."""
    message = f"{origin.node} is no address of a server: {server_text(str(error))}"
    return _unavailable(message, origin, hint="write http://host:port")


def closed_client(origin: Origin) -> BackendError:
    """Return the error for a call after the client was closed."""
    return _unavailable(f"the connection to {origin.node} has been closed by this program", origin)


def no_answer_within(seconds: float | None, origin: Origin) -> BackendError:
    """Return the error for an exchange that took longer than its bound."""
    return _unavailable(f"{origin.node} did not answer within {seconds:g} s", origin)


def not_json(text: bytes, origin: Origin) -> ProtocolError:
    """Return the error for a body or a line that is not a JSON object."""
    start = server_text(text, QUOTE_CHARACTERS)
    kind = "a web page" if start.lower().startswith(("<!doctype", "<html")) else "something else"
    return ProtocolError(
        f"{origin.node} sent {kind} instead of a JSON object: {start!r}",
        hint=OTHER_PROGRAM,
        backend=origin.backend,
        node=origin.node,
    )


def _usual_error(status: int, body: bytes, origin: Origin, *, html: bool) -> BackendError:
    text = error_text(body)
    said = f"{origin.node} answered {status}" + (f": {text}" if text else "")
    if status in {429, 503}:
        return BackendBusy(said)
    if status >= 500:
        return ServerError(said)
    if status < 400 or html:
        start = server_text(body, QUOTE_CHARACTERS)
        return ProtocolError(
            f"{origin.node} answered {status} with {start!r} where JSON was expected", hint=OTHER_PROGRAM
        )
    if status == 404 and "model" in text.lower() and "not found" in text.lower():
        return ModelNotFound(said)
    if _is_context_overflow(_error_field(body)):
        return ContextOverflow(said)
    return RequestRejected(said, hint="the server asks for credentials" if status in {401, 403} else None)


def _is_context_overflow(error: object) -> bool:
    """Tell llama.cpp's ``exceed_context_size_error`` from other rejections (server-common.cpp, ``error_type``)."""
    return isinstance(error, Mapping) and error.get("type") == "exceed_context_size_error"


def _message(error: object) -> str:
    message = error.get("message") if isinstance(error, Mapping) else error
    return server_text(message) if isinstance(message, str) else ""


def _error_field(body: bytes) -> object:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value.get("error") if isinstance(value, dict) else None


def _not_reached(error: Exception, origin: Origin) -> BackendError:
    import httpx  # noqa: PLC0415 - as above

    node = origin.node
    if isinstance(error, httpx.PoolTimeout):
        return BackendBusy(f"no connection to {node} became free in time", backend=origin.backend, node=node)
    if isinstance(error, httpx.ConnectTimeout):
        return _unavailable(f"nothing answers at {node} (no connection in time)", origin, hint="is the machine on?")
    causes = list(_causes(error))
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        name = urlsplit(node).hostname or node
        return _unavailable(f"the name {name!r} does not resolve", origin, hint=f"check the address {node}")
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return _unavailable(
            f"no secure connection to {node}: {server_text(str(error))}",
            origin,
            hint="does the server speak https, with a certificate this machine trusts? Else write http://",
        )
    if isinstance(error, (httpx.ConnectError, httpx.ProxyError)):
        number = next((cause.errno for cause in causes if isinstance(cause, OSError) and cause.errno), None)
        why = f" ({os.strerror(number).lower()})" if number else ""
        return _unavailable(f"nothing answers at {node}{why}", origin, hint="is the server running there?")
    reason = server_text(str(error)) or type(error).__name__
    return _unavailable(f"{node} closed the connection without an answer ({reason})", origin)


def _is_nonsense(error: Exception) -> bool:
    """Tell bytes that are not HTTP from a connection that ended too early; h11 has one class for both."""
    import httpx  # noqa: PLC0415 - as above

    if not isinstance(error, httpx.RemoteProtocolError):
        return False
    text = str(error).lower()
    return not ("disconnected" in text or "closed connection" in text)


def _unavailable(message: str, origin: Origin, *, hint: str | None = None) -> BackendUnavailable:
    return BackendUnavailable(message, hint=hint, backend=origin.backend, node=origin.node)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield what lies behind ``error``, the members of exception groups included, nearest first."""
    pending: list[BaseException] = [error]
    seen: set[int] = set()
    while pending:
        current = pending.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        if isinstance(current, BaseExceptionGroup):
            pending.extend(current.exceptions)
        pending.extend(cause for cause in (current.__cause__, current.__context__) if cause is not None)
