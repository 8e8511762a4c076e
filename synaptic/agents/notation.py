"""The output notation: field types as people write them (``list[string(..160)](1..5)``) and back.

Parsing is pure and never stops at the first mistake: it returns a tree of types and a list of mistakes,
each with the path of its field and the offset inside the text, so that a caller who knows the file can say where.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias, TypeVar

from synaptic.text import did_you_mean, nearest

STRING_DEFAULT_MAXIMUM = 300
"""Characters, where no upper bound is written: small models repeat themselves until something stops them."""
STRING_LIMIT = 2000
"""Characters; above it llama.cpp's grammar enforces nothing (``MAX_REPETITION_THRESHOLD``)."""
LIST_DEFAULT_MAXIMUM = 8
LIST_LIMIT = 64
ENUM_LIMIT = 64
ENUM_VALUE_LIMIT = 100
FIELD_LIMIT = 64
DEPTH_LIMIT = 8

_JSON_SCHEMA = {
    "string": ("string", "minLength", "maxLength"),
    "integer": ("integer", "minimum", "maximum"),
    "number": ("number", "minimum", "maximum"),
    "array": ("list[string]", "minItems", "maxItems"),
}
"""Types of JSON Schema -> ours, and the keys of their bounds."""

FieldPath: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StringType:
    """Text of a bounded length, in characters."""

    minimum: int = 0
    maximum: int = STRING_DEFAULT_MAXIMUM

    def __str__(self) -> str:
        return "string" + _length_text(self.minimum, self.maximum, _string_maximum(self.minimum))


@dataclass(frozen=True, slots=True)
class IntegerType:
    """A whole number; ``None`` for no bound."""

    minimum: int | None = None
    maximum: int | None = None

    def __str__(self) -> str:
        return "integer" + _range_text(self.minimum, self.maximum)


@dataclass(frozen=True, slots=True)
class NumberType:
    """Any finite number; ``None`` for no bound."""

    minimum: float | None = None
    maximum: float | None = None

    def __str__(self) -> str:
        return "number" + _range_text(self.minimum, self.maximum)


@dataclass(frozen=True, slots=True)
class BooleanType:
    """True or false."""

    def __str__(self) -> str:
        return "boolean"


@dataclass(frozen=True, slots=True)
class EnumType:
    """One of a few texts."""

    values: tuple[str, ...]

    def __str__(self) -> str:
        return f"enum({', '.join(_enum_text(value) for value in self.values)})"


@dataclass(frozen=True, slots=True)
class ListType:
    """A list of a bounded length."""

    item: FieldType
    minimum: int = 0
    maximum: int = LIST_DEFAULT_MAXIMUM

    def __str__(self) -> str:
        return f"list[{self.item}]" + _length_text(self.minimum, self.maximum, _list_maximum(self.minimum))


@dataclass(frozen=True, slots=True)
class Field:
    """A named member of an object."""

    name: str
    type: FieldType
    optional: bool = False

    @property
    def key(self) -> str:
        """The name as it is written: with a question mark where the field is optional."""
        return self.name + "?" * self.optional


@dataclass(frozen=True, slots=True)
class ObjectType:
    """Named fields in a fixed order."""

    fields: tuple[Field, ...]

    def __str__(self) -> str:
        return "{" + ", ".join(f"{field.key}: {field.type}" for field in self.fields) + "}"


FieldType: TypeAlias = StringType | IntegerType | NumberType | BooleanType | EnumType | ListType | ObjectType


@dataclass(frozen=True, slots=True)
class Mistake:
    """Something wrong in a notation.

    Attributes:
        path: The keys, as they are written, that lead to the text; empty for the notation as a whole.
        offset: Zero-based position inside the text; ``None`` where the whole field is meant.
    """

    path: FieldPath
    offset: int | None
    message: str
    suggestion: str | None = None


def parse_notation(notation: object) -> tuple[ObjectType, list[Mistake]]:
    """Return the types that ``notation`` describes and every mistake in it; the types hold where there are none."""
    mistakes: list[Mistake] = []
    if isinstance(notation, Mapping):
        return _parse_mapping(notation, (), mistakes), mistakes
    if isinstance(notation, str):
        kind = notation.strip().partition("(")[0].partition("[")[0]
        suggestion = f"give it a field, such as 'result: {notation.strip() if kind in _TYPE_NAMES else 'string'}'"
    else:
        suggestion = "write for example 'title: string'"
    mistakes.append(Mistake((), None, "an output is a mapping of field names to types", suggestion))
    return ObjectType(()), mistakes


