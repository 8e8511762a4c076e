"""A type of an output in words: models that are asked again read these, and people who fill in an answer."""

from __future__ import annotations

import json

from synaptic.agents.notation import (
    BooleanType,
    EnumType,
    FieldType,
    IntegerType,
    ListType,
    NumberType,
    ObjectType,
    StringType,
)


def in_words(kind: FieldType) -> str:
    """Return what a type is, as in ``a text of 10 to 100 characters``."""
    match kind:
        case StringType():
            return f"a text of {_amount(kind.minimum, kind.maximum, 'character')}"
        case IntegerType():
            return f"a whole number{_range(kind.minimum, kind.maximum)}"
        case NumberType():
            return f"a number{_range(kind.minimum, kind.maximum)}"
        case BooleanType():
            return "true or false"
        case EnumType():
            return f"one of {', '.join(json.dumps(value, ensure_ascii=False) for value in kind.values)}"
        case ListType():
            return f"a list of {_amount(kind.minimum, kind.maximum, 'item')}, each {in_words(kind.item)}"
        case ObjectType():
            fields = (f'"{field.name}"{" (may be missing)" * field.optional}' for field in kind.fields)
            return f"an object with {', '.join(fields)}"


def _amount(least: int, most: int, what: str) -> str:
    number = f"{most}" if least == most else f"{least} to {most}" if least else f"at most {most}"
    return f"{number} {what}{'' if most == 1 else 's'}"


def _range(least: float | None, most: float | None) -> str:
    if least is None and most is None:
        return ""
    if least is None or most is None:
        return f" of at most {_plain(most)}" if least is None else f" of at least {_plain(least)}"
    return f" from {_plain(least)} to {_plain(most)}"


def _plain(value: float | None) -> str:
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)
