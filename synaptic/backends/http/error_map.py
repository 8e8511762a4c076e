"""Which of our errors a failed HTTP exchange is: pure decisions, no I/O.

The rule behind the table: what the caller can do about it. Nothing was answered -> unavailable, try later or elsewhere;
an answer broke off -> truncated; the answer makes no sense -> protocol. What a status, a body or a broken connection
means, and the words for it, is decided in :mod:`.meaning` and :mod:`.unreached`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, Self, TypeAlias

from synaptic.backends.http.answer import (
    Answer,
    error_text,
    is_page,
    message_of,
    server_text,
)
from synaptic.backends.http.meaning import (
    Meaning,
    busy,
    is_context_overflow,
    not_ready,
    of_answer,
    of_other_text,
    of_page,
    of_words,
    other_api,
)
from synaptic.backends.http.origin import Origin, without_password
from synaptic.backends.http.unreached import closed_here, not_http, not_in_time, of_failure, silent
from synaptic.backends.http.unreached import no_address as no_address_meaning
from synaptic.errors import (
    AddressUnusable,
    BackendBusy,
    BackendError,
    BackendNotReady,
    BackendUnavailable,
    ContextOverflow,
    ModelNotFound,
    ProtocolError,
    RequestRejected,
    ServerError,
    StreamFailed,
    StreamTruncated,
    Trouble,
)
from synaptic.text import quoted_without_secrets

__all__ = [
    "MappedErrors",
    "Origin",
    "ReadError",
    "closed_client",
    "compressed",
    "error_in_stream",
    "error_text",
    "from_httpx",
    "no_address",
    "no_answer_within",
    "not_json",
    "retry_after_seconds",
    "status_error",
    "stream_failed",
    "without_password",
]

ReadError: TypeAlias = Callable[[int, bytes], BackendError | None]
"""Reads an API's own meaning of a status and body; ``None`` means "as usual"."""

CLASSES: Final[Mapping[Trouble, type[BackendError]]] = {
    Trouble.NO_ADDRESS: AddressUnusable,
    Trouble.CLOSED_HERE: BackendUnavailable,
    Trouble.NO_NAME: BackendUnavailable,
    Trouble.NOT_LISTENING: BackendUnavailable,
    Trouble.NO_ROUTE: BackendUnavailable,
    Trouble.NO_CONNECTION: BackendUnavailable,
    Trouble.NO_ANSWER: BackendUnavailable,
    Trouble.CERTIFICATE: AddressUnusable,
    Trouble.CLIENT_CERTIFICATE: AddressUnusable,
    Trouble.SPEAKS_HTTP: AddressUnusable,
    Trouble.SPEAKS_HTTPS: AddressUnusable,
    Trouble.NO_ENCRYPTION: BackendUnavailable,
    Trouble.NOT_HTTP: ProtocolError,
    Trouble.NOT_READY: BackendNotReady,
    Trouble.GATEWAY: BackendNotReady,
    Trouble.BUSY: BackendBusy,
    Trouble.UNAUTHORISED: RequestRejected,
    Trouble.FORBIDDEN: RequestRejected,
    Trouble.PROXY_LOGIN: RequestRejected,
    Trouble.LOGIN_PAGE: ProtocolError,
    Trouble.MOVED: ProtocolError,
    Trouble.WEB_PAGE: ProtocolError,
    Trouble.NO_API: RequestRejected,
    Trouble.NO_MODEL: ModelNotFound,
    Trouble.TOO_LARGE: RequestRejected,
    Trouble.CONTEXT: ContextOverflow,
    Trouble.REJECTED: RequestRejected,
    Trouble.SERVER: ServerError,
}


def error_of(meaning: Meaning, origin: Origin) -> BackendError:
    """Return the error for what an exchange means."""
    kind = CLASSES[meaning.trouble]
    error = kind(meaning.message, hint=meaning.hint, backend=origin.backend, node=origin.node)
    error.trouble = meaning.trouble
    return error


def error_in_stream(value: Mapping[str, object], origin: Origin, *, begun: bool) -> BackendError | None:
    """Return the error that one object of a stream announces with its ``error`` field, or ``None`` if it has none.

    Args:
        value: The object.
        origin: Who sent it.
        begun: Whether another came before it.
    """
    error = value.get("error")
    if not error:
        return None
    text = message_of(error) or "no reason given"
    if (waits := error_in_words(text, origin)) is not None:
        return waits
    kind = ContextOverflow if is_context_overflow(error) else StreamFailed
    return kind(stream_failed(text, origin.node, begun=begun), backend=origin.backend, node=origin.node)


def stream_failed(text: str, node: str, *, begun: bool) -> str:
    """Return the words for an error that a server sends in a stream, or instead of one."""
    return f"{node} {'failed in mid-stream' if begun else 'answered with an error'}: {text}"


def error_in_words(text: str, origin: Origin) -> BackendError | None:
    """Return the error of a server that says, wherever it does, that it is not ready, busy, or has no such call."""
    match of_words(text):
        case Trouble.NOT_READY:
            return error_of(not_ready(origin, text), origin)
        case Trouble.BUSY:
            return error_of(busy(origin, text), origin)
        case Trouble.NO_API:
            return error_of(other_api(origin, text), origin)
    return None