def write_notation(shape: ObjectType) -> dict[str, Any]:
    """Return the shortest notation that parses back to ``shape``."""
    return {
        field.key: write_notation(field.type) if isinstance(field.type, ObjectType) else str(field.type)
        for field in shape.fields
    }


def _parse_mapping(notation: Mapping[Any, Any], path: FieldPath, mistakes: list[Mistake]) -> ObjectType:
    collected = _Fields(path, mistakes)
    for key, value in notation.items():
        if not isinstance(key, str):
            collected.refuse(
                Mistake((*path, str(key)), None, f"the field name {key!r} is not text", "put it in quotes")
            )
            continue
        child = (*path, key)
        if not collected.accepts(key, child, None):
            continue
        collected.add(key, _parse_value(value, child, mistakes))
    return collected.finish(None)


def _parse_value(value: object, path: FieldPath, mistakes: list[Mistake]) -> FieldType:
    if isinstance(value, str):
        return _Parser(value, path, mistakes).whole()
    if not isinstance(value, Mapping):
        suggestion = "write for example 'string', or 'list[string]' for a list"
        if isinstance(value, (list, tuple)) and value and all(isinstance(each, str) for each in value):
            is_type = value[0].partition("(")[0] in _TYPE_NAMES
            suggestion = f"write 'list[{value[0]}]'" if is_type else f"write 'enum({', '.join(value)})'"
        mistakes.append(Mistake(path, None, f"a type is text or a mapping, not {_kind(value)}", suggestion))
    elif (notation := _of_json_schema(value)) is not None:
        mistakes.append(Mistake(path, None, "this is JSON Schema", f"write '{notation}'"))
    elif len(path) >= DEPTH_LIMIT:
        mistakes.append(Mistake(path, None, f"more than {DEPTH_LIMIT} levels of nesting", "flatten the output"))
    else:
        return _parse_mapping(value, path, mistakes)
    return StringType()


def _of_json_schema(value: Mapping[Any, Any]) -> str | None:
    """Return the notation of a type that is written as JSON Schema; ``None`` where the keys may be fields."""
    values = value.get("enum")
    if isinstance(values, (list, tuple)) and values:
        return f"enum({', '.join(map(str, values))})"
    name, lowest, highest = _JSON_SCHEMA.get(str(value.get("type")), ("", "", ""))
    least, most = value.get(lowest), value.get(highest)
    if not name or not any(isinstance(bound, (int, float)) for bound in (least, most)):
        return None
    return f"{name}({'' if least is None else least}..{'' if most is None else most})"


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, (list, tuple)):
        return "a list"
    return f"{type(value).__name__} {value!r}"


class _Fields:
    """Collects the fields of one object and checks their names."""

    def __init__(self, path: FieldPath, mistakes: list[Mistake]) -> None:
        self._path = path
        self._mistakes = mistakes
        self._fields: dict[str, Field] = {}
        self._refused = False

    def accepts(self, key: str, path: FieldPath, offset: int | None) -> bool:
        """Return whether ``key`` is a good name that is not taken; record the mistake otherwise."""
        name = key.removesuffix("?")
        if not _FIELD_NAME.fullmatch(name):
            suggestion = "use letters, digits and underscores, first a letter, at most 64"
            message = f"{key!r} is not a field name"
        elif name in self._fields:
            message, suggestion = f"the field {name!r} stands here twice", "remove one of them"
        else:
            return True
        self.refuse(Mistake(path, offset, message, suggestion))
        return False

    def refuse(self, mistake: Mistake) -> None:
        """Record the mistake for which a field is left out."""
        self._refused = True
        self._mistakes.append(mistake)

    def add(self, key: str, kind: FieldType) -> None:
        name = key.removesuffix("?")
        self._fields[name] = Field(name, kind, optional=key.endswith("?"))

    def finish(self, offset: int | None) -> ObjectType:
        """Return the object; an empty one, or one with too many fields, is a mistake."""
        if not self._fields and not self._refused:
            self._mistakes.append(Mistake(self._path, offset, "it has no fields", "write for example 'title: string'"))
        if len(self._fields) > FIELD_LIMIT:
            self._mistakes.append(Mistake(self._path, offset, f"more than {FIELD_LIMIT} fields", "ask for less"))
        return ObjectType(tuple(self._fields.values()))


