"""Data with templates in it: literals, templates and references, each checked against what it may refer to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from synaptic.pipeline.checking.texts import Checked, Written
from synaptic.pipeline.templates import (
    TEXT,
    UNKNOWN,
    ListOf,
    Record,
    StaticType,
    Structure,
    any_of,
    type_of_data,
)
from synaptic.pipeline.tools import LATER, TEXT_LATER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.pipeline.checking.source_file import SourceFile
    from synaptic.pipeline.checking.view import View
    from synaptic.text import KeyPath

_SIGNS = ("{{", "{%", "{#")


@dataclass(frozen=True, slots=True)
class Bound:
    """One value under ``with``, of a list to map over, or of a result.

    Attributes:
        binding: What the executor fills in.
        known: The literal, or what stands for a value that is only known later.
        literal: Whether nothing in it is only known later.
        type: What is known of the value.
    """

    binding: Any
    known: Any
    literal: bool = True
    type: StaticType = UNKNOWN
    parts: tuple[Checked[Any], ...] = ()


def bind(file: SourceFile, value: Any, path: KeyPath, view: View) -> Bound | None:
    """Return the value ready to be filled in, or ``None`` after reporting what is wrong with a template in it."""
    if isinstance(value, str):
        if any(sign in value for sign in _SIGNS):
            return _bind_text(file, value, path, view)
        if file.texts.forgotten_braces(value, path, view):
            return None
        file.texts.written.append(Written(value, path))
        return Bound(value, value, type=type_of_data(value))
    if isinstance(value, list):
        found = [bind(file, item, (*path, index), view) for index, item in enumerate(value)]
        items = [item for item in found if item is not None]
        if len(items) < len(found):
            return None
        known = [item.known for item in items]
        listed = ListOf(any_of([item.type for item in items]))
        return Bound([item.binding for item in items], known, *_of_parts(items, listed))
    if isinstance(value, dict):
        entries = {key: bind(file, item, (*path, key), view) for key, item in value.items()}
        bound = {key: item for key, item in entries.items() if item is not None}
        if len(bound) < len(entries):
            return None
        known_entries = {key: item.known for key, item in bound.items()}
        record = Record({key: item.type for key, item in bound.items()})
        bindings = {key: item.binding for key, item in bound.items()}
        return Bound(bindings, known_entries, *_of_parts(bound.values(), record))
    return Bound(value, value, type=type_of_data(value))


def _of_parts(items: Any, kind: StaticType) -> tuple[bool, StaticType, tuple[Checked[Any], ...]]:
    parts = tuple(part for item in items for part in item.parts)
    return all(item.literal for item in items), kind, parts


def _bind_text(file: SourceFile, text: str, path: KeyPath, view: View) -> Bound | None:
    inner = _one_value(text)
    if inner is None:
        template = file.texts.template(text, path, view)
        return None if template is None else Bound(template.code, TEXT_LATER, False, TEXT, (template,))
    # "{{ steps.a }}" alone hands on the value itself, a list for example, and not its text.
    expression = file.texts.expression(inner, path, view)
    return None if expression is None else Bound(expression.code, LATER, False, expression.type, (expression,))


def _one_value(text: str) -> str | None:
    """Return what stands between the braces, if the text is nothing but one pair of them."""
    stripped = text.strip()
    if stripped.count("{{") != 1 or stripped.count("}}") != 1 or len(stripped) < len("{{}}"):
        return None
    if not stripped.startswith("{{") or not stripped.endswith("}}"):
        return None
    inner = stripped[2:-2]
    return inner.removeprefix("-").removeprefix("+").removesuffix("-").removesuffix("+").strip()


def bind_all(file: SourceFile, values: Mapping[str, Any] | None, path: KeyPath, view: View) -> dict[str, Bound | None]:
    """Return every value under a step's ``with``, each as :func:`bind` does."""
    return {name: bind(file, value, (*path, name), view) for name, value in (values or {}).items()}


def parts_of(bound: Mapping[str, Bound | None]) -> list[Checked[Any]]:
    """Return the templates in the values."""
    return [part for value in bound.values() if value is not None for part in value.parts]


def structure(file: SourceFile, value: Any, path: KeyPath, view: View, missing: str) -> Checked[Structure] | None:
    """Return a list or a mapping with templates in it, or ``None`` after reporting what is wrong in one of them.

    Args:
        file: The file that it stands in.
        value: The list or mapping.
        path: Where it stands.
        view: What its templates see.
        missing: What is wrong with a field that is not there: of the mapping, or of an item of the list.
    """
    bound = bind(file, value, path, view)
    if bound is None:
        return None
    references = tuple(reference for part in bound.parts for reference in part.references)
    steps = tuple(dict.fromkeys(name for part in bound.parts for name in part.steps))
    return Checked(Structure(bound.binding, references), _named(bound.type, missing), steps, path, bound.parts)


def listed_items(file: SourceFile, items: list[Any], path: KeyPath, view: View) -> Checked[Structure] | None:
    """Return a list to map over that is written out, or ``None`` after reporting what is wrong with it."""
    if not items:
        file.report.at_value("this step can never run: its list is always empty", path, "write its items, or remove it")
    for index, item in enumerate(items):
        if item is None:
            file.report.at_value("an item of the list is empty", (*path, index), "write it, or remove the line")
    return structure(file, items, path, view, "an item of this list has no {name}")


def _named(kind: StaticType, missing: str) -> StaticType:
    if isinstance(kind, Record):
        return replace(kind, missing=missing)
    return ListOf(_named(kind.item, missing)) if isinstance(kind, ListOf) else kind
