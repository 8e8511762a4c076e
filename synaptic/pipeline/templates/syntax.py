"""Reading templates with Jinja2's parser, and refusing at once what could only fail, or must not be tried, later.

Code is generated when a template is first rendered. What generating it would refuse is therefore looked for here, on
the syntax tree; so is what the sandbox would refuse at run time, as far as it can be seen.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NoReturn

import jinja2
from jinja2 import nodes

from synaptic.pipeline.templates.filters import complaint_about_arguments
from synaptic.pipeline.templates.identifiers import GLOBALS, METHODS, REFUSED_FILTERS, RESERVED, words
from synaptic.pipeline.templates.intent import diagnose_expression, diagnose_template
from synaptic.pipeline.templates.limits import MAX_BITS
from synaptic.pipeline.templates.other_words import OTHER_FILTERS, OTHER_FUNCTIONS, OTHER_METHODS, OTHER_TESTS
from synaptic.pipeline.templates.references import TemplateProblem
from synaptic.pipeline.templates.sandbox import environment
from synaptic.text import did_you_mean, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

    from synaptic.pipeline.templates.intent import Intent

MAX_DEPTH = 40
"""Levels of nesting in a template; Jinja2's parser and Python's compiler both recurse."""
MAX_LOOPS = 10
"""Loops inside loops; Python compiles at most 20."""

MAX_STATEMENTS = 1000
"""Tags in a template; each is checked with all the names that those before it have set."""

_READABLE = "compare it with {{ steps.a }}, {% if steps.a %} … {% endif %} and steps.a.score > 0.5"
_MANY_DIGITS = re.compile(r"[0-9_]{1000,}")
_ATTRIBUTE_FILTERS = words("map selectattr rejectattr sort unique groupby min max sum join")
_CALLBACK_POSITION = {
    "map": ("filter", 0),
    "select": ("test", 0),
    "reject": ("test", 0),
    "selectattr": ("test", 1),
    "rejectattr": ("test", 1),
}
_REFUSED: dict[type[nodes.Node], tuple[str, str | None]] = {
    **dict.fromkeys(
        (nodes.Import, nodes.FromImport, nodes.Include, nodes.Extends),
        ("templates cannot import, include or extend others", None),
    ),
    **dict.fromkeys(
        (nodes.Macro, nodes.CallBlock),
        ("templates have no macros", "loop over a list of what differs, or use {% set %}"),
    ),
    nodes.Block: ("templates have no blocks, for nothing extends them", "leave the block's tags out"),
    nodes.ScopedEvalContextModifier: ("templates make plain text, so that there is nothing to escape", None),
}
_ALLOWED = frozenset(
    {
        *(nodes.Template, nodes.Output, nodes.For, nodes.If, nodes.With, nodes.Assign, nodes.AssignBlock),
        *(nodes.FilterBlock, nodes.Name, nodes.NSRef, nodes.Const, nodes.TemplateData, nodes.Tuple, nodes.List),
        *(nodes.Dict, nodes.Pair, nodes.Keyword, nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Call),
        *(nodes.Getitem, nodes.Getattr, nodes.Slice, nodes.Concat, nodes.Compare, nodes.Operand, nodes.Mul),
        *(nodes.Div, nodes.FloorDiv, nodes.Add, nodes.Sub, nodes.Mod, nodes.Pow, nodes.And, nodes.Or, nodes.Not),
        *(nodes.Neg, nodes.Pos, nodes.Scope),
    }
)


def parse_template(source: str) -> nodes.Template:
    """Return the syntax tree of a template.

    Raises:
        TemplateProblem: If it is malformed, or tries what no template may.
    """
    return _parse(source, source, diagnose_template)


def parse_expression(source: str) -> tuple[nodes.Expr, str]:
    """Return the syntax tree of an expression, with or without braces, and the template that prints its value.

    Raises:
        TemplateProblem: If it is malformed, is more than one expression, or tries what none may.
    """
    text = source.strip()
    if not text:
        raise TemplateProblem("the expression is empty", 1)
    # Not the stripped text, so that line numbers are those of the source.
    template = source if text.startswith("{{") and text.endswith("}}") else "{{ " + source + " }}"
    tree = _parse(template, source, diagnose_expression)
    holes = [node for output in tree.body if isinstance(output, nodes.Output) for node in output.nodes]
    parts = [node for node in holes if not _is_space(node)]
    if len(tree.body) != 1 or len(parts) != 1 or isinstance(parts[0], nodes.TemplateData):
        raise TemplateProblem("this is not one expression", 1, None, "write it without text around it")
    if isinstance(parts[0], nodes.Tuple) and text.endswith(","):
        raise TemplateProblem("the comma makes a list of it", 1, None, "leave it out", offset=source.rindex(","))
    return parts[0], template.strip()


def _parse(template: str, written: str, diagnose: Callable[[str], Intent | None]) -> nodes.Template:
    """Return the syntax tree; what cannot be read is looked for in ``written``, which is what the person wrote."""
    try:
        tree = environment().parse(template)
    except jinja2.TemplateSyntaxError as exc:
        found = diagnose(written)
        if found is not None:
            line = written.count("\n", 0, found.offset) + 1
            raise TemplateProblem(found.message, line, None, found.suggestion, offset=found.offset) from exc
        line = max(1, min(exc.lineno, written.count("\n") + 1))
        raise TemplateProblem("this is no template that can be read", line, None, _READABLE) from exc
    except RecursionError as exc:
        raise _too_deep(1) from exc
    except ValueError as exc:  # a number of more digits than Python reads
        digits = _MANY_DIGITS.search(template)
        line = template.count("\n", 0, digits.start()) + 1 if digits else 1
        raise TemplateProblem("the number has too many digits", line) from exc
    _Check().run(tree)
    return tree


def _is_space(node: nodes.Expr) -> bool:
    return isinstance(node, nodes.TemplateData) and not node.data.strip()


def _too_deep(line: int) -> TemplateProblem:
    return TemplateProblem("nested too deeply", line, suggestion="split it with {% set %}")


class _Check:
    """One walk over a tree, without recursion, that collects what is to be refused."""

    def __init__(self) -> None:
        self.problems: list[TemplateProblem] = []

    def run(self, tree: nodes.Template) -> None:
        stack: list[tuple[nodes.Node, int, int]] = [(tree, 0, 0)]
        statements = 0
        while stack:
            node, depth, loops = stack.pop()
            kind = type(node)
            statements += isinstance(node, nodes.Stmt) and kind is not nodes.Output
            if statements > MAX_STATEMENTS:
                raise TemplateProblem(f"more than {MAX_STATEMENTS} tags", 1, None, "split it into several steps")
            if depth > MAX_DEPTH or loops > MAX_LOOPS:
                raise _too_deep(node.lineno)
            rule = _RULES.get(kind)
            if rule is not None:
                getattr(self, rule)(node)
            elif kind not in _ALLOWED:
                message, suggestion = _REFUSED.get(kind, ("this is not possible in a template", None))
                self.add(message, node, None, suggestion)
                continue
            loops += kind is nodes.For
            for field in node.fields:
                child = getattr(node, field)
                if isinstance(child, nodes.Node):
                    stack.append((child, depth + 1, loops))
                elif child.__class__ is list:
                    stack.extend((item, depth + 1, loops) for item in child if isinstance(item, nodes.Node))
        if self.problems:
            self.fail()

    def fail(self) -> NoReturn:
        self.problems.reverse()  # found from the end of the text to its beginning
        first, *others = sorted(self.problems, key=lambda problem: problem.line)
        first.others = tuple(others)
        raise first

    def add(self, message: str, node: nodes.Node, token: str | None, suggestion: str | None = None) -> None:
        self.problems.append(TemplateProblem(message, node.lineno or 1, token, suggestion))

    def attribute(self, name: str, node: nodes.Node) -> None:
        if name.startswith("_"):
            message = f"{name!r} is out of reach: names that begin with '_' are Python's own"
            self.add(message, node, name)

    def getattr(self, node: nodes.Getattr) -> None:
        self.attribute(node.attr, node)

    def getitem(self, node: nodes.Getitem) -> None:
        if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str) and node.arg.value.startswith("__"):
            self.attribute(node.arg.value, node)

    def name(self, node: nodes.Name) -> None:
        if node.ctx != "load" and node.name in RESERVED:
            self.add(f"{node.name!r} has a meaning of its own and cannot be set", node, node.name, "take another name")

    def loop(self, node: nodes.For) -> None:
        if node.recursive:
            self.add("a loop cannot be recursive here", node, "recursive")

    def constant(self, node: nodes.Const) -> None:
        value = node.value
        enormous = isinstance(value, int) and value.bit_length() > MAX_BITS
        if enormous or (isinstance(value, float) and not math.isfinite(value)):
            self.add("the number is too large", node, None)
        elif isinstance(value, str) and not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            self.add("half of a surrogate pair is no character", node, None)

    def filter(self, node: nodes.Filter) -> None:
        function = environment().filters.get(node.name)
        if node.name in REFUSED_FILTERS:
            self.add(f"the filter {node.name!r} is not for prompts", node, node.name, REFUSED_FILTERS[node.name])
            return
        if function is None:
            self.unknown("filter", node.name, node)
            return
        if node.dyn_args is None and node.dyn_kwargs is None:
            complaint = complaint_about_arguments(function, len(node.args), [str(pair.key) for pair in node.kwargs])
            if complaint is not None:
                self.add(f"the filter {node.name!r} {complaint[0]}", node, node.name, complaint[1])
        self.callback(node)

    def callback(self, node: nodes.Filter) -> None:
        """Check the filter, test or attribute that a filter is told to apply."""
        kind, position = _CALLBACK_POSITION.get(node.name, ("", 0))
        if kind and len(node.args) > position:
            name = node.args[position]
            if isinstance(name, nodes.Const) and isinstance(name.value, str):
                known = environment().filters if kind == "filter" else environment().tests
                if name.value not in known:
                    self.unknown(kind, name.value, node)
        if node.name in _ATTRIBUTE_FILTERS:
            for argument in (*node.args, *(pair.value for pair in node.kwargs)):
                if isinstance(argument, nodes.Const) and isinstance(argument.value, str):
                    for part in argument.value.split("."):
                        if part.startswith("__"):
                            self.attribute(part, node)

    def test(self, node: nodes.Test) -> None:
        if node.name not in environment().tests:
            self.unknown("test", node.name, node)

    def unknown(self, kind: str, name: str, node: nodes.Node) -> None:
        known = environment().filters if kind == "filter" else environment().tests
        advice = (OTHER_FILTERS if kind == "filter" else OTHER_TESTS).get(name.lower())
        if advice is None:
            near = nearest(name, [word for word in known if word.isidentifier()])
            advice = f"did you mean {near!r}?" if near else None
        self.add(f"there is no {kind} {name!r}", node, name, advice)

    def call(self, node: nodes.Call) -> None:
        callee = node.node
        if isinstance(callee, nodes.Name):
            if callee.name not in {*GLOBALS, "loop"}:
                self.add(f"there is no function {callee.name!r}", node, callee.name, _meant_function(callee.name))
        elif not isinstance(callee, nodes.Getattr):
            self.add("only functions and methods can be called", node, None)
        elif callee.attr not in METHODS and not callee.attr.startswith("_"):
            advice = OTHER_METHODS.get(callee.attr.lower().replace("_", ""))
            if advice is None:
                near = nearest(callee.attr, METHODS)
                advice = f"did you mean {near!r}?" if near else None
            self.add(f"the method {callee.attr!r} cannot be called in a template", node, callee.attr, advice)


def _meant_function(name: str) -> str:
    advice = OTHER_FUNCTIONS.get(name.lower())
    if advice is not None:
        return advice
    if name in environment().filters:
        return f"write x | {name}"
    if name in METHODS:
        return f"write x.{name}(…)"
    return did_you_mean(name, GLOBALS)


_RULES: dict[type[nodes.Node], str] = {
    nodes.Getattr: "getattr",
    nodes.Getitem: "getitem",
    nodes.Name: "name",
    nodes.For: "loop",
    nodes.Const: "constant",
    nodes.Filter: "filter",
    nodes.Test: "test",
    nodes.Call: "call",
}
