"""Templates and conditions: sandboxed Jinja2 with the references that each one makes and the types that it needs.

A template gives text (``Question: {{ inputs.query }}``); an expression gives a value
(``steps.critique.score >= inputs.threshold``, with or without the braces). References are read off the syntax, so
dependencies between steps are known before anything runs. What is only text and plain references never meets Jinja2,
unless a value is missing or unusual: then Jinja2 renders it, so that the result and the errors are always its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from synaptic.errors import PipelineError
from synaptic.pipeline.templates.references import Reference, TemplateFinding, TemplateProblem
from synaptic.pipeline.templates.scenarios import ANYTHING, Truth, followed
from synaptic.pipeline.templates.simple import NOTHING, SimpleTemplate, look_up, parse_reference, parse_simple
from synaptic.pipeline.templates.static_access import follow
from synaptic.pipeline.templates.static_types import TEXT, StaticType
from synaptic.pipeline.templates.values import SKIPPED, SkippedValueUsed, present

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import ModuleType

    from jinja2 import nodes

    from synaptic.pipeline.templates.sandbox import Program
    from synaptic.pipeline.templates.scenarios import Scenario, Value

__all__ = ["SKIPPED", "Expression", "Reference", "Template", "TemplateFinding", "TemplateProblem", "present"]

# Jinja2 and all that needs it is imported where it is needed: 40 ms that a pipeline of plain templates need not pay.


@dataclass(slots=True, eq=False)
class Template:
    """Text with holes.

    Attributes:
        source: The text as it is written.
        references: Every reference to a name from outside, as often as it occurs.
        sole_reference: The reference that the whole template consists of, if it is nothing else.
    """

    source: str
    references: tuple[Reference, ...]
    sole_reference: Reference | None
    _simple: SimpleTemplate | None
    _tree: nodes.Template | None
    _program: Program | None = None

    @classmethod
    def compile(cls, source: str) -> Template:
        """Return the template; code for it is generated when it is first needed.

        Raises:
            TemplateProblem: If its syntax is wrong, it names an unknown filter, or it tries what no template may.
        """
        return _template(source)

    def render(self, variables: Mapping[str, Any], *, where: str) -> str:
        """Return the text, without white space around it; ``where`` names the step in errors.

        Raises:
            PipelineError: If a reference leads nowhere, something unsafe is tried, or the text becomes too long.
        """
        if self._simple is not None:
            text = self._simple.fill(variables)
            if text is not None:
                return text.strip()
        return "".join(self._pieces(variables, where)).strip()

    def so_far(self, variables: Mapping[str, Any]) -> str:
        """Return the text as far as it can be said while steps have no output yet, "" where it cannot.

        Of text and plain references, what is not there is nothing; conditions and loops need all that they speak of.
        """
        if self._simple is not None:
            named = {each.path[0]: SKIPPED for each in self.references if each.root == "steps" and each.path}
            variables = {**variables, "steps": {**named, **variables["steps"]}}
        try:
            return self.render(variables, where="result")
        except PipelineError:
            return ""

    def render_message(self, variables: Mapping[str, Any], *, where: str) -> tuple[str, tuple[tuple[int, int], ...]]:
        """Return what ``render`` returns, and the spans (start, end) of it that are data filled in.

        Raises:
            PipelineError: As ``render``.
        """
        pieces = self._simple.pieces(variables) if self._simple is not None else None
        if self._simple is not None and pieces is not None:
            marked = [(piece, part.__class__ is tuple) for piece, part in zip(pieces, self._simple.parts, strict=True)]
        else:
            from synaptic.pipeline.templates.filters import Data  # noqa: PLC0415  (imports jinja2)

            marked = [(piece, isinstance(piece, Data)) for piece in self._pieces(variables, where)]
        return _message(marked)

    def check(self, scope: Mapping[str, StaticType]) -> tuple[StaticType, list[TemplateFinding]]:
        """Return the type (of a sole reference the value's, else text) and what cannot be meant.

        ``scope`` has the type of each root.
        """
        if self._tree is None:
            kinds, findings = _check_references(self.references, scope)
        else:
            _, findings = _checked(self._tree, scope)
            kinds = []
        if self.sole_reference is None:
            return TEXT, findings
        return (kinds[0] if kinds else follow(self.sole_reference, scope)[0]), findings

    def outcome(self, scenario: Scenario) -> Value:
        """Return what is known of the value of a sole reference in a scenario; of other text, nothing.

        Raises:
            Fails: If it cannot be rendered there.
        """
        if not any(scenario.tells_of(reference) for reference in self.references):
            return ANYTHING
        return _outcome(self._tree, self.references, scenario, self.sole_reference)

    def _pieces(self, variables: Mapping[str, Any], where: str) -> list[str]:
        try:
            if self._program is None:
                self._program = _program(self.source)
            return self._program.pieces(variables)
        except Exception as exc:  # noqa: BLE001  (a template can raise anything that its expressions can)
            _fail(exc, where, self.references, variables)


@dataclass(slots=True, eq=False)
class Expression:
    """A value computed from the variables: a condition, a list to map over, a bound.

    Attributes:
        source: The expression as it is written, without braces around it.
        references: Every reference to a name from outside, as often as it occurs.
        sole_reference: The reference that the expression is, if it is nothing else.
    """

    source: str
    references: tuple[Reference, ...]
    sole_reference: Reference | None
    _path: tuple[str, ...] | None
    _tree: nodes.Expr | None
    _text: str
    _program: Program | None = None

    @classmethod
    def compile(cls, source: str) -> Expression:
        """Return the expression; surrounding ``{{ }}`` are optional.

        Raises:
            TemplateProblem: If its syntax is wrong, it names an unknown filter, or it tries what none may.
        """
        return _expression(source)

    def evaluate(self, variables: Mapping[str, Any], *, where: str) -> Any:
        """Return the value; ``where`` names the step in errors.

        Raises:
            PipelineError: If a reference leads nowhere, types do not fit, or something unsafe is tried.
        """
        if self._path is not None:
            value = look_up(variables, self._path)
            if value is not NOTHING:
                return value
        try:
            if self._program is None:
                self._program = _program(self._text, is_expression=True)
            return self._program.value(variables)
        except Exception as exc:  # noqa: BLE001  (an expression can raise anything that its operators can)
            _fail(exc, where, self.references, variables)

    def known(self, inputs: Mapping[str, Any]) -> Any:
        """Return the value before a run, if nothing but these ``inputs`` decides it; else ``None``."""
        for reference in self.references:
            if reference.root != "inputs" or not reference.path or inputs.get(reference.path[0]) is None:
                return None
        try:
            return self.evaluate({"inputs": inputs}, where="the plan")
        except PipelineError:
            return None  # the run will say it, at the step that it belongs to

    def check(self, scope: Mapping[str, StaticType]) -> tuple[StaticType, list[TemplateFinding]]:
        """Return the type of the value and what cannot be meant.

        ``scope`` has the type of each root.
        """
        if self._tree is None:
            kinds, findings = _check_references(self.references, scope)
            return kinds[0], findings
        return _checked(self._tree, scope)

    def outcome(self, scenario: Scenario) -> Value:
        """Return what is known of the value in a scenario.

        Raises:
            Fails: If it has none there.
        """
        return _outcome(self._tree, self.references, scenario, self.sole_reference)

    def assumed(self, *, holds: bool) -> dict[str, bool]:
        """Return the conditions whose outcomes follow, where this one is true or false."""
        if self._tree is None:
            return {str(self.sole_reference): holds}
        facts: dict[str, bool] = _outcomes().assumed(self._tree, holds=holds)
        return facts


# A session compiles the same pipelines for every question; with the template it keeps the code generated for it.
@lru_cache(maxsize=1024)
def _template(source: str) -> Template:
    simple = parse_simple(source)
    if simple is not None:
        holes = [part for part in simple.parts if isinstance(part, tuple) or part.strip()]
        alone = simple.references[0] if len(holes) == 1 and simple.references else None
        return Template(source, simple.references, alone, simple, None)
    from synaptic.pipeline.templates.scopes import references_of, sole_reference_of  # noqa: PLC0415  (imports jinja2)
    from synaptic.pipeline.templates.syntax import parse_template  # noqa: PLC0415  (the same)

    tree = parse_template(source)
    return Template(source, references_of(tree), sole_reference_of(tree), None, tree)


@lru_cache(maxsize=1024)
def _expression(source: str) -> Expression:
    reference = parse_reference(source)
    if reference is not None:
        path = (reference.root, *reference.path)
        return Expression(str(reference), (reference,), reference, path, None, f"{{{{ {reference} }}}}")
    from synaptic.pipeline.templates.scopes import plain_reference, references_of  # noqa: PLC0415  (imports jinja2)
    from synaptic.pipeline.templates.syntax import parse_expression  # noqa: PLC0415  (the same)

    tree, text = parse_expression(source)
    inner = source.strip()
    if inner.startswith("{{") and inner.endswith("}}"):
        inner = inner[2:-2].strip()
    return Expression(inner, references_of(tree), plain_reference(tree), None, tree, text)


def _program(source: str, *, is_expression: bool = False) -> Program:
    from synaptic.pipeline.templates.sandbox import Program  # noqa: PLC0415  (imports jinja2)

    return Program(source, is_expression=is_expression)


def _checked(tree: nodes.Node, scope: Mapping[str, StaticType]) -> tuple[StaticType, list[TemplateFinding]]:
    from synaptic.pipeline.templates.inference import check  # noqa: PLC0415  (imports jinja2)

    return check(tree, scope)


def _outcomes() -> ModuleType:
    from synaptic.pipeline.templates import outcome  # noqa: PLC0415  (imports jinja2)

    return outcome


def _outcome(
    tree: nodes.Node | None, references: Sequence[Reference], scenario: Scenario, sole: Reference | None
) -> Value:
    if not scenario.facts and not any(scenario.tells_of(reference) for reference in references):
        return ANYTHING
    values = {reference: followed(reference, scenario) for reference in references} if tree is None else {}
    if tree is None:
        value = ANYTHING if sole is None else values[sole]
        return Truth(scenario.facts[str(sole)]) if value is ANYTHING and str(sole) in scenario.facts else value
    found: Value = _outcomes().outcome(tree, scenario)
    return found


def _check_references(
    references: Iterable[Reference], scope: Mapping[str, StaticType]
) -> tuple[list[StaticType], list[TemplateFinding]]:
    results = [follow(reference, scope) for reference in references]
    findings = dict.fromkeys(finding for _, finding in results if finding is not None)
    return [kind for kind, _ in results], list(findings)


def _message(marked: Sequence[tuple[str, bool]]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Return the stripped text and the spans in it of the pieces that are data."""
    whole = "".join(piece for piece, _ in marked)
    text = whole.strip()
    before = len(whole) - len(whole.lstrip())
    spans, position = [], -before
    for piece, is_data in marked:
        start, end = max(position, 0), min(position + len(piece), len(text))
        if is_data and start < end:
            spans.append((start, end))
        position += len(piece)
    return text, tuple(spans)


def _fail(exc: Exception, where: str, references: Iterable[Reference], variables: Mapping[str, Any]) -> NoReturn:
    message = getattr(exc, "message", None) or str(exc) or type(exc).__name__
    if isinstance(exc, SkippedValueUsed):
        skipped = [
            name
            for name in dict.fromkeys(map(str, references))
            if look_up(variables, tuple(name.split("."))) is SKIPPED
        ]
        if skipped:
            name = ".".join(skipped[0].split(".")[:2])
            message = (
                f"{name!r} was skipped and has no output to calculate or compare with; "
                f"ask first whether it ran: {name} and …"
            )
    elif "None" in message and (missing := _nothing(references, variables)):
        message = (
            f"{missing!r} is nothing here, so that this cannot be done with it; "
            f"ask first whether it is there: {missing} and …, or {{% if {missing} %}}"
        )
    raise PipelineError(f"{where}: {message}") from exc


def _nothing(references: Iterable[Reference], variables: Mapping[str, Any]) -> str | None:
    """Return the first name in the references that is there and holds nothing."""
    for parts in (str(reference).split(".") for reference in references):
        for end in range(2, len(parts) + 1):
            if look_up(variables, tuple(parts[:end])) is None:
                return ".".join(parts[:end])
    return None
