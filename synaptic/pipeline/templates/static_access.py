"""What a field, an item or a loop over a value of a known type gives, and what is wrong with asking for it.

Pure rules over static types, without Jinja2: templates of plain references are checked by these alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, TypeVar

from synaptic.pipeline.templates.identifiers import TEXT_METHODS
from synaptic.pipeline.templates.other_words import OTHER_FIELDS
from synaptic.pipeline.templates.references import TemplateFinding
from synaptic.pipeline.templates.static_types import BOOLEAN, UNKNOWN, Boolean, ListOf, Number, Record, StaticType, Text
from synaptic.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from synaptic.pipeline.templates.references import Reference

MOST_KINDS = 200
"""Items of a list that is written out whose types are compared: each one with all before it."""

_Bound = TypeVar("_Bound", int, float)
_STEP = re.compile(r"steps\.\w+")


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong, and what to write instead."""

    message: str
    suggestion: str | None = None
    warning: bool = False


def describe(kind: StaticType) -> str:
    """Return the type as the end of a sentence that begins with "this is"."""
    match kind:
        case Text():
            return "text"
        case Number():
            return "a number"
        case Boolean():
            return "true or false"
        case ListOf():
            return "a list"
        case Record():
            return "a record"
    return "unknown"


def undefined(name: str, scope: Mapping[str, StaticType]) -> Complaint:
    """Return the complaint about a root that is not there."""
    if name == "previous":
        return Complaint("'previous' is the round before, and there is no loop here", "move it into a 'repeat'")
    if name == "loop":
        return Complaint("'loop' is only there inside a loop", "write it between {% for … %} and {% endfor %}")
    return Complaint(f"{name!r} is not defined here", did_you_mean(name, scope))


def field_of(owner: StaticType, name: str, shown: str | None) -> StaticType | Complaint:
    """Return the type of ``owner.name``.

    Args:
        owner: The type of what the field is asked of.
        name: The field.
        shown: How the template writes the owner, as far as it is a dotted chain.
    """
    if isinstance(owner, Record):
        kind = owner.fields.get(name)
        if kind is not None:
            return kind
        return Complaint(owner.missing.replace("{name}", repr(name)), did_you_mean(name, owner.fields))
    if owner == UNKNOWN:
        return UNKNOWN
    what = f"{shown!r} is {describe(owner)}" if shown else f"this is {describe(owner)}"
    other = OTHER_FIELDS.get(name) if isinstance(owner, (ListOf, Text)) else None
    if other is not None:
        return Complaint(f"{what} and has no {name!r}", other.format(shown=shown or "it", name=name))
    if isinstance(owner, ListOf):
        advice = f"loop over it: {{% for part in {shown or 'it'} %}}"
        if shown and _STEP.fullmatch(shown):
            return Complaint(f"{what}, one output per item", advice)
        return Complaint(f"{what} and has no {name!r}", advice)
    method = f".{name}()" if isinstance(owner, Text) and name in TEXT_METHODS else ""
    return Complaint(f"{what} and has no {name!r}", f"write {shown}{method}" if shown else None)


def whole(kind: StaticType, shown: str | None) -> Complaint | None:
    """Return what is wrong with using a value itself instead of a field of it."""
    if isinstance(kind, Record) and kind.whole is not None:
        return Complaint(kind.whole, f"write {shown}.NAME" if shown else None)
    return None


def follow(reference: Reference, scope: Mapping[str, StaticType]) -> tuple[StaticType, TemplateFinding | None]:
    """Return the type at the end of a plain reference, and what is wrong on the way."""
    kind = scope.get(reference.root)
    shown = reference.root
    if kind is None:
        return UNKNOWN, _finding(undefined(shown, scope), shown, reference)
    for name in reference.path:
        result = field_of(kind, name, shown)
        shown = f"{shown}.{name}"
        if isinstance(result, Complaint):
            return UNKNOWN, _finding(result, shown, reference)
        kind = result
    complaint = whole(kind, shown)
    return (UNKNOWN, _finding(complaint, shown, reference)) if complaint else (kind, None)


def _finding(complaint: Complaint, token: str, reference: Reference) -> TemplateFinding:
    return TemplateFinding(complaint.message, reference.line, token, complaint.suggestion)


def item_of(kind: StaticType, shown: str | None) -> StaticType | Complaint:
    """Return the type of what a loop over the value gives one by one."""
    if isinstance(kind, ListOf):
        return kind.item
    if kind == UNKNOWN:
        return UNKNOWN
    what = f"{shown!r} is {describe(kind)}" if shown else f"this is {describe(kind)}"
    advice = None
    if shown is not None:
        advice = {Text: f"write {shown}.splitlines()", Record: f"write {shown} | items"}.get(type(kind))
    return Complaint(f"{what}, and a loop needs a list", advice)


def type_of_data(value: object) -> StaticType:
    """Return the type of data that is written out; a list's items may be any of those that are there."""
    match value:
        case bool():
            return BOOLEAN
        case int() | float():
            return Number(whole=isinstance(value, int))
        case str():
            return Text((value,))
        case list():
            return ListOf(any_of([type_of_data(item) for item in value]))
        case dict():
            return Record({key: type_of_data(item) for key, item in value.items()})
    return UNKNOWN


def any_of(kinds: Sequence[StaticType]) -> StaticType:
    """Return what is known of a value that is of one of these types; of very many, nothing."""
    return reduce(unify, kinds) if 0 < len(kinds) <= MOST_KINDS else UNKNOWN


def unify(left: StaticType, right: StaticType) -> StaticType:
    """Return what is known of a value that is of one type or of the other."""
    if left is right:
        return left
    match left, right:
        case Number(), Number():
            whole_numbers = left.whole and right.whole
            return Number(whole_numbers, _wider(min, left.least, right.least), _wider(max, left.most, right.most))
        case ListOf(), ListOf():
            return ListOf(unify(left.item, right.item), _wider(max, left.most, right.most))
        case Record(), Record():
            names = dict.fromkeys((*left.fields, *right.fields))
            both = {name: unify(left.fields.get(name, UNKNOWN), right.fields.get(name, UNKNOWN)) for name in names}
            return replace(left, fields=both)
    if left == right:
        return left
    if isinstance(left, Text) and isinstance(right, Text):
        return Text(left.choices + right.choices if left.choices and right.choices else None)
    return UNKNOWN


def _wider(choose: Callable[[_Bound, _Bound], _Bound], one: _Bound | None, other: _Bound | None) -> _Bound | None:
    """Return the wider of two bounds; ``None`` is none at all."""
    return None if one is None or other is None else choose(one, other)
