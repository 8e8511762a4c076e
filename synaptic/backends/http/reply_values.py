"""What one value in a server's JSON is, whatever it may be: a text, a count, the reason of an end. Nothing raises."""

from __future__ import annotations

import math
from typing import Final, Literal, TypeGuard

from synaptic.backends.http.answer import server_text

LONGEST_NAME: Final = 200
"""Characters of what a server calls a model, a tool or itself."""
MOST_COUNTED: Final = 2**63
"""Servers count in 64 bits; JSON has integers that no float can hold."""

_CUT_SHORT: Final = frozenset({"length", "max_tokens", "max_length", "token_limit", "model_length"})
_FAILED: Final = frozenset(
    {"error", "abort", "aborted", "cancelled", "canceled", "timeout", "insufficient_system_resource", "content_filter"}
)


def text_in(value: object) -> str:
    """Return a text; "" for what is none."""
    return value if isinstance(value, str) else ""


def name_in(value: object) -> str:
    """Return a name or a version as it can be shown: one line, cut; "" for what is none."""
    return server_text(text_in(value), LONGEST_NAME)


def is_name(value: object) -> TypeGuard[str]:
    """Tell a name, which is one line that can be shown, from what would be several on a screen, or hide there."""
    return isinstance(value, str) and bool(value) and value == name_in(value)


def texts_in(value: object) -> list[str]:
    """Return the texts of a list; nothing of what is none."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def count_in(value: object) -> int:
    """Return a number of tokens, bytes or the like; 0 for what cannot be one."""
    if isinstance(value, float) and value.is_integer():  # some write 9.0
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < MOST_COUNTED else 0


def seconds_in(value: object, *, a_second: float) -> float | None:
    """Return a duration in seconds; ``None`` for what is none.

    Args:
        value: The duration in the server's own unit.
        a_second: How many of these units a second has.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < MOST_COUNTED:
        return None
    return value / a_second if math.isfinite(value) else None


def ending(reason: object) -> Literal["stop", "length", "failed"]:
    """Return what the reason means that a server gives for the end of a reply; an unknown one is a whole reply's."""
    if reason in _FAILED:
        return "failed"
    return "length" if reason in _CUT_SHORT else "stop"


def gave_up(node: str, reason: object) -> str:
    """Say that a server ended a reply for a reason that makes half an answer of it."""
    return f"{node} failed in mid-stream: it ended the reply with {server_text(str(reason), 40)!r}"
