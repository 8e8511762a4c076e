"""Templates and expressions of a pipeline: compiled, and checked against what they may refer to."""

from __future__ import annotations

import re
from collections import ChainMap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from synaptic.errors import PipelineError
from synaptic.pipeline.templates import (
    UNKNOWN,
    Expression,
    ListOf,
    Number,
    Record,
    StaticType,
    Structure,
    Template,
    TemplateProblem,
    Unknown,
    describe,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.pipeline.checking.report import Report
    from synaptic.pipeline.checking.view import View
    from synaptic.pipeline.templates import Reference
    from synaptic.text import KeyPath

_REFERENCE = re.compile(r"(inputs|steps)(\.[A-Za-z]\w*)+")

Code = TypeVar("Code", Template, Expression)
Code_co = TypeVar("Code_co", bound="Template | Expression | Structure", covariant=True)


@dataclass(frozen=True, slots=True)
class Checked(Generic[Code_co]):
    """A template or an expression, or data with several of them.

    Attributes:
        type: What is known of its value; nothing where something is wrong with it.
        steps: The steps that it refers to, without those that are not there.
        path: Where it stands.
        parts: The templates and expressions in data.
    """

    code: Code_co
    type: StaticType
    steps: tuple[str, ...]
    path: KeyPath = ()
    parts: tuple[Checked[Any], ...] = ()

    @property
    def references(self) -> tuple[Reference, ...]:
        """What it refers to."""
        return self.code.references


@dataclass(frozen=True, slots=True)
class Written:
    """A text that is filled in.

    Attributes:
        items: Names of the item of the map that it belongs to, if it refers to none of them.
    """

    source: str
    path: KeyPath
    items: tuple[str, ...] = ()


class Texts:
    """Compiles and checks the templates of one file."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.written: list[Written] = []
        self._fields: dict[str, set[str]] = {}

    def fields_of(self, step: str) -> set[str]:
        """Return the fields of the step's output that any template so far refers to."""
        return self._fields.get(step, set())

    def template(self, source: str, path: KeyPath, view: View) -> Checked[Template] | None:
        """Return the template, or ``None`` after reporting that its syntax is wrong, or its braces are forgotten."""
        if self.forgotten_braces(source, path, view):
            return None
        checked = self._checked(Template, source, path, view)
        if checked is not None:
            named = {reference.root for reference in checked.references}
            self.written.append(Written(source, path, () if named & view.items.keys() else tuple(view.items)))
        return checked

    def forgotten_braces(self, text: str, path: KeyPath, view: View) -> bool:
        """Report a text that is a reference without its braces, and return whether it is one."""
        found = Expression.compile(text).sole_reference if _REFERENCE.fullmatch(text.strip()) else None
        if found is None or view.dangling(found) is not None or _is_missing(view, found):
            return False
        message = f"this is the text {text.strip()!r}, and not what it refers to"
        self.report.at_value(message, path, f"write '{{{{ {text.strip()} }}}}'")
        return True

    def expression(self, source: str | None, path: KeyPath, view: View) -> Checked[Expression] | None:
        """Return the expression, or ``None`` after reporting that its syntax is wrong, or where there is none."""
        return None if source is None else self._checked(Expression, source, path, view)

    def condition(self, source: str | None, path: KeyPath, view: View) -> Checked[Expression] | None:
        """Return an expression of which only the truth counts."""
        return self.expression(source, path, view)

    def items(self, source: str | None, path: KeyPath, view: View) -> Checked[Expression] | None:
        """Return an expression that gives a list."""
        checked = self.expression(source, path, view)
        if checked is not None and not isinstance(checked.type, (ListOf, Unknown)):
            message = f"'foreach' needs a list, and this is {describe(checked.type)}"
            self.report.in_text(message, path, suggestion=_list_advice(checked))
        elif checked is not None and constant(checked.code) == (True, []):
            self.report.in_text("this step can never run: its list is always empty", path)
        return checked

    def number(self, source: str | None, path: KeyPath, view: View) -> Checked[Expression] | None:
        """Return an expression that gives a number."""
        checked = self.expression(source, path, view)
        if checked is not None and not isinstance(checked.type, (Number, Unknown)):
            self.report.in_text(f"{path[-1]!r} must be a number, and this is {describe(checked.type)}", path)
        return checked

    def _checked(self, kind: type[Code], source: str, path: KeyPath, view: View) -> Checked[Code] | None:
        try:
            code = kind.compile(source)
        except TemplateProblem as exc:
            self._report_syntax(exc, path)
            for other in exc.others:
                self._report_syntax(other, path)
            return None
        before = self.report.count
        bad = self._dangling(code, path, view)
        kind_of, findings = code.check(_without(view, bad) if bad else view.scope)
        for finding in findings:
            report = self.report.warnings if finding.warning else self.report
            report.in_text(finding.message, path, finding.line, finding.token, finding.suggestion)
        names: dict[str, None] = {}
        for reference in code.references:
            if reference.root == "steps" and reference.path and ("steps", reference.path[0]) not in bad:
                names[reference.path[0]] = None
                self._fields.setdefault(reference.path[0], set()).update(reference.path[1:2])
        steps = tuple(names)
        return Checked(code, kind_of if self.report.count == before else UNKNOWN, steps, path)

    def _report_syntax(self, problem: TemplateProblem, path: KeyPath) -> None:
        if problem.offset is None:
            self.report.in_text(problem.message, path, problem.line, problem.token, problem.suggestion)
        else:
            self.report.at_offset(problem.message, path, problem.offset, problem.suggestion)

    def _dangling(self, code: Template | Expression, path: KeyPath, view: View) -> set[tuple[str, str | None]]:
        """Report references whose first names are not there, and return those names."""
        bad: set[tuple[str, str | None]] = set()
        for reference in code.references:
            problem = view.dangling(reference)
            if problem is None:
                continue
            is_step = reference.root == "steps"
            token = f"steps.{reference.path[0]}" if is_step else reference.root
            self.report.in_text(problem[0], path, reference.line, token, problem[1])
            bad.add((reference.root, reference.path[0] if is_step else None))
        return bad


def constant(code: Expression) -> tuple[bool, Any]:
    """Return whether the expression has the same value always, and that value."""
    if code.references:
        return False, None
    try:
        return True, code.evaluate({}, where="")
    except PipelineError:
        return False, None


def _is_missing(view: View, reference: Reference) -> bool:
    root = view.scope[reference.root]
    return isinstance(root, Record) and reference.path[0] not in root.fields


def _list_advice(checked: Checked[Expression]) -> str | None:
    """Return which field of a mapping is a list, where there is one."""
    if not isinstance(checked.type, Record):
        return None
    lists = [name for name, kind in checked.type.fields.items() if isinstance(kind, ListOf)]
    reference = checked.code.sole_reference
    return f"did you mean {reference}.{lists[0]}?" if len(lists) == 1 and reference is not None else None


def _without(view: View, bad: set[tuple[str, str | None]]) -> Mapping[str, StaticType]:
    """Return the scope with names that were reported already as anything, so that nothing more is said of them."""
    scope = dict(view.scope)
    missing: dict[str, StaticType] = {name: UNKNOWN for root, name in bad if root == "steps" and name is not None}
    steps = scope["steps"]
    if missing and isinstance(steps, Record):
        scope["steps"] = replace(steps, fields=ChainMap(missing, view.steps))
    return scope | {root: UNKNOWN for root, name in bad if name is None}
