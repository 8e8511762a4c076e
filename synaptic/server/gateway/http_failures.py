"""Which status an error has, whatever dialect it is told in: one table."""

from __future__ import annotations

from typing import Final, NamedTuple

from synaptic.errors import (
    BackendBusy,
    BackendError,
    BackendNotReady,
    BackendUnavailable,
    CallTimeout,
    FirstTokenTimeout,
    IdleTimeout,
    ModelNotFound,
    OutputError,
    RequestRejected,
    SynapticError,
    UsageError,
)
from synaptic.server.gateway.refusal import (
    BAD_GATEWAY,
    BAD_REQUEST,
    BUSY,
    NOT_FOUND,
    SERVER_ERROR,
    TIMED_OUT,
    UNAVAILABLE,
    Refusal,
)
from synaptic.server.limits import BodyRefused

_STATUS: Final[tuple[tuple[type[SynapticError], int], ...]] = (
    (ModelNotFound, NOT_FOUND),
    (RequestRejected, BAD_REQUEST),
    (UsageError, BAD_REQUEST),
    (BackendNotReady, UNAVAILABLE),
    (BackendBusy, BUSY),
    (BackendUnavailable, UNAVAILABLE),
    (FirstTokenTimeout, TIMED_OUT),
    (IdleTimeout, TIMED_OUT),
    (CallTimeout, TIMED_OUT),
    (BackendError, BAD_GATEWAY),
    (OutputError, BAD_GATEWAY),
    (SynapticError, SERVER_ERROR),
)
"""The first row that the error is of counts."""


class HttpFailure(NamedTuple):
    """What a client is told.

    Attributes:
        status: As HTTP has it.
        message: What is wrong, and what to do about it.
        retry_after: Seconds until it may be different, where that is known.
        field: Of the request, where one is to blame.
    """

    status: int
    message: str
    retry_after: int | None = None
    field: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What is sent with it."""
        return {} if self.retry_after is None else {"retry-after": str(self.retry_after)}


def http_failure(error: SynapticError) -> HttpFailure:
    """Return what a client is told of an error."""
    if isinstance(error, Refusal):
        return HttpFailure(error.status, error.message, error.retry_after, error.field)
    if isinstance(error, BodyRefused):
        return HttpFailure(error.status, error.message)
    status = next(status for kind, status in _STATUS if isinstance(error, kind))
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    wait = error.retry_after if isinstance(error, BackendBusy) else None
    if wait is None and status in {BUSY, UNAVAILABLE}:
        wait = 1.0
    return HttpFailure(status, message, None if wait is None else max(1, round(wait)))
