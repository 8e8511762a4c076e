"""A secret in a text that others wrote: it is found in the spellings that servers and files give it, and hidden.

The spellings are those that GitHub's runner masks in its logs (``ValueEncoders`` of ``actions/runner``), and Python's.
"""

from __future__ import annotations

import base64
import html
import json
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HIDDEN: Final = "[secret]"
"""What stands for a secret."""

SHORTEST: Final = 4
"""Characters. A shorter one is in so many texts that leaving it out would spoil them, and protect nothing."""

_SHORTEST_BEGINNING: Final = 6
_SHORTEST_INSIDE: Final = 8
_CUT: Final = "…"


def spelled(secrets: Iterable[str]) -> tuple[str, ...]:
    """Return how secrets may be written, the longest first: as they are, and in JSON, URLs, HTML, base64 and Python."""
    long_enough = (secret for secret in secrets if len(secret.strip()) >= SHORTEST)
    found = {spelling for secret in long_enough for spelling in _spellings(secret)}
    return tuple(sorted(found, key=lambda spelling: (-len(spelling), spelling)))


def without_secrets(text: str, spellings: Iterable[str]) -> str:
    """Return ``text`` with :data:`HIDDEN` where one of ``spellings`` (from :func:`spelled`) stands."""
    for spelling in spellings:
        text = text.replace(spelling, HIDDEN)
    return text


def quoted_without_secrets(text: str, spellings: Iterable[str]) -> str:
    """Return what :func:`without_secrets` does for a text that quotes others, and may have been cut within a secret."""
    spellings = tuple(spellings)
    text = without_secrets(text, spellings)
    if _CUT in text:
        for spelling in spellings:
            for length in range(len(spelling) - 1, _SHORTEST_BEGINNING - 1, -1):
                text = text.replace(spelling[:length] + _CUT, HIDDEN + _CUT)
    return text


def _spellings(secret: str) -> Iterator[str]:
    yield secret
    yield secret.strip()
    yield " ".join(secret.split())
    for escaped in (True, False):
        in_json = json.dumps(secret, ensure_ascii=escaped)[1:-1]
        yield in_json
        yield json.dumps(in_json, ensure_ascii=escaped)[1:-1]
    yield repr(secret)[1:-1]
    yield html.escape(secret)
    for in_url in (quote(secret, safe=""), quote(secret), quote_plus(secret)):
        yield in_url
        yield _with_small_hex(in_url)
    yield from _inside_base64(secret.encode(errors="replace"))


def _with_small_hex(in_url: str) -> str:
    first, *others = in_url.split("%")
    return "%".join([first, *(other[:2].lower() + other[2:] for other in others)])


def _inside_base64(secret: bytes) -> Iterator[str]:
    """Yield what base64 makes of it anywhere in a longer text; the letters at its edges are of both."""
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            whole = encode(bytes(before) + secret).decode().rstrip("=")
            own = whole[-(-before * 8 // 6) : (before + len(secret)) * 8 // 6]
            if len(own) >= _SHORTEST_INSIDE:
                yield own
