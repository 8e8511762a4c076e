"""``format``: which schemas the engine is given. One too large would stop it; one that it cannot read it ignores.

The bounds were found by trying: a list of a billion items filled the memory, a chain of a thousand references
overflowed the stack, ten thousand optional members took longer than anybody waits. What is within them is tried
with the engine before the reply (:meth:`EmbeddedEngine.enforces`), and looked at after it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from synaptic.server.gateway import place
from synaptic.server.ollama_api.refusals import BAD_REQUEST, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synaptic.text import KeyPath

MOST_OBJECTS: Final = 500  # of the schema's own text; a path through references is no longer
MOST_VALUES: Final = 5000  # entries of its lists, of all together
MOST_MEMBERS: Final = 200  # of one object
LONGEST_TEXT: Final = 5000  # characters of a name, a constant or an entry of enum
LONGEST_PATTERN: Final = 500
MOST_TEXT: Final = 50_000  # characters of all of them together
MOST_ITEMS: Final = 1000
MOST_LENGTH: Final = 1_000_000
_COUNTS: Final = {"minItems": MOST_ITEMS, "maxItems": MOST_ITEMS, "minLength": MOST_LENGTH, "maxLength": MOST_LENGTH}
_REPEATED: Final = re.compile(r"\{(\d*),?(\d*)\}")
_NOT_ENFORCED: Final = (
    *("not", "if", "then", "else", "uniqueItems", "propertyNames", "contains", "minContains", "maxContains"),
    *("dependentRequired", "dependentSchemas", "unevaluatedItems", "unevaluatedProperties"),
)
_NAMES: Final = {"properties", "patternProperties", "$defs", "definitions"}  # what they hold goes by names
_DATA: Final = {"enum", "const", "default", "examples", "example"}
_NUMBER: Final = r"-?\d*\.?\d*(?:[eE][+-]?)?\d*"
_CUT_SHORT: Final = re.compile(_NUMBER + r"|t(?:ru?)?|f(?:a(?:ls?)?)?|n(?:ul?)?|\\?u?[0-9a-fA-F]{0,4}")


def check_schema(schema: dict[str, Any]) -> None:
    """Let a schema through that the engine survives.

    Raises:
        Refusal: If it is too large in some way; says where, and how large it may be.
    """
    objects = values = characters = 0
    for path, one in _values(schema):
        if isinstance(one, dict):
            objects += 1
            _within(path, len(one), MOST_MEMBERS, "members")
            characters += sum(map(len, one))
            _within(path, max(map(len, one), default=0), LONGEST_TEXT, "characters in a name")
            _check_counts(path, one)
        elif isinstance(one, list):
            values += len(one)
        elif isinstance(one, str):
            characters += len(one)
            _within(path, len(one), LONGEST_TEXT, "characters")
        _within((), objects, MOST_OBJECTS, "objects")
        _within((), values, MOST_VALUES, "entries of lists")
        _within((), characters, MOST_TEXT, "characters")


def not_enforced(schema: dict[str, Any]) -> Refusal:
    """Return the refusal of a schema that the engine ignores; names the keyword where it is one that it never heeds."""
    for path, one in _schemas(schema):
        for keyword in _NOT_ENFORCED:
            if keyword in one:
                return Refusal(BAD_REQUEST, f"{_at((*path, keyword))}: this engine cannot enforce it; leave it out")
    causes = "is a type, a reference or a pattern wrong, do branches of oneOf overlap?"
    return Refusal(BAD_REQUEST, f"format: this engine cannot enforce the schema; {causes}")


def not_kept() -> Refusal:
    """Return what is said of a reply in the middle of which the engine has given the schema up."""
    return Refusal(BAD_REQUEST, "format: the engine could not keep to this schema to the end of the reply; simplify it")


def begins_json(text: str, *, whole: bool) -> bool:
    """Tell whether ``text`` is JSON or, unless it should be ``whole``, a beginning of it."""
    try:
        json.loads(text, parse_int=str)  # also a number with more digits than Python reads
    except RecursionError:
        return not whole
    except json.JSONDecodeError as error:
        rest = text[error.pos :].strip()
        if "':'" in error.msg or "property name" in error.msg:
            return not rest and not whole
        cut_short = error.msg.startswith("Unterminated string") or _CUT_SHORT.fullmatch(rest) is not None
        return cut_short and not whole
    return True


def _check_counts(path: KeyPath, one: dict[str, Any]) -> None:
    for keyword, most in _COUNTS.items():
        value = one.get(keyword)
        if isinstance(value, (int, float)) and not 0 <= value <= most:
            raise Refusal(BAD_REQUEST, f"{_at((*path, keyword))} must be from 0 to {most}")
    pattern = one.get("pattern")
    if isinstance(pattern, str):
        _within((*path, "pattern"), len(pattern), LONGEST_PATTERN, "characters")
        for count in (number for numbers in _REPEATED.findall(pattern) for number in numbers if number):
            _within((*path, "pattern"), int(count), MOST_ITEMS, "repetitions")


def _within(path: KeyPath, count: int, most: int, what: str) -> None:
    if count > most:
        raise Refusal(BAD_REQUEST, f"{_at(path)}: more than {most} {what}")


def _at(path: KeyPath) -> str:
    return place(("format", *path[:4], "…", *path[-4:]) if len(path) > 8 else ("format", *path))


def _values(schema: Any) -> Iterator[tuple[KeyPath, Any]]:
    rest: list[tuple[KeyPath, Any]] = [((), schema)]
    while rest:
        path, one = rest.pop()
        yield path, one
        inner = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        rest += (((*path, key), value) for key, value in inner)


def _schemas(schema: Any) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    """Yield the objects in it that are schemas, and not data or maps of names."""
    for path, one in _values(schema):
        named = bool(path) and path[-1] in _NAMES and not (len(path) > 1 and path[-2] in _NAMES)
        if isinstance(one, dict) and not named and not _DATA.intersection(map(str, path)):
            yield path, one
