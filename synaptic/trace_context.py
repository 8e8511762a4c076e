"""Which span of a trace the work of a task belongs to, as the W3C writes it down (``traceparent``).

Apart, and without any library: who tells of runs sets it, the gateway takes it from its clients, and what speaks HTTP
to a node sends it on. Where nothing tells of runs, it stays empty and nothing is sent.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

TRACEPARENT: Final[ContextVar[str]] = ContextVar("traceparent", default="")
"""``00-<trace>-<span>-<flags>`` in lower-case hexadecimal digits; "" where there is no trace."""

HEADER: Final = "traceparent"
