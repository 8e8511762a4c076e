"""The shape of an agent's output: one notation that becomes a JSON Schema, a decoding schema and a pydantic model.

Three readings of one shape, from the widest to the narrowest:

* ``json_schema`` says exactly which values are valid, and ``model`` (pydantic) accepts exactly the same ones;
* ``decoding_schema`` is what a backend constrains decoding with. It accepts a subset, because llama.cpp's grammars
  (and with them Ollama's ``format``) ignore the bounds of a ``number``: those become a grid of values.

An optional field may be missing or ``null``; in a validated value it is always there, as ``None`` if it was not said.
"""

from __future__ import annotations

import json
import keyword
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError, create_model

from synaptic.agents.notation import (
    BooleanType,
    EnumType,
    FieldType,
    IntegerType,
    ListType,
    Mistake,
    NumberType,
    ObjectType,
    StringType,
    parse_notation,
    write_notation,
)
from synaptic.agents.type_words import in_words
from synaptic.errors import AgentError, OutputInvalid, Problem
from synaptic.text import did_you_mean

__all__ = ["Locate", "Shape", "is_complete_json"]

Locate: TypeAlias = Callable[[Mistake], Problem]
"""Turns a mistake in a notation into a problem that says where in a file it stands."""

GRID_STEPS = 20
DECODED_STRING_LIMIT = 1999
"""Characters; releases of llama.cpp before September 2026 refuse a grammar with exactly 2000 repetitions."""
_SHOWN_CHARACTERS = 60
_SHOWN_ERRORS = 5


@dataclass(frozen=True)
class Shape:
    """What an agent's output looks like: an object of typed, bounded fields."""

    root: ObjectType

    @classmethod
    def parse(cls, notation: object, *, locate: Locate | None = None) -> Self:
        """Return the shape that ``notation`` describes.

        Args:
            notation: A mapping of field names to types, such as ``{"title": "string(..80)", "score": "number(0..1)"}``.
            locate: Says where a mistake stands; the default names the field and the column inside its type.

        Raises:
            AgentError: With every mistake in the notation, each once.
        """
        root, mistakes = parse_notation(notation)
        if mistakes:
            raise AgentError.of([(locate or _located_by_field)(mistake) for mistake in mistakes])
        return cls(root)

    @property
    def notation(self) -> dict[str, Any]:
        """The shortest notation that parses back to this shape."""
        return write_notation(self.root)

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of exactly the values that are valid."""
        return _schema(self.root)

    def decoding_schema(self) -> dict[str, Any]:
        """Return the JSON Schema to constrain decoding with: a subset that llama.cpp's grammars can enforce."""
        return _decoding_schema(self.root)

    @cached_property
    def model(self) -> type[BaseModel]:
        """The pydantic model that accepts exactly what ``json_schema`` accepts, without coercion.

        A field whose name a model cannot have (``copy``, ``class``) is called with an underscore behind it there.
        """
        return _object_model(self.root, "Output")

    def validate(self, value: object) -> dict[str, Any]:
        """Return ``value`` as plain Python data with every field there; a missing optional one is ``None``.

        Raises:
            OutputInvalid: If it does not have this shape; the message names the fields and what they should be.
        """
        try:
            return self.model.model_validate(value).model_dump(by_alias=True)
        except ValidationError as error:
            raise OutputInvalid(self._explain(error), text=_compact(value)) from error

    def validate_text(self, text: str) -> dict[str, Any]:
        """Parse ``text`` as JSON and return it validated, as ``validate`` does.

        Raises:
            OutputInvalid: If it is not JSON or does not have this shape; its ``text`` is the text.
        """
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
        except RecursionError as error:
            raise OutputInvalid("the reply is not valid: it is nested too deeply", text=text) from error
        except ValueError as error:
            raise OutputInvalid(_not_json(text, error), text=text) from error
        try:
            return self.validate(value)
        except OutputInvalid as error:
            raise OutputInvalid(error.message, text=text) from error

    def field_names(self) -> tuple[str, ...]:
        """Return the names of the top-level fields, in order."""
        return tuple(field.name for field in self.root.fields)

    def lookup(self, path: str | Sequence[str]) -> FieldType:
        """Return the type at ``path``: field names and list positions (``people.0.name``).

        Raises:
            AgentError: If nothing stands there; the message names the nearest field.
        """
        here: FieldType = self.root
        walked: list[str] = []
        for part in path.split(".") if isinstance(path, str) else path:
            here = _step(here, part, ".".join(walked))
            walked.append(part)
        return here

    def _explain(self, error: ValidationError) -> str:
        details = error.errors(include_url=False, include_context=False)
        lines = [self._explain_one(detail["loc"], detail["type"], detail.get("input")) for detail in details]
        more = len(lines) - _SHOWN_ERRORS
        rest = f"; and {more} more" if more > 0 else ""
        return "the reply does not have the right shape: " + "; ".join(lines[:_SHOWN_ERRORS]) + rest

    def _explain_one(self, loc: tuple[int | str, ...], kind: str, value: object) -> str:
        where = _path_text(loc)
        if kind == "extra_forbidden":
            parent = self.lookup([str(part) for part in loc[:-1]])
            names = [field.name for field in parent.fields] if isinstance(parent, ObjectType) else []
            return f"{where} is not a field; {did_you_mean(str(loc[-1]), names)}"
        expected = self.lookup([str(part) for part in loc])
        if kind == "missing":
            return f"{where} is missing; expected {in_words(expected)}"
        return f"{where or 'the whole'}: expected {in_words(expected)}, got {_shorten(_compact(value))}"


