"""What a function's annotations say: which arguments it takes, and what is known of its result before it runs."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, RootModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

from synaptic.pipeline.templates import (
    BOOLEAN,
    NUMBER,
    SKIPPED,
    TEXT,
    UNKNOWN,
    ListOf,
    Number,
    Record,
    StaticType,
    Text,
)
from synaptic.text import cut, explain

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_DEEPEST: Final = 8
"""Levels of a result's type that are looked at; a type that holds itself ends there."""
_SHOWN: Final = 40
_WORDS: Final = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "nothing",
    "array": "a list",
    "object": "a mapping",
}
_PLURALS: Final = {
    "string": "texts",
    "integer": "whole numbers",
    "number": "numbers",
    "array": "lists",
    "object": "mappings",
}
_SIMPLE: Final[Mapping[Any, StaticType]] = {
    str: TEXT,
    int: Number(whole=True),
    float: NUMBER,
    bool: BOOLEAN,
    list: ListOf(UNKNOWN),
    tuple: ListOf(UNKNOWN),
}


class UnusableType(Exception):
    """An annotation that no value of a pipeline can have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One argument of a tool.

    Attributes:
        type: What it takes, in plain words: ``a whole number``.
        required: Whether the function has no default for it.
        default: What the function takes where nothing is given.
        takes_text: Whether some text is a valid value.
    """

    name: str
    type: str
    required: bool
    default: Any = None
    takes_text: bool = True
    _adapter: TypeAdapter[Any] = field(repr=False, compare=False)

    @classmethod
    def of(cls, name: str, annotation: Any, **more: Any) -> Parameter:
        """Return the parameter that is annotated so.

        Raises:
            UnusableType: If no JSON-like value is one of these.
        """
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(annotation)
            schema = adapter.json_schema()
        except (PydanticUserError, PydanticUndefinedAnnotation) as exc:
            raise UnusableType(annotation_text(annotation)) from exc
        words = _in_words(schema, schema.get("$defs", {}))
        return cls(
            name=name, type=words, takes_text=_takes_text(schema, schema.get("$defs", {})), _adapter=adapter, **more
        )

    def convert(self, value: object) -> Any:
        """Return ``value`` as the function takes it; JSON's types count, and nothing is guessed from text.

        Raises:
            ValueError: Saying what was expected, as in ``argument 'n' must be a whole number, not text ('3')``.
        """
        try:
            return self._adapter.validate_json(json.dumps(value, default=_as_json), strict=True)
        except ValidationError as exc:
            raise ValueError(self._explain(exc, value)) from exc
        except (TypeError, RecursionError) as exc:
            raise ValueError(f"argument {self.name!r} is no plain data: {exc}") from exc

    @property
    def takes_nothing(self) -> bool:
        """Whether nothing, as the output of a skipped step is, is a valid value."""
        try:
            self.convert(None)
        except ValueError:
            return False
        return True

    def _explain(self, failure: ValidationError, value: object) -> str:
        """Return the first mistake; where a value may be of several types, all of them are one mistake."""
        errors = failure.errors(include_url=False)
        first = errors[0]
        if first["type"] == "json_invalid":
            return f"argument {self.name!r} is no plain data: {first['ctx']['error']}"
        place, found = _walk(first["loc"], value)
        where = self.name + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
        if first["type"] == "missing":
            return f"argument {where!r} lacks {str(first['loc'][-1])!r}"
        here = [error for error in errors if error["loc"][: len(place)] == place]
        wanted = " or ".join(dict.fromkeys(_wanted(error) for error in here)).replace(" or must be ", " or ")
        kind = any(error["type"].endswith("_type") for error in here)
        return f"argument {where!r} {wanted}, not {described(found) if kind else shown(found)}"


def described(value: object) -> str:
    """Return what a value is, in plain words: ``text ('3')``."""
    names = {str: "text", int: "a number", float: "a number", list: "a list", dict: "a mapping"}
    if value is None:
        return "nothing"
    if value is SKIPPED:
        return "the output of a step that was skipped"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{names.get(type(value), type(value).__name__)} ({shown(value)})"


def shown(value: object) -> str:
    """Return a value as it is written, cut short."""
    return cut(repr(value), _SHOWN)


def annotation_text(annotation: Any) -> str:
    """Return an annotation as a person wrote it, nearly."""
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return name.replace("typing.", "")


