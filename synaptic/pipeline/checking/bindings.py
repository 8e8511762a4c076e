"""Values under ``with``: literals, templates and references, checked against what takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synaptic.pipeline.templates import TEXT, UNKNOWN, StaticType
from synaptic.pipeline.tools import LATER, TEXT_LATER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.pipeline.checking.source_file import SourceFile
    from synaptic.pipeline.checking.texts import Checked
    from synaptic.pipeline.checking.view import View
    from synaptic.text import KeyPath

_SIGNS = ("{{", "{%", "{#")


@dataclass(frozen=True, slots=True)
class Bound:
    """One value under ``with``.

    Attributes:
        binding: What the executor fills in.
        known: The literal, or what stands for a value that is only known later.
        literal: Whether nothing in it is only known later.
        type: What is known of a value that is not literal.
        parts: The templates in it.

    """

    binding: Any
    known: Any
    literal: bool = True
    type: StaticType = UNKNOWN
    parts: tuple[Checked[Any], ...] = ()


def bind(file: SourceFile, value: Any, path: KeyPath, view: View) -> Bound | None:
    """Return the value ready to be filled in, or ``None`` after reporting what is wrong with a template in it."""
    if isinstance(value, str):
        return _bind_text(file, value, path, view) if any(sign in value for sign in _SIGNS) else Bound(value, value)
    if isinstance(value, list):
        found = [bind(file, item, (*path, index), view) for index, item in enumerate(value)]
        items = [item for item in found if item is not None]
        if len(items) < len(found):
            return None
        known = [item.known for item in items]
        return Bound([item.binding for item in items], known, *_of_parts(items))
    if isinstance(value, dict):
        entries = {key: bind(file, item, (*path, key), view) for key, item in value.items()}
        bound = {key: item for key, item in entries.items() if item is not None}
        if len(bound) < len(entries):
            return None
        known_entries = {key: item.known for key, item in bound.items()}
        return Bound({key: item.binding for key, item in bound.items()}, known_entries, *_of_parts(bound.values()))
    return Bound(value, value)


def _of_parts(items: Any) -> tuple[bool, StaticType, tuple[Checked[Any], ...]]:
    parts = tuple(part for item in items for part in item.parts)
    return all(item.literal for item in items), UNKNOWN, parts


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
