"""An answer that is an error, before any dialect has given it its form."""

from __future__ import annotations

import json
from typing import Final

from synaptic.errors import SynapticError

BAD_REQUEST: Final = 400
UNAUTHORISED: Final = 401
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
NOT_ALLOWED: Final = 405
BUSY: Final = 429
SERVER_ERROR: Final = 500
BAD_GATEWAY: Final = 502
UNAVAILABLE: Final = 503
TIMED_OUT: Final = 504


class Refusal(SynapticError):
    """An answer that is an error.

    ``status`` is its status, ``field`` of the request is to blame, ``retry_after`` is in seconds; ``None`` where there
    is none.
    """

    def __init__(self, status: int, message: str, *, field: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.field = field
        self.retry_after = retry_after


def quoted(text: str) -> str:
    """Return ``text`` as Go's ``%q`` prints it."""
    return json.dumps(text, ensure_ascii=False)