def is_complete_json(text: str) -> bool:
    """Return whether ``text`` is one whole JSON value: false for output that a token limit cut."""
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _located_by_field(mistake: Mistake) -> Problem:
    source = ".".join(("output", *mistake.path))
    column = None if mistake.offset is None else mistake.offset + 1
    return Problem(mistake.message, source=source, column=column, suggestion=mistake.suggestion)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _not_json(text: str, error: ValueError) -> str:
    if not text.strip():
        return "the reply is empty; JSON was asked for"
    if isinstance(error, json.JSONDecodeError):
        return f"the reply is not JSON: {error.msg} at character {error.pos + 1}: {_shorten(text.strip())}"
    return "the reply is not valid: NaN, Infinity and integers of thousands of digits are not accepted"


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=repr)


def _shorten(text: str) -> str:
    text = text.encode(errors="replace").decode()
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}… ({len(text)} characters)"


def _path_text(loc: Sequence[int | str]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")


def _step(here: FieldType, part: str, walked: str) -> FieldType:
    if isinstance(here, ListType) and part.isdecimal():
        return here.item
    where = f"{walked!r} ({here})" if walked else "the output"
    if not isinstance(here, ObjectType):
        raise AgentError(f"{where} has no {part!r}")
    for field in here.fields:
        if field.name == part:
            return field.type
    names = [field.name for field in here.fields]
    raise AgentError(f"{where if not walked else repr(walked)} has no field {part!r}; {did_you_mean(part, names)}")


def _schema(kind: FieldType, *, nullable: bool = False) -> dict[str, Any]:
    """Return the exact schema; ``nullable`` adds ``null``, for an optional field."""
    if isinstance(kind, EnumType):
        return {"enum": [*kind.values, *([None] * nullable)]}
    name, rest = _described(kind)
    return {"type": [name, "null"] if nullable else name, **rest}


def _described(
    kind: StringType | IntegerType | NumberType | BooleanType | ListType | ObjectType,
) -> tuple[str, dict[str, Any]]:
    match kind:
        case StringType():
            return "string", _bounds("Length", kind.minimum or None, kind.maximum)
        case IntegerType():
            return "integer", _bounds("imum", kind.minimum, kind.maximum)
        case NumberType():
            return "number", _bounds("imum", kind.minimum, kind.maximum)
        case BooleanType():
            return "boolean", {}
        case ListType():
            return "array", {"items": _schema(kind.item), **_bounds("Items", kind.minimum or None, kind.maximum)}
    properties = {field.name: _schema(field.type, nullable=field.optional) for field in kind.fields}
    return "object", _members(kind, properties)


def _members(kind: ObjectType, properties: dict[str, Any]) -> dict[str, Any]:
    required = [field.name for field in kind.fields if not field.optional]
    return {"properties": properties, "required": required, "additionalProperties": False}


def _bounds(name: str, minimum: float | None, maximum: float | None) -> dict[str, Any]:
    bounds = {f"min{name}": minimum, f"max{name}": maximum}
    return {key: _short(value) for key, value in bounds.items() if value is not None}


def _short(value: float) -> float:
    """Return a whole number as an ``int``, so that it is written without a point."""
    return int(value) if value == int(value) else value


def _decoding_schema(kind: FieldType) -> dict[str, Any]:
    match kind:
        case NumberType(minimum=float(), maximum=float()):
            return {"enum": _grid(kind)}
        case StringType():
            return _schema(StringType(kind.minimum, min(kind.maximum, DECODED_STRING_LIMIT)))
        case ListType():
            return _schema(kind) | {"items": _decoding_schema(kind.item)}
        case ObjectType():
            properties = {field.name: _decoding_schema(field.type) for field in kind.fields}
            return {"type": "object", **_members(kind, properties)}
    return _schema(kind)


def _grid(kind: NumberType) -> list[float]:
    """Return at most 21 evenly spaced values between the bounds, both included."""
    lower, upper = Decimal(str(kind.minimum)), Decimal(str(kind.maximum))
    if lower == upper:
        return [_short(float(lower))]
    return [_short(float(lower + (upper - lower) * step / GRID_STEPS)) for step in range(GRID_STEPS + 1)]


def _whole(value: object) -> object:
    """Return ``3.0`` as ``3``: JSON Schema has them as the same integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _annotation(kind: FieldType, name: str) -> Any:
    match kind:
        case StringType():
            return Annotated[str, Strict(), Field(min_length=kind.minimum, max_length=kind.maximum)]
        case IntegerType():
            return Annotated[int, Strict(), Field(ge=kind.minimum, le=kind.maximum), BeforeValidator(_whole)]
        case NumberType():
            return Annotated[float, Strict(), Field(ge=kind.minimum, le=kind.maximum, allow_inf_nan=False)]
        case BooleanType():
            return Annotated[bool, Strict()]
        case EnumType():
            return Literal[kind.values]
        case ListType():
            items: Any = list.__class_getitem__(_annotation(kind.item, name))
            return Annotated[items, Strict(), Field(min_length=kind.minimum, max_length=kind.maximum)]
    return _object_model(kind, name)


def _object_model(kind: ObjectType, name: str) -> type[BaseModel]:
    members: dict[str, Any] = {}
    for field in kind.fields:
        attribute = field.name
        while attribute in members or keyword.iskeyword(attribute) or hasattr(BaseModel, attribute):
            attribute += "_"
        annotation = _annotation(field.type, f"{name}_{field.name}")
        if field.optional:
            members[attribute] = (annotation | None, Field(default=None, alias=field.name))
        else:
            members[attribute] = (annotation, Field(alias=field.name))
    config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
    return create_model(name, __config__=config, **members)
