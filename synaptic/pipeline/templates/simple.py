"""Templates that are only text and plain references: most of them, read by one expression and filled by lookups.

What they mean is what Jinja2 makes of them. Anything out of the ordinary gives ``None`` here, and Jinja2 decides:
a missing key, a value on the way that is not a mapping, a value of an unusual type, a text that is too long.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from synaptic.pipeline.templates.identifiers import words
from synaptic.pipeline.templates.limits import MAX_SHOWN_DEPTH, MAX_TEXT, measure
from synaptic.pipeline.templates.references import Reference
from synaptic.pipeline.templates.values import SKIPPED, present

if TYPE_CHECKING:
    from collections.abc import Mapping

Part: TypeAlias = str | tuple[str, ...]
"""Text, or the names that lead to a value."""

NOTHING: Final = object()

# Names that begin with an underscore, and chains that no pipeline has, are left to the real parser and its checks.
_DOTTED = r"[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*){0,15}"
_HOLE = re.compile(rf"\{{\{{[ \t\n]*({_DOTTED})[ \t\n]*\}}\}}")
_REFERENCE = re.compile(_DOTTED)
_NEWLINE = re.compile(r"\r\n|\r")
_TAGS = ("{{", "{%", "{#")
_NOT_A_ROOT = words(
    "true false none True False None not and or if else elif in is loop self super caller varargs kwargs"
)
_SHOWN = frozenset({str, int, float, bool, list, dict, tuple, type(None)})


@dataclass(frozen=True, slots=True)
class SimpleTemplate:
    """Text and holes in their order."""

    parts: tuple[Part, ...]
    references: tuple[Reference, ...]

    def fill(self, variables: Mapping[str, Any]) -> str | None:
        """Return the text before it is stripped, or ``None`` where Jinja2 has to decide."""
        pieces = self.pieces(variables)
        if pieces is None:
            return None
        if len(pieces) == 1:
            return pieces[0]
        return "".join(pieces)

    def pieces(self, variables: Mapping[str, Any]) -> list[str] | None:
        """Return the text of each part, or ``None`` where Jinja2 has to decide."""
        pieces = []
        length = 0
        for part in self.parts:
            if part.__class__ is str:
                piece = part
            else:
                value = look_up(variables, part)
                if value.__class__ is not str:
                    value = _text(value)
                    if value is None:
                        return None
                piece = value
            length += len(piece)
            pieces.append(piece)
        return pieces if length <= MAX_TEXT else None


def look_up(variables: Mapping[str, Any], path: tuple[str, ...] | str) -> Any:
    """Return the value at the end of the path, or ``NOTHING`` where the way there is not plain dictionaries."""
    value: Any = variables
    for name in path:
        if isinstance(value, dict):
            value = value.get(name, NOTHING)
        elif value is SKIPPED:
            return SKIPPED
        else:
            return NOTHING
    return value


def _text(value: Any) -> str | None:
    if value is SKIPPED:
        return ""
    if value.__class__ not in _SHOWN:
        return None
    try:
        if measure(value, as_text=True).depth > MAX_SHOWN_DEPTH:
            return None
        return present(value)
    except Exception:  # noqa: BLE001  (Jinja2 meets the same error, and reports it)
        return None


def parse_simple(source: str) -> SimpleTemplate | None:
    """Return the template, or ``None`` if it is more than text and plain references."""
    if "\r" in source:
        source = _NEWLINE.sub("\n", source)
    if "{{" not in source:
        return SimpleTemplate((source,), ()) if not _has_tags(source) else None
    parts: list[Part] = []
    references = []
    end = 0
    for match in _HOLE.finditer(source):
        before = source[end : match.start()]
        # "{{{ a }}" is a dictionary that is not closed, not a brace and a hole.
        if before and (before[-1] == "{" or _has_tags(before)):
            return None
        root, *path = match[1].split(".")
        if root in _NOT_A_ROOT:
            return None
        if before:
            parts.append(before)
        parts.append((root, *path))
        references.append(Reference(root, tuple(path), source.count("\n", 0, match.start(1)) + 1))
        end = match.end()
    rest = source[end:]
    if _has_tags(rest):
        return None
    if rest:
        parts.append(rest)
    return SimpleTemplate(tuple(parts), tuple(references))


def parse_reference(source: str) -> Reference | None:
    """Return the reference that an expression is, with or without braces, or ``None`` if it is anything else."""
    text = source.strip()
    if text.startswith("{{") and text.endswith("}}"):
        text = text[2:-2].strip()
    if _REFERENCE.fullmatch(text) is None:
        return None
    root, *path = text.split(".")
    if root in _NOT_A_ROOT:
        return None
    return Reference(root, tuple(path), source.count("\n", 0, source.index(root)) + 1)


def _has_tags(text: str) -> bool:
    return "{" in text and any(tag in text for tag in _TAGS)
