"""Reading templates with Jinja2's parser, and refusing at once what could only fail, or must not be tried, later.

Code is generated when a template is first rendered. What generating it would refuse is therefore looked for here, on
the syntax tree; so is what the sandbox would refuse at run time, as far as it can be seen.
"""

from __future__ import annotations

import math
import re
from typing import NoReturn

import jinja2
from jinja2 import nodes

from synaptic.pipeline.templates.filters import complaint_about_arguments
from synaptic.pipeline.templates.identifiers import GLOBALS, METHODS, REFUSED_FILTERS, RESERVED, words
from synaptic.pipeline.templates.references import TemplateProblem
from synaptic.pipeline.templates.sandbox import MAX_BITS, environment
from synaptic.text import did_you_mean, nearest

MAX_DEPTH = 40
"""Levels of nesting in a template; Jinja2's parser and Python's compiler both recurse."""
MAX_LOOPS = 10
"""Loops inside loops; Python compiles at most 20."""

MAX_STATEMENTS = 1000
"""Tags in a template; each is checked with all the names that those before it have set."""

_TAGS = ("for", "if", "set", "with", "filter", "raw")
_MANY_DIGITS = re.compile(r"[0-9_]{1000,}")
_UNKNOWN_TAG = re.compile(r"Encountered unknown tag '(\w+)'\.$")
_ATTRIBUTE_FILTERS = words("map selectattr rejectattr sort unique groupby min max sum join")
_CALLBACK_POSITION = {
    "map": ("filter", 0),
    "select": ("test", 0),
    "reject": ("test", 0),
    "selectattr": ("test", 1),
    "rejectattr": ("test", 1),
}
_AS_FILTERS = {"len": "length", "str": "string", "sorted": "sort", "reversed": "reverse", "dict": "items"}
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
    try:
        tree = environment().parse(source)
    except jinja2.TemplateSyntaxError as exc:
        raise _syntax_problem(exc, source) from exc
    except RecursionError as exc:
        raise _too_deep(1) from exc
    except ValueError as exc:  # a number of more digits than Python reads
        digits = _MANY_DIGITS.search(source)
        line = source.count("\n", 0, digits.start()) + 1 if digits else 1
        raise TemplateProblem("the number has too many digits", line) from exc
    _Check().run(tree)
    return tree


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
    try:
        tree = parse_template(template)
    except TemplateProblem as exc:
        if template is source or "{{" not in text:
            raise
        raise TemplateProblem("braces stand around a whole expression", 1, "{{", "leave them out") from exc
    holes = [node for output in tree.body if isinstance(output, nodes.Output) for node in output.nodes]
    parts = [node for node in holes if not _is_space(node)]
    if len(tree.body) != 1 or len(parts) != 1 or isinstance(parts[0], nodes.TemplateData):
        raise TemplateProblem("this is not one expression", 1, None, "write it without text around it")
    return parts[0], template.strip()


def _is_space(node: nodes.Expr) -> bool:
    return isinstance(node, nodes.TemplateData) and not node.data.strip()


def _syntax_problem(exc: jinja2.TemplateSyntaxError, source: str) -> TemplateProblem:
    message = (exc.message or "broken template").replace("'end of print statement'", "end of the expression")
    line = max(1, min(exc.lineno, source.count("\n") + 1))
    unknown = _UNKNOWN_TAG.match(message)
    if unknown is not None:
        return TemplateProblem(f"there is no tag {unknown[1]!r}", line, unknown[1], did_you_mean(unknown[1], _TAGS))
    if message == "Missing end of comment tag":
        return TemplateProblem("the comment that '{#' begins has no end", line, "{#", "write {{ '{#' }} for the signs")
    message = message.replace(". Jinja was looking for the following tags:", "; expected")
    return TemplateProblem(message.rstrip("."), line)


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
                self.add(f"the filter {node.name!r}: {complaint}", node, node.name)
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
        near = nearest(name, [word for word in known if word.isidentifier()])
        self.add(f"there is no {kind} {name!r}", node, name, f"did you mean {near!r}?" if near else None)

    def call(self, node: nodes.Call) -> None:
        callee = node.node
        if isinstance(callee, nodes.Name):
            if callee.name not in {*GLOBALS, "loop"}:
                as_filter = _AS_FILTERS.get(callee.name, callee.name)
                known = as_filter in environment().filters
                advice = f"write x | {as_filter}" if known else did_you_mean(callee.name, GLOBALS)
                self.add(f"there is no function {callee.name!r}", node, callee.name, advice)
        elif not isinstance(callee, nodes.Getattr):
            self.add("only functions and methods can be called", node, None)
        elif callee.attr not in METHODS and not callee.attr.startswith("_"):
            near = nearest(callee.attr, METHODS)
            meant = f"did you mean {near!r}?" if near else None
            suggestion = "join the parts with ~" if callee.attr == "format" else meant
            self.add(f"the method {callee.attr!r} cannot be called in a template", node, callee.attr, suggestion)


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
