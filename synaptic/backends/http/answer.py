"""A refusal, as its meaning is read: a status, its headers and the start of its body, cleaned and cut."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from synaptic.text import one_line

QUOTE_CHARACTERS = 80
MESSAGE_CHARACTERS = 300
PAGE_BYTES = 4096
DEEPEST = 8
"""Errors inside errors that are looked through."""

_TITLE = re.compile(r"<title[^>]*>(.*?)</title|<h1[^>]*>(.*?)</h1", re.IGNORECASE | re.DOTALL)
_UNSEEN = re.compile(r"<(script|style)\b.*?</\1|<!--.*?-->", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
_PAGE = re.compile(r"\s*(?:<!--.*?-->\s*)?<(?:!doctype\b|html\b|head\b|body\b|title\b)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Answer:
    """What a server said instead of a reply.

    Attributes:
        headers: Names in any case, or in lower case where the mapping minds it.
        body: Its first bytes.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @cached_property
    def text(self) -> str:
        """What it says for people, in one line; "" if nothing."""
        return page_title(self.body) if self.is_page else error_text(self.body)

    @cached_property
    def is_page(self) -> bool:
        """Whether it is a web page, by its announcement or by its start."""
        kind = self.header("content-type").partition(";")[0].strip().lower()
        return kind in {"text/html", "application/xhtml+xml"} or is_page(self.body)

    @cached_property
    def error(self) -> object:
        """The ``error`` of its JSON, where it has one."""
        return error_field(self.body)

    @property
    def quoted(self) -> str:
        """What it says, to be put behind a meaning: `` (no such key)``; "" if it says nothing."""
        return f" ({self.text})" if self.text else ""

    def header(self, name: str) -> str:
        """Return a header by its name in lower case; "" where it is missing."""
        return self.headers.get(name) or ""


def server_text(text: str | bytes, limit: int = MESSAGE_CHARACTERS) -> str:
    """Return what a server said as one line of at most ``limit`` characters, control characters removed."""
    start = text[: limit * 8]
    return one_line(start.decode(errors="replace") if isinstance(start, bytes) else start, limit)


def error_text(body: bytes) -> str:
    """Return the message in an error's body, else its start.

    Ollama has an ``error`` string, OpenAI's API ``error.message``, FastAPI ``detail``, many gateways ``message``.
    """
    value = _json(body)
    if isinstance(value, Mapping):
        for key in ("error", "detail", "message", "msg"):
            if text := message_of(value.get(key)):
                return text
    return server_text(body)


def message_of(error: object) -> str:
    """Return the text of an error that is one, or an object that has one; "" else."""
    return server_text(_innermost(error, DEEPEST))


def _innermost(error: object, depth: int) -> str:
    """Return the text of the innermost error: servers put the answers of those behind them into theirs as they came."""
    if isinstance(error, Mapping) and depth:
        texts = (_innermost(error.get(key), depth - 1) for key in ("message", "msg", "error", "detail"))
        return next(filter(None, texts), "")
    if not isinstance(error, str):
        return ""
    before, brace, rest = error.partition("{")
    inner = _innermost(_first_value(brace + rest), depth - 1) if brace and depth else ""
    before = before.rstrip(" :-")
    return (f"{before}: {inner}" if before else inner) if inner else error


def error_field(body: bytes) -> object:
    """Return the ``error`` of a JSON object; ``None`` for everything else."""
    value = _json(body)
    return value.get("error") if isinstance(value, dict) else None


def is_page(body: bytes) -> bool:
    """Tell whether a body begins as a web page does."""
    return _PAGE.match(body[:2000].decode(errors="replace").removeprefix("\ufeff")) is not None


def page_title(body: bytes) -> str:
    """Return what a web page is called, else how its text begins."""
    page = _UNSEEN.sub(" ", body[:PAGE_BYTES].decode(errors="replace"))
    for match in _TITLE.finditer(page):
        if title := _seen(match[1] or match[2] or ""):
            return title
    return _seen(page)


def _seen(markup: str) -> str:
    return server_text(html.unescape(_TAG.sub(" ", markup)), QUOTE_CHARACTERS)


def _first_value(text: str) -> object:
    """Return the JSON value that a text begins with; ``None`` if it begins otherwise."""
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
