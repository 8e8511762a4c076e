"""Values under ``with``: literals, templates and references, checked against what takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synaptic.pipeline.compiler.inputs import fits, wrong_literal
from synaptic.pipeline.kinds import CompiledTool, CompiledUse
from synaptic.pipeline.templates import TEXT, UNKNOWN, StaticType, describe
from synaptic.text import did_you_mean

if TYPE_CHECKING:
    from synaptic.pipeline.compiler.outlines import Outline
    from synaptic.pipeline.compiler.scope import View
    from synaptic.pipeline.compiler.source_file import Unit
    from synaptic.pipeline.compiler.texts import Checked
    from synaptic.pipeline.spec import PipelineSpec
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


def bind(unit: Unit, value: Any, path: KeyPath, view: View) -> Bound | None:
    """Return the value ready to be filled in, or ``None`` after reporting what is wrong with a template in it."""
    if isinstance(value, str):
        return _bind_text(unit, value, path, view) if any(sign in value for sign in _SIGNS) else Bound(value, value)
    if isinstance(value, list):
        found = [bind(unit, item, (*path, index), view) for index, item in enumerate(value)]
        items = [item for item in found if item is not None]
        if len(items) < len(found):
            return None
        known = [item.known for item in items]
        return Bound([item.binding for item in items], known, *_of_parts(items))
    if isinstance(value, dict):
        entries = {key: bind(unit, item, (*path, key), view) for key, item in value.items()}
        bound = {key: item for key, item in entries.items() if item is not None}
        if len(bound) < len(entries):
            return None
        known_entries = {key: item.known for key, item in bound.items()}
        return Bound({key: item.binding for key, item in bound.items()}, known_entries, *_of_parts(bound.values()))
    return Bound(value, value)


def _of_parts(items: Any) -> tuple[bool, StaticType, tuple[Checked[Any], ...]]:
    parts = tuple(part for item in items for part in item.parts)
    return all(item.literal for item in items), UNKNOWN, parts


def _bind_text(unit: Unit, text: str, path: KeyPath, view: View) -> Bound | None:
    from synaptic.pipeline.tools import LATER, TEXT_LATER  # noqa: PLC0415  (only pipelines with 'with' need it)

    inner = _one_value(text)
    if inner is None:
        template = unit.texts.template(text, path, view)
        return None if template is None else Bound(template.code, TEXT_LATER, False, TEXT, (template,))
    # "{{ steps.a }}" alone hands on the value itself, a list for example, and not its text.
    expression = unit.texts.expression(inner, path, view)
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


def bind_all(unit: Unit, outline: Outline, view: View) -> dict[str, Bound | None]:
    """Return every value under the step's ``with``."""
    values = outline.spec.inputs or {}
    return {name: bind(unit, value, (*outline.path, "with", name), view) for name, value in values.items()}


def compile_tool(unit: Unit, outline: Outline, bound: dict[str, Bound | None]) -> CompiledTool | None:
    """Return the call of the tool, or ``None`` after reporting arguments that it does not take."""
    tool = outline.tool
    if tool is None:
        return None
    from synaptic.pipeline.tools import LATER  # noqa: PLC0415  (only pipelines with tools need it)

    known = {name: LATER if value is None else value.known for name, value in bound.items()}
    for argument, message, suggestion in tool.complaints(known):
        if argument is None:
            unit.report.at_value(message, (*outline.path, "tool"), suggestion)
        elif argument in tool.parameters:
            unit.report.at_value(message, (*outline.path, "with", argument), suggestion)
        else:
            unit.report.at_key(message, (*outline.path, "with", argument), suggestion)
    arguments = {name: value.binding for name, value in bound.items() if value is not None}
    return CompiledTool(tool=tool, arguments=arguments, shape=outline.shape)


def compile_use(unit: Unit, outline: Outline, bound: dict[str, Bound | None]) -> CompiledUse | None:
    """Return the use of another pipeline, or ``None`` after reporting inputs that it does not take."""
    used = outline.used
    if used is None or used.spec is None:
        return None
    _check_inputs(unit, outline, bound, used.spec)
    if used.compiled is None:
        return None
    inputs = {name: value.binding for name, value in bound.items() if value is not None}
    return CompiledUse(pipeline=used.compiled, inputs=inputs)


def _check_inputs(unit: Unit, outline: Outline, bound: dict[str, Bound | None], used: PipelineSpec) -> None:
    path = (*outline.path, "with")
    for name, value in bound.items():
        declared = used.inputs.get(name)
        if declared is None:
            message = f"the pipeline {used.name!r} has no input {name!r}"
            unit.report.at_key(message, (*path, name), did_you_mean(name, used.inputs))
        elif value is not None and value.literal and value.binding is not None:
            wrong = wrong_literal(value.binding, declared)
            if wrong is not None:
                what, _, suggestion = wrong.partition("; ")
                unit.report.at_value(f"the input {name!r} {what}", (*path, name), suggestion or None)
        elif value is not None and not fits(value.type, declared):
            message = f"the input {name!r} is a {declared.type}, and this is {describe(value.type)}"
            unit.report.at_value(message, (*path, name))
    for name, declared in used.inputs.items():
        given = bound.get(name)
        absent = name not in bound or (given is not None and given.literal and given.binding is None)
        if declared.required and absent:
            message = f"the pipeline {used.name!r} needs the input {name!r}"
            unit.report.at_value(message, (*outline.path, "use"), f"write it under 'with', as in {name}: …")
