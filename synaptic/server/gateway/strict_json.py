"""JSON as a server may trust it: what two programs would read in two ways is refused, with the place of it.

Python's own reader takes more than JSON has (NaN, numbers without an end, keys that stand twice, halves of surrogate
pairs), and the engine behind us would take or misread it.
"""

from __future__ import annotations

import json
import math
import re
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NoReturn

from synaptic.server.gateway.refusal import BAD_REQUEST, Refusal
from synaptic.text import excerpt, is_unicode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synaptic.text import KeyPath

SMALLEST_INTEGER: Final = -(2**63)
LARGEST_INTEGER: Final = 2**64 - 1
_LONGEST_INTEGER: Final = 20  # characters, a sign included
_HALF_PAIR: Final = re.compile(r"\\u[dD][89a-fA-F]")
# A text, to its end or to that of the body, and the number behind it if it is the key of one. Nothing is read twice,
# whatever stands there: what a search cannot try again in another way takes time in proportion to the body.
_TEXT: Final = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)(?:"(?:\s*+:\s*+([-+.\w]++))?+|\\?\Z)', re.DOTALL)

_MOST_TEXTS: Final = 1_000_000  # keys and values; more are not JSON that is let through as far as here


def read_json(raw: bytes) -> Any:
    """Return the value of a request's body.

    Raises:
        Refusal: If it is not JSON in UTF-8; says where.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        said = f"invalid UTF-8 in request body: byte {error.start + 1} is not part of a character"
        raise Refusal(BAD_REQUEST, said) from error
    hooks = _Hooks(text)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=hooks.integer,
            parse_float=hooks.decimal,
            parse_constant=hooks.constant,
        )
    except RecursionError as error:
        raise Refusal(BAD_REQUEST, "exceeded max depth") from error
    except json.JSONDecodeError as error:
        raise Refusal(BAD_REQUEST, _syntax_error(error)) from error
    if _HALF_PAIR.search(text):
        _check_characters(value)
    return value


def place(path: KeyPath) -> str:
    """Return where in a body something stands: ``messages[2].content``."""
    words = "".join(f"[{key}]" if isinstance(key, int) else f".{excerpt(key)}" for key in path)
    return words.removeprefix(".") or "the body"


class _Hooks:
    """What the parser calls for numbers. It does not say where they stand, so a refusal looks for its key."""

    def __init__(self, text: str) -> None:
        self._text = text

    def integer(self, digits: str) -> int:
        value = int(digits) if len(digits) <= _LONGEST_INTEGER else LARGEST_INTEGER + 1
        if not SMALLEST_INTEGER <= value <= LARGEST_INTEGER:
            self._refuse(digits, f"is too large: a whole number is from {SMALLEST_INTEGER} to {LARGEST_INTEGER}")
        return value

    def decimal(self, digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            self._refuse(digits, "is too large: a number is at most 1.7976931348623157e308")
        return value

    def constant(self, word: str) -> NoReturn:
        self._refuse(word, "is no number of JSON: write a finite one, or null")

    def _refuse(self, written: str, why: str) -> NoReturn:
        texts = islice(_TEXT.finditer(self._text), _MOST_TEXTS)
        key = next((f"{excerpt(text[1])}: " for text in texts if text[2] == written), "")
        raise Refusal(BAD_REQUEST, f"{key}{excerpt(written)} {why}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise Refusal(BAD_REQUEST, f'the key "{excerpt(twice)}" stands twice in one object: remove one of them')
    return value


def _check_characters(value: Any) -> None:
    for path, text in _texts(value):
        if not is_unicode(text):
            raise Refusal(BAD_REQUEST, f"{place(path)}: half of a surrogate pair (\\ud800 to \\udfff) is no character")


def _texts(value: Any) -> Iterator[tuple[KeyPath, str]]:
    """Yield every text, keys included, with where it stands."""
    rest: list[tuple[KeyPath, Any]] = [((), value)]
    while rest:
        path, one = rest.pop()
        if isinstance(one, str):
            yield path, one
        elif isinstance(one, dict):
            yield from ((path, key) for key in one)
            rest += (((*path, key), inner) for key, inner in one.items())
        elif isinstance(one, list):
            rest += (((*path, index), inner) for index, inner in enumerate(one))


def _syntax_error(error: json.JSONDecodeError) -> str:
    """Return about what Go says: where the text ends too early, or which character it did not expect."""
    text = error.doc
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
        return "unexpected EOF"
    where = f"line {error.lineno}, column {error.colno}"
    return f"invalid character '{excerpt(text[error.pos])}' looking for beginning of value ({where})"