LENGTH_DIGITS = 9
"""Longer bounds are refused before they are converted."""

_FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_SPACE = re.compile(r"\s*")
_WORD = re.compile(r"[^\W\d]\w*")
_KEY = re.compile(r"[^\s,:{}\[\]()]+")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_ENUM_BARE = re.compile(r"""[^\s,()\[\]{}"':#?](?:[^,()\[\]{}"':#?\n]*[^\s,()\[\]{}"':#?])?""")
_BOUND = re.compile(r"[^\s.,()\[\]{}]+(?:\.[^\s.,()\[\]{}]+)?")
_OTHER_RANGE = re.compile(
    r"""\s*(?:
    (?P<low>{0})\s*(?:-|,|;|:|to|\.\.\.|\.\.=|\.\.<|[–—…])\s*(?P<high>{0})
    |(?:min\w*\s*[=:]?|>=?|≥)\s*(?P<least>{0})(?:\s*,\s*(?:max\w*\s*[=:]?|<=?|≤)\s*(?P<also>{0}))?
    |(?:max\w*\s*[=:]?|<=?|≤)\s*(?P<most>{0})
    )\s*\)""".replace("{0}", r"-?[0-9]+(?:\.[0-9]+)?"),
    re.VERBOSE,
)
"""Bounds as other languages write them, up to the bracket behind them."""
_NUMBER = re.compile(r"-?[0-9]{1,9}(?:\.[0-9]{1,6})?", re.ASCII)
_INTEGER = re.compile(r"-?[0-9]{1,15}", re.ASCII)

_TYPE_NAMES = ("string", "integer", "number", "boolean", "enum", "list")
_OTHER_NAMES = {
    "str": "string",
    "text": "string",
    "char": "string",
    "int": "integer",
    "float": "number",
    "double": "number",
    "decimal": "number",
    "bool": "boolean",
    "array": "list",
    "sequence": "list",
    "choice": "enum",
    "literal": "enum",
    "object": "{name: string}",
    "dict": "{name: string}",
}


_Bound = TypeVar("_Bound", int, float)


class _Stop(Exception):
    """The rest of the text makes no sense after the mistake that was just recorded."""


@dataclass(frozen=True, slots=True)
class _Bounds:
    """What stands between the parentheses; ``exact`` is ``(n)``."""

    offset: int
    lower: str | None
    upper: str | None
    exact: bool


