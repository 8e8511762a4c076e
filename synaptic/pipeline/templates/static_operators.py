"""What operators and filters make of types, and which operands cannot be meant. Pure rules, without Jinja2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from synaptic.pipeline.templates.identifiers import LIST_METHODS, MAPPING_METHODS, TEXT_METHODS, words
from synaptic.pipeline.templates.static_access import Complaint, describe, field_of, unify
from synaptic.pipeline.templates.static_bounds import Bounded, decided
from synaptic.pipeline.templates.static_types import (
    BOOLEAN,
    NUMBER,
    TEXT,
    UNKNOWN,
    Boolean,
    ListOf,
    Number,
    Record,
    StaticType,
    Text,
)
from synaptic.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

NO_CONSTANT: Final = object()

_TO_NUMBER = frozenset({"wordcount", "float", "round", "abs", "sum"})
_TO_TEXT = words(
    """bullets capitalize center filesizeformat format indent join json lower replace string title tojson trim truncate
    upper urlencode wordwrap"""
)
_TO_ITEM = frozenset({"first", "last", "min", "max"})
_SAME_LIST = frozenset({"sort", "unique", "reject", "select", "selectattr", "rejectattr", "reverse", "list"})
_OF_LISTS = words("join map select reject selectattr rejectattr sum groupby batch slice sort unique min max")
_OF_SIZED = frozenset({"length", "count", "first", "last", "reverse", "list"})
_OF_NUMBERS = frozenset({"round", "abs"})
_BY_ATTRIBUTE = frozenset({"map", "sort", "unique", "min", "max", "sum", "groupby", "join"})
_BY_FIRST_ATTRIBUTE = frozenset({"selectattr", "rejectattr", "groupby"})
CHUNK = Record({"name": TEXT, "part": Number(whole=True), "text": TEXT}, "a chunk has no {name}")
LOOP = Record(
    {
        **dict.fromkeys(("index", "index0", "revindex", "revindex0", "length", "depth", "depth0"), Number(whole=True)),
        **dict.fromkeys(("first", "last"), BOOLEAN),
        **dict.fromkeys(("previtem", "nextitem", "cycle", "changed"), UNKNOWN),
    },
    "'loop' has no {name}",
)
METHOD_RESULTS: dict[str, StaticType] = {
    **dict.fromkeys(
        words("""capitalize casefold join lower lstrip removeprefix removesuffix replace rstrip strip swapcase title
        upper"""),
        TEXT,
    ),
    **dict.fromkeys(("partition", "rpartition", "split", "rsplit", "splitlines"), ListOf(TEXT)),
    **dict.fromkeys(("count", "find", "index", "rfind"), Number(whole=True)),
    **dict.fromkeys(
        words("""endswith isalnum isalpha isdigit islower isspace istitle isupper startswith"""),
        BOOLEAN,
    ),
    "keys": ListOf(TEXT),
    "values": ListOf(UNKNOWN),
    "items": ListOf(UNKNOWN),
}
"""What each method gives, where that is known."""


@dataclass(frozen=True, slots=True)
class Operand:
    """One side of an operator.

    Attributes:
        kind: Its type.
        shown: How the template writes it, where that is a dotted chain or a constant.
        constant: Its value, where it is written out.
    """

    kind: StaticType
    shown: str | None = None
    constant: Any = NO_CONSTANT

    @property
    def subject(self) -> str:
        """The operand as the beginning of a sentence, with its type."""
        if self.constant is not NO_CONSTANT:
            return f"{self.constant!r} is {describe(self.kind)}"
        return f"{self.shown!r} is {describe(self.kind)}" if self.shown else f"this is {describe(self.kind)}"


def compare(operator: str, left: Operand, right: Operand) -> Complaint | None:
    """Return what is wrong with a comparison (``eq ne lt lteq gt gteq in notin``), or ``None``."""
    if operator in {"eq", "ne"}:
        return _never_equal(left, right) or _never_equal(right, left) or _decided(operator, left, right)
    if operator in {"in", "notin"}:
        if isinstance(right.kind, (Number, Boolean)):
            return Complaint(f"{right.subject}, and nothing is in it", "look in a list or a text")
        return None
    return _not_ordered(left, right) or _decided(operator, left, right)


def _decided(operator: str, left: Operand, right: Operand) -> Complaint | None:
    """Return why declared bounds decide a comparison of numbers, whatever the run brings; ``None`` if they do not."""
    return decided(operator, _bounded(left), _bounded(right))


def _bounded(operand: Operand) -> Bounded | None:
    value = operand.constant
    if value is not NO_CONSTANT:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return Bounded(None, value, value, constant=True) if is_number else None
    if not isinstance(operand.kind, Number):
        return None
    return Bounded(operand.shown, operand.kind.least, operand.kind.most)


def choice_complaint(left: Operand, value: Any) -> Complaint | None:
    """Return what is wrong with asking whether a text with choices is ``value``."""
    kind = left.kind
    if not isinstance(kind, Text) or kind.choices is None or not isinstance(value, str) or value in kind.choices:
        return None
    return Complaint(f"{left.shown or 'this'!r} is never {value!r}", did_you_mean(value, kind.choices))


def _never_equal(left: Operand, right: Operand) -> Complaint | None:
    """Return why ``left`` is never equal to ``right``, a constant."""
    value = right.constant
    if value is NO_CONSTANT or value is None or left.constant is not NO_CONSTANT:
        return None
    if isinstance(value, str):
        if isinstance(left.kind, Number):
            numeric = value.strip().replace(".", "", 1).lstrip("-").isdigit()
            advice: str | None = f"write {value.strip()} without quotes" if numeric else "compare it with a number"
            return Complaint(f"{left.subject} and never equal to the text {value!r}", advice)
        if isinstance(left.kind, (Boolean, ListOf, Record)):
            advice = "write it alone, or after 'not'" if isinstance(left.kind, Boolean) else None
            return Complaint(f"{left.subject} and never equal to the text {value!r}", advice)
        return choice_complaint(left, value)
    if isinstance(left.kind, (Text, ListOf, Record)) and isinstance(value, (bool, int, float)):
        advice = f"write {str(value)!r} in quotes" if isinstance(left.kind, Text) else None
        if isinstance(left.kind, ListOf) and not isinstance(value, bool):
            advice = f"write {left.shown} | length" if left.shown else "compare its | length"
        return Complaint(f"{left.subject} and never equal to {value!r}", advice)
    return None


def _not_ordered(left: Operand, right: Operand) -> Complaint | None:
    for one, other in ((left, right), (right, left)):
        if isinstance(one.kind, Record) and other.kind != UNKNOWN:
            return Complaint(f"{one.subject} and has no order", "compare a field of it")
        if isinstance(one.kind, (Text, ListOf)) and isinstance(other.kind, (Number, Boolean)):
            name = one.shown or "it"
            advice = f"write {name} | length" if isinstance(one.kind, ListOf) else f"write {name} | float"
            if one.constant is not NO_CONSTANT:
                advice = "write the number without quotes"
            return Complaint(f"{one.subject} and cannot be compared with {describe(other.kind)}", advice)
        if isinstance(one.kind, Text) and isinstance(other.kind, ListOf):
            return Complaint(f"{one.subject} and cannot be compared with a list", "write 'in' to look in the list")
    return None


def calculate(operator: str, left: Operand, right: Operand) -> StaticType | Complaint:
    """Return the type of an arithmetic expression (``+ - * / // % **``)."""
    kinds = (left.kind, right.kind)
    if operator == "%" and isinstance(left.kind, Text):
        return TEXT
    if operator == "+":
        return _add(left, right)
    for operand in (left, right):
        if isinstance(operand.kind, (Text, ListOf, Record)):
            advice = f"write {operand.shown} | float" if isinstance(operand.kind, Text) and operand.shown else None
            return Complaint(f"{operand.subject}, and {operator!r} needs numbers", advice)
    return NUMBER if all(isinstance(kind, (Number, Boolean)) for kind in kinds) else UNKNOWN


def _add(left: Operand, right: Operand) -> StaticType | Complaint:
    match left.kind, right.kind:
        case (Text(), Text()):
            return TEXT
        case (ListOf(), ListOf()):
            return unify(left.kind, right.kind)
        case (Number() | Boolean(), Number() | Boolean()):
            return NUMBER
    for one, other in ((left, right), (right, left)):
        if isinstance(one.kind, Record):
            return Complaint(f"{one.subject}, and '+' adds numbers, texts or lists")
        if isinstance(one.kind, (Text, ListOf)) and other.kind != UNKNOWN:
            advice = "write ~ to join them as text" if isinstance(one.kind, Text) else "put it in brackets: [x]"
            return Complaint(f"{one.subject}, and '+' cannot add {describe(other.kind)} to it", advice)
    return UNKNOWN


def negate(operand: Operand) -> StaticType | Complaint:
    """Return the type of ``-x``."""
    if isinstance(operand.kind, (Text, ListOf, Record)):
        return Complaint(f"{operand.subject}, and '-' needs a number")
    return NUMBER


def filtered(
    name: str, value: Operand, arguments: Sequence[Operand] = (), attribute: Operand | None = None
) -> StaticType | Complaint:
    """Return the type that a filter gives."""
    complaint = _unsuited(name, value)
    if complaint is not None:
        return complaint
    by = attribute if name in _BY_ATTRIBUTE else None
    if by is None and name in _BY_FIRST_ATTRIBUTE and arguments:
        by = arguments[0]
    item = value.kind.item if isinstance(value.kind, ListOf) else UNKNOWN
    part: StaticType = UNKNOWN
    if by is not None and isinstance(by.constant, str):
        for dotted in by.constant.split(",") if name == "sort" else [by.constant]:
            found = _part_of(item, dotted)
            if isinstance(found, Complaint):
                return found
            part = found
    return ListOf(part) if name == "map" else _result(name, value.kind, item)


def _unsuited(name: str, value: Operand) -> Complaint | None:
    kind = value.kind
    if name in _OF_LISTS and isinstance(kind, (Text, Number, Boolean)):
        return Complaint(f"{value.subject}, and '{name}' needs a list")
    if name in _OF_SIZED and isinstance(kind, (Number, Boolean)):
        return Complaint(f"{value.subject}, and '{name}' needs a list or a text")
    if name in _OF_NUMBERS and isinstance(kind, (Text, ListOf, Record)):
        return Complaint(f"{value.subject}, and '{name}' needs a number", "write | float before it")
    if name in {"items", "dictsort"} and isinstance(kind, (Text, Number, Boolean, ListOf)):
        return Complaint(f"{value.subject}, and '{name}' needs a record")
    if name == "chunks" and isinstance(kind, (Number, Boolean)):
        return Complaint(f"{value.subject}, and 'chunks' needs a text, a file or a list of them")
    return None


def _part_of(item: StaticType, dotted: str) -> StaticType | Complaint:
    """Return the type of ``item.dotted``."""
    kind = item
    for name in dotted.split("."):
        if not isinstance(kind, Record):
            return UNKNOWN
        result = field_of(kind, name, None)
        if isinstance(result, Complaint):
            return result
        kind = result
    return kind


def _result(name: str, kind: StaticType, item: StaticType) -> StaticType:
    result: StaticType = UNKNOWN
    if name in {"length", "count"}:
        result = Number(least=0, most=kind.most if isinstance(kind, ListOf) else None)
    elif name in _TO_NUMBER:
        result = NUMBER
    elif name == "int":
        result = Number(whole=True)
    elif name in _TO_TEXT:
        result = TEXT
    elif name in _TO_ITEM:
        result = TEXT if isinstance(kind, Text) else item
    elif name in _SAME_LIST and isinstance(kind, Text):
        result = TEXT if name == "reverse" else ListOf(TEXT)
    elif name in _SAME_LIST:
        result = ListOf(item)
    elif name in {"batch", "slice"}:
        result = ListOf(ListOf(item))
    elif name in {"groupby", "items", "dictsort"}:
        result = ListOf(UNKNOWN)
    elif name == "chunks":
        result = ListOf(CHUNK)
    return result


def has_method(kind: StaticType, name: str) -> bool:
    """Return whether a value of the type has the method."""
    match kind:
        case Text():
            return name in TEXT_METHODS
        case ListOf():
            return name in LIST_METHODS
        case Record():
            return name in MAPPING_METHODS and name not in kind.fields
    return False
