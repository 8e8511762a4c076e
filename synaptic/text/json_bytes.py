"""JSON as it goes over a wire: compact, in UTF-8, and never with half a character."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def encode_json(value: Mapping[str, Any]) -> bytes:
    """Return ``value`` as compact JSON; halves of surrogate pairs, which small models produce, become U+FFFD."""
    try:
        return to_json(value)  # in a sixth of the time that Python's own takes
    except ValueError:  # halves of surrogate pairs
        return whole_characters(_ENCODER.encode(value)).encode()


def whole_characters(text: str) -> str:
    """Return ``text`` with U+FFFD for each half of a surrogate pair."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
