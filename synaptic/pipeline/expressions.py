"""Templates and conditions: sandboxed Jinja2, compiled once, with the references that each one makes.

A template gives text (``Question: {{ inputs.query }}``); an expression gives a value
(``steps.critique.score >= inputs.threshold``, with or without the braces). References are read off the
syntax tree, so dependencies between steps are known before anything runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from synaptic.errors import PipelineError


@dataclass(frozen=True, slots=True)
class Reference:
    """``steps.plan.questions`` on line 3 of its template: root ``steps``, path ``("plan", "questions")``."""

    root: str
    path: tuple[str, ...]
    line: int

    def __str__(self) -> str:
        return ".".join((self.root, *self.path))


class TemplateProblem(Exception):
    """A template is wrong, on this line of it; the caller knows the file."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


def present(value: Any) -> str:
    """Return a value as text that a small model reads well: lists as bullets, objects as ``key: value`` lines."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return "\n".join(_entry(key, item) for key, item in value.items() if item not in (None, [], ""))
    if isinstance(value, (list, tuple)):
        return "\n".join("- " + present(item).replace("\n", "\n  ") for item in value)
    return str(value)


def _entry(key: str, value: Any) -> str:
    text = present(value)
    separator = "\n" if "\n" in text or isinstance(value, (list, tuple)) else " "
    return f"{key}:{separator}{text}"


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox, without attributes of mappings and without multiplied text (a gigabyte in ten characters)."""

    intercepted_binops = frozenset({"*", "**"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        # Jinja2 asks for the attribute first, so that a field called "items" would be dict.items.
        if isinstance(obj, Mapping):
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
        if not numbers or (operator == "**" and abs(right) > 64):  # noqa: PLR2004  (2**64 is as far as anybody needs)
            raise SecurityError(f"'{operator}' works on (small) numbers only")
        return super().call_binop(context, operator, left, right)


@cache
def _environment() -> _Sandbox:
    environment = _Sandbox(undefined=jinja2.StrictUndefined, finalize=present, keep_trailing_newline=False)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    environment.filters["bullets"] = present
    return environment


@dataclass(frozen=True, slots=True)
class Template:
    """Text with holes."""

    source: str
    references: tuple[Reference, ...]
    _compiled: jinja2.Template

    @classmethod
    def compile(cls, source: str) -> Template:
        """Return the compiled template.

        Raises:
            TemplateProblem: If its syntax is wrong or it names an unknown root or filter.

        """
        tree = _parse(source)
        try:
            compiled = _environment().from_string(tree)
        except jinja2.TemplateSyntaxError as exc:
            raise _problem(exc) from exc
        return cls(source, tuple(_references(tree)), compiled)

    def render(self, variables: Mapping[str, Any], *, where: str) -> str:
        """Return the text; ``where`` names the step in errors.

        Raises:
            PipelineError: If a reference leads nowhere or something unsafe is tried.

        """
        try:
            return self._compiled.render(variables).strip()
        except Exception as exc:  # noqa: BLE001  (a template can raise anything that its expressions can)
            _fail(exc, where)

    @property
    def sole_reference(self) -> Reference | None:
        """The reference that the whole template consists of, if it is nothing else."""
        inner = _inner_expression(self.source)
        if len(self.references) == 1 and inner == str(self.references[0]):
            return self.references[0]
        return None


@dataclass(frozen=True, slots=True)
class Expression:
    """A value computed from the variables: a condition, a list to map over, a bound."""

    source: str
    references: tuple[Reference, ...]
    _compiled: jinja2.environment.TemplateExpression

    @classmethod
    def compile(cls, source: str) -> Expression:
        """Return the compiled expression; surrounding ``{{ }}`` are optional.

        Raises:
            TemplateProblem: If its syntax is wrong or it names an unknown root or filter.

        """
        inner = _inner_expression(source) or source.strip()
        tree = _parse("{{ " + inner + " }}")
        try:
            compiled = _environment().compile_expression(inner, undefined_to_none=False)
        except jinja2.TemplateSyntaxError as exc:
            raise _problem(exc) from exc
        return cls(inner, tuple(_references(tree)), compiled)

    def evaluate(self, variables: Mapping[str, Any], *, where: str) -> Any:
        """Return the value; ``where`` names the step in errors.

        Raises:
            PipelineError: If a reference leads nowhere, types do not fit, or something unsafe is tried.

        """
        try:
            value = self._compiled(**variables)
        except Exception as exc:  # noqa: BLE001  (an expression can raise anything that its operators can)
            _fail(exc, where)
        if isinstance(value, jinja2.Undefined):
            raise PipelineError(f"{where}: {self.source!r} has no value")
        return value


def _fail(exc: Exception, where: str) -> NoReturn:
    message = exc.message if isinstance(exc, jinja2.TemplateError) and exc.message else str(exc)
    raise PipelineError(f"{where}: {message}") from exc


def _inner_expression(source: str) -> str | None:
    text = source.strip()
    if text.startswith("{{") and text.endswith("}}") and text.count("{{") == 1 and text.count("}}") == 1:
        return text[2:-2].strip()
    return None


def _parse(source: str) -> nodes.Template:
    try:
        tree = _environment().parse(source)
    except jinja2.TemplateSyntaxError as exc:
        raise _problem(exc) from exc
    except RecursionError as exc:
        raise TemplateProblem("nested too deeply", 1) from exc
    for forbidden in tree.find_all((nodes.Import, nodes.FromImport, nodes.Include, nodes.Extends)):
        raise TemplateProblem("templates cannot import, include or extend others", forbidden.lineno)
    return tree


def _problem(exc: jinja2.TemplateSyntaxError) -> TemplateProblem:
    message = (exc.message or "broken template").replace("'end of print statement'", "end of the expression")
    return TemplateProblem(message.rstrip("."), exc.lineno)


def _references(tree: nodes.Template) -> Iterator[Reference]:
    """Yield each maximal dotted chain that begins with a root; names that the template sets itself are none."""
    local = {name.name for name in tree.find_all(nodes.Name) if name.ctx in {"store", "param"}}
    inside: set[int] = set()
    for node in tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Name)):
        if id(node) in inside:
            continue
        path: list[str] = []
        current: nodes.Node = node
        while isinstance(current, (nodes.Getattr, nodes.Getitem)):
            step = _step(current)
            if step is None:
                path.clear()
            else:
                path.append(step)
            current = current.node
            inside.add(id(current))
        if isinstance(current, nodes.Name) and current.ctx == "load" and current.name not in local:
            yield Reference(current.name, tuple(reversed(path)), current.lineno)


def _step(node: nodes.Getattr | nodes.Getitem) -> str | None:
    if isinstance(node, nodes.Getattr):
        return node.attr
    if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
        return node.arg.value
    return None
