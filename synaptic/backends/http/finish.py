"""What servers say of why a reply ends: whole, cut at a limit, or given up."""

from __future__ import annotations

from typing import Final, Literal

from synaptic.backends.http.answer import server_text

_CUT_SHORT: Final = frozenset({"length", "max_tokens", "max_length", "token_limit", "model_length"})
_FAILED: Final = frozenset(
    {"error", "abort", "aborted", "cancelled", "canceled", "timeout", "insufficient_system_resource", "content_filter"}
)


def ending(reason: object) -> Literal["stop", "length", "failed"]:
    """Return what the reason means that a server gives for the end of a reply; an unknown one is a whole reply's."""
    if reason in _FAILED:
        return "failed"
    return "length" if reason in _CUT_SHORT else "stop"


def gave_up(node: str, reason: object) -> str:
    """Say that a server ended a reply for a reason that makes half an answer of it."""
    return f"{node} failed in mid-stream: it ended the reply with {server_text(str(reason), 40)!r}"
