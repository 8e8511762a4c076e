"""What is known of a value before anything runs: enough to refuse ``steps.critic.scroe`` at load time.

The roots of a template (``inputs``, ``steps``, ``run``, ``item``, ``previous``) are records of such types, so a
dangling reference and a misspelt field are one check. What is not known is ``UNKNOWN``, and nothing is said of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from synaptic.agents import BooleanType, EnumType, FieldType, IntegerType, ListType, NumberType, StringType

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Unknown:
    """Anything."""


@dataclass(frozen=True, slots=True)
class Text:
    """Text; with ``choices``, only one of these."""

    choices: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Number:
    """A number, from ``least`` to ``most`` where those are known; types that differ in bounds alone are equal."""

    whole: bool = False
    least: float | None = field(default=None, compare=False)
    most: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Boolean:
    """True or false."""


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list, of ``most`` items where that is known; types that differ in that alone are equal."""

    item: StaticType
    most: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Record:
    """A mapping with known fields.

    Attributes:
        missing: What is wrong with a field that is not there; ``{name}`` stands for it, quoted.
        whole: What is wrong with using the record itself, where that is an error (``steps`` alone).
    """

    fields: Mapping[str, StaticType] = field(hash=False)
    missing: str = "there is no field {name}"
    whole: str | None = None


StaticType: TypeAlias = Unknown | Text | Number | Boolean | ListOf | Record

UNKNOWN = Unknown()
TEXT = Text()
NUMBER = Number()
BOOLEAN = Boolean()


def of_field(kind: FieldType, owner: str) -> StaticType:
    """Return the type of a field of an output shape; ``owner`` names the output in messages."""
    match kind:
        case StringType():
            return TEXT
        case EnumType():
            return Text(tuple(str(value) for value in kind.values))
        case IntegerType():
            return Number(whole=True, least=kind.minimum, most=kind.maximum)
        case NumberType():
            return Number(least=kind.minimum, most=kind.maximum)
        case BooleanType():
            return BOOLEAN
        case ListType():
            return ListOf(of_field(kind.item, f"an item of {owner}"), kind.maximum)
    fields = {
        part.name: UNKNOWN if part.optional else of_field(part.type, f"{part.name!r} of {owner}")
        for part in kind.fields
    }
    return Record(fields, f"{owner} has no {{name}}")