def static_type(annotation: Any, owner: str, depth: int = 0) -> StaticType:
    """Return what is known of a value that is annotated so; ``UNKNOWN`` where the annotation is not a simple one.

    Args:
        annotation: With its names resolved.
        owner: Names the value in messages: ``the output of the tool 'weather'``.
        depth: How many values it is inside of.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return static_type(arguments[0], owner, depth)
    if depth > _DEEPEST:
        return UNKNOWN
    if origin is Literal:
        return Text(tuple(arguments)) if all(isinstance(value, str) for value in arguments) else UNKNOWN
    if origin in {list, Sequence} or (origin is tuple and arguments[1:] == (...,)):
        return ListOf(static_type(arguments[0], f"an item of {owner}", depth + 1))
    if not isinstance(annotation, type) or origin is not None:
        return UNKNOWN
    if annotation in _SIMPLE:
        return _SIMPLE[annotation]
    fields = _fields(annotation)
    if fields is None:
        return UNKNOWN
    known = {name: static_type(kind, f"{name!r} of {owner}", depth + 1) for name, kind in fields.items()}
    return Record(known, f"{owner} has no {{name}}")


def _fields(kind: type) -> Mapping[str, Any] | None:
    """Return the fields of a TypedDict, dataclass or pydantic model, with ``Any`` where one may be missing."""
    try:
        if typing.is_typeddict(kind):
            # The hints are looked at, too: where annotations are text, the class does not know what is optional.
            hints = typing.get_type_hints(kind, include_extras=True)
            optional: frozenset[str] = getattr(kind, "__optional_keys__", frozenset())
            return {name: Any if name in optional else _required(hint) for name, hint in hints.items()}
        if dataclasses.is_dataclass(kind):
            hints = typing.get_type_hints(kind)
            return {entry.name: hints[entry.name] for entry in dataclasses.fields(kind)}
    except (NameError, TypeError, AttributeError):
        return None
    return _model_fields(kind)


def _required(hint: Any) -> Any:
    """Return the type of a TypedDict's entry; ``Any`` where it may be missing."""
    origin = typing.get_origin(hint)
    if origin is typing.NotRequired:
        return Any
    return typing.get_args(hint)[0] if origin is typing.Required else hint


def _model_fields(kind: type) -> Mapping[str, Any] | None:
    if not issubclass(kind, BaseModel) or issubclass(kind, RootModel):
        return None
    decorators = kind.__pydantic_decorators__
    if decorators.model_serializers or kind.model_config.get("extra") == "allow":
        return None
    written = {name for entry in decorators.field_serializers.values() for name in entry.info.fields}
    return _declared(kind, written)


def _declared(kind: type[BaseModel], written: set[str]) -> Mapping[str, Any]:
    """Return a model's fields as they are dumped; of the ones that are ``written`` in a way of their own, no type."""
    plain = {
        name: Any if name in written or "*" in written else info.annotation
        for name, info in kind.model_fields.items()
        if not info.exclude
    }
    return {**plain, **dict.fromkeys(kind.model_computed_fields, Any)}


def _as_json(value: object) -> object:
    """Return what JSON has for a value that it does not know: of a skipped step's output, nothing."""
    if value is SKIPPED:
        return None
    raise TypeError(f"{type(value).__name__} is not a JSON type")


def _walk(path: tuple[int | str, ...], value: Any) -> tuple[tuple[int | str, ...], Any]:
    """Return how far ``path`` leads into ``value``, and what is there; a type's name in the path leads nowhere."""
    for index, part in enumerate(path):
        inside = part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int)
        if not inside:
            return path[:index], value
        value = value[part]
    return path, value


def _wanted(error: ErrorDetails) -> str:
    demand = explain(error)
    if demand:
        return demand
    text = error["msg"].removeprefix("Value error, ").replace("Input should", "must", 1)
    return text[:1].lower() + text[1:]


def _in_words(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Return what a JSON Schema accepts, in plain words."""
    if "$ref" in schema:
        return _in_words(definitions.get(schema["$ref"].rpartition("/")[2], {}), definitions)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_in_words(each, definitions) for each in schema["anyOf"]))
    if "enum" in schema:
        choices = ", ".join(map(repr, schema["enum"]))
        return f"one of {choices}" if len(schema["enum"]) > 1 else choices
    if "const" in schema:
        return repr(schema["const"])
    words = _WORDS.get(schema.get("type", ""), "anything")
    if words == "a list":
        plural = _PLURALS.get(schema.get("items", {}).get("type", ""))
        return f"a list of {plural}" if plural else words
    if words == "a mapping" and schema.get("properties"):
        return f"a mapping with {', '.join(map(repr, schema['properties']))}"
    return f"text ({schema['format']})" if words == "text" and "format" in schema else words


def _takes_text(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> bool:
    """Return whether some text fits; where that is not plain from the schema, yes."""
    if "$ref" in schema:
        return _takes_text(definitions.get(schema["$ref"].rpartition("/")[2], {}), definitions)
    if "anyOf" in schema:
        return any(_takes_text(each, definitions) for each in schema["anyOf"])
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if choices is not None:
        return any(isinstance(choice, str) for choice in choices)
    return bool(schema.get("type", "string") == "string")


def hints_of(function: Any) -> dict[str, Any]:
    """Return the annotations of a function with their names resolved.

    Raises:
        Exception: Whatever evaluating them raises; mostly NameError.
    """
    return typing.get_type_hints(function, include_extras=True)