def status_error(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    origin: Origin,
    *,
    read_error: ReadError | None = None,
) -> BackendError:
    """Return the error that a status other than 200 means, or a web page of whatever status."""
    error = read_error(status, body) if read_error else None
    if error is None:
        error = error_of(of_answer(Answer(status, headers, body), origin), origin)
    error.backend = error.backend or origin.backend
    error.node = error.node or origin.node
    if isinstance(error, BackendBusy) and error.retry_after is None:
        error.retry_after = retry_after_seconds(headers.get("retry-after"), headers.get("date"))
    return error


def retry_after_seconds(value: str | None, date: str | None = None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks to wait; it is a number of seconds or a date (RFC 9110).

    Args:
        value: The header.
        date: The reply's ``Date``: it is by the server's clock, as such a date is, and ours may be another.
    """
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    when, now = _moment(value), _moment(date or "") or datetime.now(UTC)
    return None if when is None else max(0.0, (when - now).total_seconds())


def _moment(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


class MappedErrors:
    """Turns every exception of httpx in a ``with`` block into ours. A class costs a third of a generator.

    Args:
        origin: Who was asked.
        answered: Whether the headers of a reply had come; may be set within the block.
        secrets: What no error may say, as :func:`~synaptic.text.spelled` has it.
    """

    __slots__ = ("answered", "origin", "secrets")

    def __init__(self, origin: Origin, *, answered: bool, secrets: Sequence[str] = ()) -> None:
        self.origin = origin
        self.answered = answered
        self.secrets = secrets

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if kind is None or not isinstance(error, Exception):
            return
        import httpx  # noqa: PLC0415 - heavy, and most commands never send anything

        if isinstance(error, (httpx.HTTPError, httpx.InvalidURL, httpx.CookieConflict, httpx.StreamError)):
            mapped = from_httpx(error, self.origin, answered=self.answered)
            mapped.rephrase(self._cleared)
            raise mapped from error
        if isinstance(error, BackendError):
            error.rephrase(self._cleared)

    def _cleared(self, text: str) -> str:
        return quoted_without_secrets(text, self.secrets) if self.secrets else text


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
        return error_of(not_http(origin, server_text(str(error))), origin)
    if answered:
        reason = server_text(str(error)) or type(error).__name__
        message = f"the connection to {node} was cut before the reply was complete ({reason})"
        return StreamTruncated(message, backend=origin.backend, node=node)
    return _not_reached(error, origin)


def no_address(error: Exception, origin: Origin) -> BackendError:
    """Return the error for an address that cannot be one of a server."""
    return error_of(no_address_meaning(origin, server_text(str(error))), origin)


def closed_client(origin: Origin) -> BackendError:
    """Return the error for a call after the client was closed."""
    return error_of(closed_here(origin), origin)


def no_answer_within(seconds: float | None, origin: Origin) -> BackendError:
    """Return the error for an exchange that took longer than its bound."""
    return error_of(silent(origin, seconds or 0.0), origin)


def compressed(encoding: str, origin: Origin) -> ProtocolError:
    """Return the error for a body that is compressed although the request forbids that."""
    message = f"{origin.node} sent its reply compressed ({server_text(encoding, 40)}), although that was not asked for"
    return _other_than_json(
        Meaning(Trouble.NO_API, message, "have the proxy there pass replies on as they are"), origin
    )


def not_json(text: bytes, origin: Origin) -> ProtocolError:
    """Return the error for a body or a line that is not a JSON object."""
    return _other_than_json(of_page(text, origin) if is_page(text) else of_other_text(text, origin), origin)


def _other_than_json(meaning: Meaning, origin: Origin) -> ProtocolError:
    error = ProtocolError(meaning.message, hint=meaning.hint, backend=origin.backend, node=origin.node)
    error.trouble = meaning.trouble
    return error


def _not_reached(error: Exception, origin: Origin) -> BackendError:
    import httpx  # noqa: PLC0415 - as above

    if isinstance(error, httpx.PoolTimeout):
        text = f"no connection to {origin.node} became free in time"
        return BackendBusy(text, backend=origin.backend, node=origin.node)
    if isinstance(error, httpx.ConnectTimeout):
        return error_of(not_in_time(origin), origin)
    causes = list(_causes(error))
    reason = server_text(str(error)) or type(error).__name__
    connecting = isinstance(error, (httpx.ConnectError, httpx.ProxyError))
    return error_of(of_failure(causes, origin, reason, connecting=connecting), origin)


def _is_nonsense(error: Exception) -> bool:
    """Tell bytes that are not HTTP from a connection that ended too early; h11 has one class for both."""
    import httpx  # noqa: PLC0415 - as above

    if not isinstance(error, httpx.RemoteProtocolError):
        return False
    text = str(error).lower()
    return not ("disconnected" in text or "closed connection" in text)


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
