"""Values as sources give them, and what is wrong with each: in plain words, at the place where it was written."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ValidationError

from synaptic.errors import Problem
from synaptic.settings.endpoints import SECRET_KEYS
from synaptic.settings.model import (
    DUPLICATE_ERROR,
    PLAIN_ERROR,
    WHERE_LISTED,
    NodeSettings,
    RpcBackendSettings,
    Settings,
    field_kind,
)
from synaptic.text import JsonDocument, KeyPath, amount_meant, did_you_mean, excerpt, explain, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

ENV_PREFIX = "SYNAPTIC_"

_ITEMS: dict[str, type[BaseModel]] = {"nodes": NodeSettings, "rpc_backends": RpcBackendSettings}
_USERINFO = re.compile(r"(?<![^\s\"'])[^\s\"']*@")  # from where it begins on, not from each character


class Form(Enum):
    """How a source writes a setting; decides what a suggestion looks like."""

    FILE = "file"
    ARGUMENT = "argument"
    VARIABLE = "variable"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Given:
    """One value that one source gives for a setting, or for one entry of a table.

    Attributes:
        path: ``(setting,)`` or ``(setting, entry)``.
        source: The file as messages show it, a variable's name, ``--set`` or a flag.
        document: The file's content, for lines and columns.
        written: Where the value stands in the file; it differs from ``path`` for an older name.
        origin_key: The key whose line is the origin; a table's entries all have the table's.
        weak: Counts only where nothing else gives the setting.
    """

    path: tuple[str, ...]
    value: Any
    source: str
    form: Form
    document: JsonDocument | None = None
    written: KeyPath = ()
    origin_key: KeyPath = ()
    weak: bool = False

    @property
    def renamed(self) -> bool:
        """Whether it was written under an older name."""
        return bool(self.written) and self.written[0] != self.path[0]

    @property
    def place(self) -> str:
        """``file:line``, or the source where there are no lines."""
        position = self.document.position(self.origin_key or self.written) if self.document else None
        return f"{self.source}:{position.line}" if position else self.source

    @property
    def origin(self) -> str:
        """Where the value came from, for a person."""
        named_already = self.form is Form.VARIABLE
        return f"{self.place} ({self.written[0]})" if self.renamed and not named_already else self.place


def problems_of(given: Given) -> list[Problem]:
    """Return every mistake in one value; an empty list if it is right."""
    nested = given.value
    for key in reversed(given.path):
        nested = {key: nested}
    try:
        Settings.model_validate(nested)
    except ValidationError as exc:
        details = exc.errors(include_url=False)
        return [problem for error in details for problem in _translate(given, error)]
    return []


def problem_at(given: Given, message: str, suggestion: str | None, rest: KeyPath = ()) -> Problem:
    """Return a problem located at ``rest`` inside the value."""
    position = given.document.position((*given.written, *rest)) if given.document else None
    line, column = (position.line, position.column) if position else (None, None)
    return Problem(message, given.source, line, column, suggestion)


def shown(value: Any) -> str:
    """Return a value as a message shows it: short, and never with a user name or a password in it."""
    if value is None:
        return "null"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, str):
        return f'"{excerpt(_USERINFO.sub("***@", value))}"'
    return "a list" if isinstance(value, list) else "an object"


def write_as(form: Form, source: str, path: KeyPath, example: Any) -> str:
    """Return ``write ...``: the setting at ``path`` with the example as its value, as the source writes it."""
    table_entry = len(path) > 1 and all(isinstance(part, str) for part in path)
    if form is Form.FILE:
        last = path[-1]
        key = f"{json.dumps(excerpt(last))}: " if isinstance(last, str) else ""
        return f"write {key}{json.dumps(example)}"
    if form is Form.ARGUMENT and isinstance(example, dict) and len(path) == 1:
        entry, example = next(iter(example.items()))
        path, table_entry = (*path, entry), True
    text = _as_text(example)
    if form is Form.ARGUMENT:
        name = ".".join(excerpt(str(part)) for part in path) if table_entry else str(path[0])
        return f"write {name}={text}" if len(path) == 1 or table_entry else f"write {text} there"
    if form is Form.VARIABLE:
        return f"write {source}={text}" if len(path) == 1 else f"write {text} there"
    return f"write {source} {text}"


def _as_text(example: Any) -> str:
    """Return an example as a shell takes it; lists of addresses have a short form."""
    if isinstance(example, str):
        return example
    if isinstance(example, list) and isinstance(example[0], str):
        return f"'{json.dumps(example)}'"
    if isinstance(example, list):
        return ",".join(item.get("url") or f"{item['host']}:{item['port']}" for item in example)
    return f"'{json.dumps(example)}'" if isinstance(example, dict) else json.dumps(example)


def _translate(given: Given, error: ErrorDetails) -> list[Problem]:
    where = cast("KeyPath", tuple(part for part in error["loc"] if part != "[key]"))
    rest = where[len(given.path) :]
    context = error.get("ctx", {})
    if error["type"] == DUPLICATE_ERROR:
        return [
            problem_at(
                given,
                f"{_label(given, (*rest, later))} is the same address as {_label(given, (*rest, first))}, "
                f"{context['addresses'][later]}",
                "remove one of them",
                (*rest, later),
            )
            for later, first in context["repeated"]
        ]
    if error["type"] == "extra_forbidden":
        return [_unknown(given, rest)]
    message, suggestion = _explain(given, error, where)
    return [problem_at(given, f"{_label(given, rest)} {message}", suggestion, rest)]


def _unknown(given: Given, rest: KeyPath) -> Problem:
    known = _ITEMS[given.path[0]].model_fields if rest else Settings.model_fields
    name = str(rest[-1] if rest else given.path[-1])
    around = f" in {_label(given, rest[:-1])}" if rest else ""
    if rest and known is NodeSettings.model_fields and name.lower() in SECRET_KEYS:
        variable, file = SECRET_KEYS[name.lower()]
        message = f"{_label(given, rest)} is a secret, and settings are no place for those"
        example = (NodeSettings.model_fields[variable].examples or [""])[0]
        suggestion = f'put it into a variable or a file, and write "{variable}": "{example}" or "{file}": "PATH"'
        return problem_at(given, message, suggestion, rest)
    suggestion = did_you_mean(name, known, listing=None if rest else WHERE_LISTED)
    return problem_at(given, f"unknown setting {excerpt(name)!r}{around}", suggestion, rest)


def _label(given: Given, rest: KeyPath) -> str:
    """Return the setting's name as the person wrote it: ``nodes[0].port``, ``agent_timeout (now call_timeout)``."""
    own = given.written or given.path
    text = ""
    for part in own if given.renamed else (*own, *rest):
        text += f"[{part}]" if isinstance(part, int) else f".{excerpt(part)}"
    text = text.removeprefix(".")
    return f"{text} (now {'.'.join(given.path)})" if given.renamed else text