class _Parser:
    """Recursive descent over one type."""

    def __init__(self, text: str, path: FieldPath, mistakes: list[Mistake]) -> None:
        self._text = text
        self._path = path
        self._mistakes = mistakes
        self._at = 0

    def whole(self) -> FieldType:
        """Return the type that the whole text is."""
        try:
            kind = self._type(depth=len(self._path))
            self._match(_SPACE)
            if self._at < len(self._text):
                self._unexpected_rest()
        except _Stop:
            return StringType()
        return kind

    def _type(self, depth: int) -> FieldType:
        start = self._skip_space()
        if depth > DEPTH_LIMIT:
            self._stop(start, f"more than {DEPTH_LIMIT} levels of nesting", "flatten the output")
        if self._take("{"):
            return self._object(start, depth)
        name = self._match(_WORD)
        if name == "list":
            return self._list(start, depth)
        if name == "enum":
            return self._enum(start)
        if not name:
            self._stop(start, "a type is expected here", f"one of {', '.join(_TYPE_NAMES)} or {{...}}")
        return self._scalar(name, start)

    def _scalar(self, name: str, start: int) -> FieldType:
        match name:
            case "string":
                bounds = self._bounds()
                lower, upper = self._lengths(bounds, "a string", STRING_LIMIT, "characters")
                if bounds is not None and lower == STRING_LIMIT:
                    self._note(bounds.offset, "the lower bound leaves no room", f"at most {STRING_LIMIT - 1}")
                return StringType(lower, _string_maximum(lower) if upper is None else upper)
            case "integer":
                return IntegerType(*self._range(self._bounds(), name, int, _INTEGER))
            case "number":
                return NumberType(*self._range(self._bounds(), name, float, _NUMBER))
            case "boolean":
                if (bounds := self._bounds()) is not None:
                    self._note(bounds.offset, "a boolean takes no bounds", "write 'boolean'")
                return BooleanType()
        self._unknown(name, start)
        self._bounds()
        return StringType()

    def _unknown(self, name: str, start: int) -> None:
        known = _OTHER_NAMES.get(name.lower()) or nearest(name.lower(), _TYPE_NAMES)
        suggestion = f"did you mean {known!r}?" if known else did_you_mean(name, _TYPE_NAMES)
        self._note(start, f"unknown type {name!r}", suggestion)
        if self._peek() == "[":
            raise _Stop

    def _list(self, start: int, depth: int) -> FieldType:
        if not self._take("["):
            self._stop(start, "a list needs the type of its items", "write for example 'list[string]'")
        item = self._type(depth + 1)
        if not self._take("]"):
            self._expected("]", "after the type of the items")
        lower, upper = self._lengths(self._bounds(), "a list", LIST_LIMIT, "items")
        return ListType(item, lower, _list_maximum(lower) if upper is None else upper)

    def _object(self, start: int, depth: int) -> ObjectType:
        collected = _Fields(self._path, self._mistakes)
        while not self._take("}"):
            at = self._skip_space()
            key = self._match(_KEY)
            if not key:
                self._expected("}", "or a field name")
            if not self._take(":"):
                self._expected(":", f"after the field name {key!r}")
            accepted = collected.accepts(key, self._path, at)
            kind = self._type(depth + 1)
            if accepted:
                collected.add(key, kind)
            if not self._take(",") and self._peek() != "}":
                self._expected("}", "or ','")
        return collected.finish(start)

    def _enum(self, start: int) -> EnumType:
        example = "write for example 'enum(yes, no)'"
        if not self._take("("):
            self._stop(start, "an enum needs its values", example)
        values: list[str] = []
        while not self._take(")"):
            at = self._skip_space()
            value = self._enum_value(at)
            if value in values:
                self._note(at, f"the value {value!r} stands here twice", "remove one of them")
            elif not value.isprintable() or not 1 <= len(value) <= ENUM_VALUE_LIMIT:
                self._note(at, "a value is 1 to 100 printable characters", example)
            values.append(value)
            if not self._take(",") and self._peek() != ")":
                self._expected(")", "or ','")
        if not values:
            self._note(start, "an enum needs its values", example)
        elif len(values) > ENUM_LIMIT:
            self._note(start, f"more than {ENUM_LIMIT} values", "use 'string' for open text")
        return EnumType(tuple(values))

    def _enum_value(self, at: int) -> str:
        if quoted := self._match(_QUOTED):
            try:
                return str(json.loads(quoted))
            except ValueError:
                self._stop(at, f"{quoted} is not text in double quotes as JSON has it", "remove the backslash")
        bare = self._match(_ENUM_BARE)
        if not bare:
            self._stop(at, "a value is expected here", 'plain words, or text in double quotes: enum(yes, "no: never")')
        return bare

    def _bounds(self) -> _Bounds | None:
        offset = self._skip_space()
        if not self._take("("):
            return None
        if other := _OTHER_RANGE.match(self._text, self._at):
            self._at = other.end()
            least, most = other["low"] or other["least"] or "", other["high"] or other["also"] or other["most"] or ""
            self._note(offset + 1, "a range is written with two dots", f"write ({least}..{most})")
            return None
        self._skip_space()
        lower = self._match(_BOUND) or None
        exact = not self._take("..")
        self._skip_space()
        upper = None if exact else self._match(_BOUND) or None
        if not self._take(")"):
            self._expected(")", "at the end of the bounds, such as (1..5)")
        if lower is None and upper is None:
            self._note(offset, "the bounds are empty", "write for example (1..5), (1..) or (..5)")
        return _Bounds(offset, lower, upper, exact)

    def _lengths(self, bounds: _Bounds | None, what: str, limit: int, unit: str) -> tuple[int, int | None]:
        """Return the least and the greatest length; ``None`` where no upper bound is written."""
        if bounds is None:
            return 0, None
        lower = self._length(bounds, bounds.lower)
        upper = lower if bounds.exact else self._length(bounds, bounds.upper)
        greatest = upper if upper is not None else lower
        if greatest is not None and greatest > limit:
            self._note(bounds.offset, f"{what} of {greatest} {unit} is too long", f"at most {limit} {unit}")
        elif upper == 0:
            self._note(bounds.offset, f"{what} of 0 {unit} says nothing", "remove the field, or allow at least 1")
        else:
            self._ordered(bounds, lower, upper)
        return lower or 0, upper

    def _length(self, bounds: _Bounds, text: str | None) -> int | None:
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= LENGTH_DIGITS):
            self._note(bounds.offset, f"the bound {text!r} is not a length", "write a whole number such as 5")
            return None
        return int(text)

    def _range(
        self, bounds: _Bounds | None, name: str, convert: Callable[[str], _Bound], pattern: re.Pattern[str]
    ) -> tuple[_Bound | None, _Bound | None]:
        """Return the least and the greatest value; ``None`` where no bound is written."""
        if bounds is None:
            return None, None
        if bounds.exact and bounds.lower is not None:
            self._note(bounds.offset, f"{name}({bounds.lower}) is not a range", f"write {name}(0..{bounds.lower})")
            return None, None
        ends: list[_Bound | None] = []
        for text in (bounds.lower, bounds.upper):
            if text is not None and not pattern.fullmatch(text):
                digits = "up to 15 digits" if name == "integer" else "up to 9 digits and 6 decimals"
                self._note(bounds.offset, f"the bound {text!r} fits no {name}", f"write {digits}")
                return None, None
            ends.append(None if text is None else convert(text))
        self._ordered(bounds, *ends)
        return ends[0], ends[1]

    def _ordered(self, bounds: _Bounds, lower: float | None, upper: float | None) -> None:
        if lower is not None and upper is not None and lower > upper:
            message = f"the lower bound {bounds.lower} is above the upper bound {bounds.upper}"
            self._note(bounds.offset, message, f"write ({bounds.upper}..{bounds.lower})")

    def _skip_space(self) -> int:
        self._match(_SPACE)
        return self._at

    def _match(self, pattern: re.Pattern[str]) -> str:
        """Take what ``pattern`` matches here; empty where it does not."""
        found = pattern.match(self._text, self._at)
        if found is None:
            return ""
        self._at = found.end()
        return found.group()

    def _take(self, literal: str) -> bool:
        """Skip space, then take ``literal`` if it stands here."""
        taken = self._text.startswith(literal, self._skip_space())
        self._at += len(literal) * taken
        return taken

    def _peek(self) -> str:
        at = self._skip_space()
        return self._text[at : at + 1]

    def _note(self, offset: int, message: str, suggestion: str) -> None:
        self._mistakes.append(Mistake(self._path, offset, message, suggestion))

    def _stop(self, offset: int, message: str, suggestion: str) -> NoReturn:
        self._note(offset, message, suggestion)
        raise _Stop

    def _expected(self, literal: str, where: str) -> NoReturn:
        found = repr(self._peek()) if self._peek() else "the end"
        self._stop(self._at, f"{literal!r} is expected here, not {found}", f"put {literal!r} {where}")

    def _unexpected_rest(self) -> NoReturn:
        suggestion = "remove it"
        match self._peek():
            case "?":
                suggestion = "the ? of an optional field belongs to its name, as in 'note?: string'"
            case "[":
                suggestion = "bounds stand in parentheses, and a list is written 'list[string]'"
            case "|":
                suggestion = "alternatives are written 'enum(yes, no)'"
        self._stop(self._at, f"{self._text[self._at :]!r} is not expected here", suggestion)


def _string_maximum(minimum: int) -> int:
    return STRING_DEFAULT_MAXIMUM if minimum <= STRING_DEFAULT_MAXIMUM else STRING_LIMIT


def _list_maximum(minimum: int) -> int:
    return LIST_DEFAULT_MAXIMUM if minimum <= LIST_DEFAULT_MAXIMUM else LIST_LIMIT


def _length_text(minimum: int, maximum: int, default_maximum: int) -> str:
    if minimum == maximum:
        return f"({minimum})"
    lower = str(minimum) if minimum else ""
    upper = str(maximum) if maximum != default_maximum else ""
    return f"({lower}..{upper})" if lower or upper else ""


def _range_text(minimum: float | None, maximum: float | None) -> str:
    if minimum is None and maximum is None:
        return ""
    return f"({_number_text(minimum)}..{_number_text(maximum)})"


def _number_text(value: float | None) -> str:
    if value is None:
        return ""
    if value == int(value):
        return str(int(value))
    return f"{value:.6f}".rstrip("0")


def _enum_text(value: str) -> str:
    return value if _ENUM_BARE.fullmatch(value) else json.dumps(value, ensure_ascii=False)