def _field(where: KeyPath) -> FieldInfo | None:
    """Return the field that ``where`` points at, if it is one and not an entry of a table or a list."""
    names = [part for part in where if isinstance(part, str)]
    if len(names) == 1 and len(where) == 1:
        return Settings.model_fields[names[0]]
    if len(names) == len(where) - 1 and where[0] in _ITEMS:
        return _ITEMS[names[0]].model_fields.get(names[-1]) if len(names) > 1 else None
    return None


def example_of(where: KeyPath) -> Any:
    """Return a value that the setting at ``where`` may have, or an entry of that table."""
    field = _field(where)
    if field is None:
        table = Settings.model_fields[str(where[0])]
        field_value = (table.examples or [None])[0]
        return next(iter(field_value.values())) if isinstance(field_value, dict) else field_value[0]
    return (field.examples or [None])[0]


def _explain(given: Given, error: ErrorDetails, where: KeyPath) -> tuple[str, str | None]:
    """Return what is wrong (``must be ...``) and what to write instead."""
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    instead = write_as(given.form, given.source, where, example_of(where))
    if kind == PLAIN_ERROR:
        return context["message"], context["suggestion"]
    if kind == "missing":
        return "is missing", instead
    if kind == "string_unicode":
        return "is not valid Unicode text", instead
    if kind == "string_pattern_mismatch":
        return f"must be a duration, not {shown(value)}", instead + ', or "1h30m", or "-1" for ever'
    if kind == "string_too_short":
        return "must not be empty", instead
    demand = explain(error, mapping="an object")
    return (error["msg"], instead) if demand is None else _demanded(given, error, where, demand)


def _demanded(given: Given, error: ErrorDetails, where: KeyPath, demand: str) -> tuple[str, str | None]:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    instead = write_as(given.form, given.source, where, example_of(where))
    message = demand if kind in {"finite_number", "too_short"} else f"{demand}, not {shown(value)}"
    if kind == "literal_error":
        return message, _nearest_choice(given, where, str(context["expected"]), value) or instead
    if kind in _BOUNDS:
        return message, _another_number(given, where, instead)
    return message, _retyped(given, where, kind, value) or instead


def _nearest_choice(given: Given, where: KeyPath, expected: str, value: Any) -> str | None:
    """Return the suggestion to write the allowed word that was meant."""
    match = nearest(str(value).lower(), expected.replace(" or ", ", ").replace("'", "").split(", "))
    return write_as(given.form, given.source, where, match) if match else None


def _another_number(given: Given, where: KeyPath, instead: str) -> str:
    field = _field(where)
    if field is None or not field_kind(field.annotation).optional:
        return instead
    return f"{instead}, or {'null' if given.form is Form.FILE else 'none'} for no limit"


def _retyped(given: Given, where: KeyPath, kind: str, value: Any) -> str | None:
    """Return the suggestion to write the same value in the type that is wanted, where it can be seen."""
    if isinstance(value, str) and kind == "bool_type" and value.strip().lower() in BOOLEANS:
        return write_as(given.form, given.source, where, BOOLEANS[value.strip().lower()])
    if isinstance(value, str) and kind in {"int_type", "float_type"} and _NUMERAL[kind].fullmatch(value.strip()):
        return f"write {value.strip()} without quotes"
    if isinstance(value, str) and kind in {"int_type", "float_type"}:
        amount = amount_meant(value, str(where[-1]))
        fits = amount is not None and (kind == "float_type" or isinstance(amount, int))
        return write_as(given.form, given.source, where, amount) if fits else None
    if isinstance(value, float) and kind in {"int_type", "int_from_float"} and value.is_integer():
        return write_as(given.form, given.source, where, int(value))
    if isinstance(value, int | float) and not isinstance(value, bool) and kind == "string_type":
        return write_as(given.form, given.source, where, json.dumps(value))
    return None


BOOLEANS: Mapping[str, bool] = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}

_NUMERAL = {"int_type": re.compile(r"-?[0-9]{1,18}"), "float_type": re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?")}

_BOUNDS = frozenset({"finite_number", "greater_than", "greater_than_equal", "less_than_equal"})
