"""The static type of a template's parts, and what in it cannot be meant, found before anything runs.

A walk over Jinja2's syntax tree. What is not known is never complained about, and after a complaint the type is
unknown, so that one mistake is one finding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import nodes

from synaptic.pipeline.templates import static_operators as operators
from synaptic.pipeline.templates.references import TemplateFinding
from synaptic.pipeline.templates.scopes import key_of, targets_of
from synaptic.pipeline.templates.static_access import Complaint, field_of, item_of, undefined, unify, whole
from synaptic.pipeline.templates.static_operators import LOOP, METHOD_RESULTS, NO_CONSTANT, Operand
from synaptic.pipeline.templates.static_types import (
    BOOLEAN,
    NUMBER,
    TEXT,
    UNKNOWN,
    ListOf,
    Number,
    Record,
    StaticType,
    Text,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_PARTS, MAX_LEVELS = 500, 20
"""Fields and items, at all levels, of a type that a name is bound to; more than that, and nothing is known of it."""

_SIGNS = {
    nodes.Add: "+",
    nodes.Sub: "-",
    nodes.Mul: "*",
    nodes.Div: "/",
    nodes.FloorDiv: "//",
    nodes.Mod: "%",
    nodes.Pow: "**",
}


def check(tree: nodes.Node, scope: Mapping[str, StaticType]) -> tuple[StaticType, list[TemplateFinding]]:
    """Return the type of an expression (of a template: text) and what is wrong, in the order of the text.

    ``scope`` has the type of each root.
    """
    walk = _Inference()
    names = dict(scope)
    if isinstance(tree, nodes.Expr):
        kind = walk.value(tree, names)
    else:
        kind = TEXT
        walk.statements(tree.body if isinstance(tree, nodes.Template) else [tree], names)
    return kind, sorted(walk.findings, key=lambda finding: finding.line)


class _Inference:
    """``names`` are the types of the names that are bound at a place; statements change them."""

    def __init__(self) -> None:
        self.findings: dict[TemplateFinding, None] = {}

    def add(self, complaint: Complaint, line: int, token: str) -> StaticType:
        self.findings[TemplateFinding(complaint.message, line, token, complaint.suggestion, complaint.warning)] = None
        return UNKNOWN

    def settle(self, result: StaticType | Complaint, node: nodes.Node, token: str) -> StaticType:
        """Return the type; a complaint becomes a finding and is unknown."""
        return self.add(result, node.lineno, token) if isinstance(result, Complaint) else result

    # Statements.

    def statements(self, body: Iterable[nodes.Node], names: dict[str, StaticType]) -> None:
        for node in body:
            self.statement(node, names)

    def statement(self, node: nodes.Node, names: dict[str, StaticType]) -> None:
        match node:
            case nodes.Output():
                for part in node.nodes:
                    self.value(part, names)
            case nodes.For():
                self.loop(node, names)
            case nodes.If():
                self.branches(node, names)
            case nodes.With():
                inner = dict(names)
                for target, value in zip(node.targets, node.values, strict=True):
                    self.bind(target, self.value(value, names), inner)
                self.statements(node.body, inner)
            case nodes.Assign():
                self.bind(node.target, self.value(node.node, names), names)
            case nodes.AssignBlock():
                self.statements(node.body, dict(names))
                kind = self.value(node.filter, names) if node.filter is not None else TEXT
                self.bind(node.target, kind, names)
            case nodes.FilterBlock():
                self.statements(node.body, dict(names))
                self.value(node.filter, names)

    def bind(self, target: nodes.Node, kind: StaticType, names: dict[str, StaticType]) -> None:
        """Give the names of an assignment's target their types."""
        if isinstance(target, nodes.Name):
            names[target.name] = kind if _is_small(kind) else UNKNOWN
        elif isinstance(target, nodes.NSRef):
            if target.name not in names:
                self.add(undefined(target.name, names), target.lineno, target.name)
        else:
            names.update(dict.fromkeys(targets_of(target), UNKNOWN))
            for part in target.find_all(nodes.NSRef):
                self.bind(part, UNKNOWN, names)

    def loop(self, node: nodes.For, names: dict[str, StaticType]) -> None:
        kind = self.value(node.iter, names)
        shown = _shown(node.iter)
        item = self.settle(item_of(kind, shown), node.iter, shown or "for")
        inner = dict(names)
        self.bind(node.target, item, inner)
        if node.test is not None:
            self.value(node.test, inner)
        inner["loop"] = LOOP
        self.statements(node.body, inner)
        self.statements(node.else_, dict(names))

    def branches(self, node: nodes.If, names: dict[str, StaticType]) -> None:
        self.value(node.test, names)
        outcomes = []
        for branch in (node, *node.elif_):
            inner = dict(names)
            if branch is not node:
                self.value(branch.test, inner)
            self.statements(branch.body, inner)
            outcomes.append(inner)
        otherwise = dict(names)
        self.statements(node.else_, otherwise)
        outcomes.append(otherwise)
        for name in dict.fromkeys(name for outcome in outcomes for name in outcome):
            kinds = [outcome.get(name, UNKNOWN) for outcome in outcomes]
            merged = kinds[0]
            for kind in kinds[1:]:
                merged = unify(merged, kind)
            names[name] = merged

    # Expressions.

    def value(self, node: nodes.Node, names: dict[str, StaticType]) -> StaticType:
        """Return the type of a value that is used as it is."""
        kind = self.infer(node, names)
        shown = _shown(node)
        complaint = whole(kind, shown)
        return self.add(complaint, node.lineno, shown or "") if complaint else kind

    def operand(self, node: nodes.Expr, names: dict[str, StaticType]) -> Operand:
        constant = _constant_of(node)
        shown = _shown(node)
        if isinstance(node, nodes.Filter) and node.name in {"length", "count"} and _shown(node.node):
            shown = f"{_shown(node.node)} | {node.name}"
        return Operand(self.value(node, names), shown, constant)

    def infer(self, node: nodes.Node, names: dict[str, StaticType]) -> StaticType:  # noqa: C901, PLR0911, PLR0912  (one case a kind of node)
        match node:
            case nodes.TemplateData() | nodes.Concat():
                for part in node.iter_child_nodes():
                    self.value(part, names)
                return TEXT
            case nodes.Const():
                return _of_constant(node.value)
            case nodes.Name():
                return self.name(node, names)
            case nodes.Getattr() | nodes.Getitem():
                return self.access(node, names)
            case nodes.Call():
                return self.call(node, names)
            case nodes.Filter():
                return self.filter(node, names)
            case nodes.Test() | nodes.Not():
                self.children(node, names)
                return BOOLEAN
            case nodes.Compare():
                return self.comparison(node, names)
            case nodes.And() | nodes.Or():
                return unify(self.value(node.left, names), self.value(node.right, names))
            case nodes.Neg() | nodes.Pos():
                operand = self.operand(node.node, names)
                return self.settle(operators.negate(operand), node, operand.shown or "-")
            case nodes.BinExpr():
                return self.calculation(node, names)
            case nodes.CondExpr():
                self.value(node.test, names)
                first = self.value(node.expr1, names)
                return unify(first, self.value(node.expr2, names)) if node.expr2 is not None else UNKNOWN
            case nodes.List() | nodes.Tuple():
                kinds = [self.value(item, names) for item in node.items]
                return ListOf(_unified(kinds))
            case nodes.Dict():
                return self.record(node, names)
        self.children(node, names)
        return UNKNOWN

    def children(self, node: nodes.Node, names: dict[str, StaticType]) -> None:
        """Check the expressions inside a node."""
        for child in node.iter_child_nodes():
            if isinstance(child, nodes.Expr):
                self.value(child, names)
            else:
                self.children(child, names)

    def name(self, node: nodes.Name, names: dict[str, StaticType]) -> StaticType:
        kind = names.get(node.name)
        if kind is not None:
            return kind
        return self.add(undefined(node.name, names), node.lineno, node.name)

    def access(self, node: nodes.Getattr | nodes.Getitem, names: dict[str, StaticType]) -> StaticType:
        owner = self.infer(node.node, names)
        shown = _shown(node.node)
        name = key_of(node)
        if name is not None:
            return self.settle(field_of(owner, name, shown), node, _dotted(node) or name)
        complaint = whole(owner, shown)
        if complaint is not None:
            self.add(complaint, node.lineno, shown or "")
        assert isinstance(node, nodes.Getitem)  # a Getattr has its name
        if isinstance(node.arg, nodes.Slice):
            self.children(node.arg, names)
            return owner if isinstance(owner, ListOf) else TEXT if isinstance(owner, Text) else UNKNOWN
        index = self.operand(node.arg, names)
        if isinstance(owner, ListOf):
            return owner.item
        if isinstance(owner, Text):
            return TEXT
        if isinstance(owner, (Record, Number)) and isinstance(index.constant, int):
            return self.settle(field_of(owner, str(index.constant), shown), node, shown or "[")
        return UNKNOWN

    def call(self, node: nodes.Call, names: dict[str, StaticType]) -> StaticType:
        callee = node.node
        for part in (*node.args, *(pair.value for pair in node.kwargs), node.dyn_args, node.dyn_kwargs):
            if part is not None:
                self.value(part, names)
        if isinstance(callee, nodes.Name):
            return ListOf(Number(whole=True)) if callee.name == "range" else UNKNOWN
        if not isinstance(callee, nodes.Getattr):
            return self.value(callee, names)
        owner = self.infer(callee.node, names)
        shown = _shown(callee.node)
        if owner is LOOP:
            return UNKNOWN
        if owner == UNKNOWN:
            return METHOD_RESULTS.get(callee.attr, UNKNOWN)
        complaint = whole(owner, shown)
        if complaint is not None:
            return self.add(complaint, node.lineno, shown or "")
        if operators.has_method(owner, callee.attr):
            return METHOD_RESULTS.get(callee.attr, UNKNOWN)
        result = field_of(owner, callee.attr, shown)
        if not isinstance(result, Complaint):
            result = Complaint(f"{callee.attr!r} is a field, not a method", "leave the brackets out")
        return self.settle(result, node, _dotted(callee) or callee.attr)

    def filter(self, node: nodes.Filter, names: dict[str, StaticType]) -> StaticType:
        value = self.operand(node.node, names) if node.node is not None else Operand(TEXT)
        arguments = [self.operand(argument, names) for argument in node.args]
        by_name = {str(pair.key): self.operand(pair.value, names) for pair in node.kwargs}
        for part in (node.dyn_args, node.dyn_kwargs):
            if part is not None:
                self.value(part, names)
        result = operators.filtered(node.name, value, arguments, by_name.get("attribute"))
        if node.name == "sum" and ("start" in by_name or len(arguments) > 1) and not isinstance(result, Complaint):
            result = UNKNOWN  # of lists, from an empty one, the sum is a list
        return self.settle(result, node, value.shown or node.name)

    def comparison(self, node: nodes.Compare, names: dict[str, StaticType]) -> StaticType:
        left, shown = self.operand(node.expr, names), _shown(_plain(node.expr))
        for part in node.ops:
            right = self.operand(part.expr, names)
            complaint = operators.compare(part.op, left, right)
            if complaint is None and part.op in {"in", "notin"} and isinstance(part.expr, (nodes.List, nodes.Tuple)):
                complaint = _choices_complaint(left, part.expr.items)
            if complaint is not None:
                self.add(complaint, node.lineno, shown or _shown(_plain(part.expr)) or "")
            left, shown = right, _shown(_plain(part.expr))
        return BOOLEAN

    def calculation(self, node: nodes.BinExpr, names: dict[str, StaticType]) -> StaticType:
        left, right = self.operand(node.left, names), self.operand(node.right, names)
        sign = _SIGNS[type(node)]
        return self.settle(operators.calculate(sign, left, right), node, left.shown or right.shown or sign)

    def record(self, node: nodes.Dict, names: dict[str, StaticType]) -> StaticType:
        fields: dict[str, StaticType] = {}
        known = True
        for pair in node.items:
            self.value(pair.key, names)
            kind = self.value(pair.value, names)
            name = pair.key.value if isinstance(pair.key, nodes.Const) else None
            if isinstance(name, str):
                fields[name] = kind
            else:
                known = False
        return Record(fields) if known else UNKNOWN


def _is_small(kind: StaticType) -> bool:
    """Return whether a type has few enough parts to be compared; with names for parts it doubles line by line."""
    stack, parts = [(kind, 0)], 0
    while stack:
        current, level = stack.pop()
        parts += 1
        if isinstance(current, ListOf):
            stack.append((current.item, level + 1))
        elif isinstance(current, Record):
            stack.extend((part, level + 1) for part in current.fields.values())
        if level > MAX_LEVELS or parts + len(stack) > MAX_PARTS:
            return False
    return True


def _constant_of(node: nodes.Node) -> Any:
    """Return the value that is written out, with its sign."""
    if isinstance(node, nodes.Const):
        return node.value
    if isinstance(node, nodes.Neg) and isinstance(node.node, nodes.Const) and type(node.node.value) in {int, float}:
        return -node.node.value
    return NO_CONSTANT


def _of_constant(value: object) -> StaticType:
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, int):
        return Number(whole=True)
    if isinstance(value, float):
        return NUMBER
    return TEXT if isinstance(value, str) else UNKNOWN


def _unified(kinds: Sequence[StaticType]) -> StaticType:
    if not kinds:
        return UNKNOWN
    merged = kinds[0]
    for kind in kinds[1:]:
        merged = unify(merged, kind)
    return merged


def _choices_complaint(left: Operand, items: Iterable[nodes.Expr]) -> Complaint | None:
    for item in items:
        if isinstance(item, nodes.Const):
            complaint = operators.choice_complaint(left, item.value)
            if complaint is not None:
                return complaint
    return None


def _shown(node: nodes.Node | None) -> str | None:
    """Return how a person would write a chain of names, or ``None`` if it is anything else."""
    names: list[str] = []
    while isinstance(node, (nodes.Getattr, nodes.Getitem)):
        name = key_of(node)
        if name is None:
            return None
        names.append(name)
        node = node.node
    return ".".join((node.name, *reversed(names))) if isinstance(node, nodes.Name) else None


def _plain(node: nodes.Node | None) -> nodes.Node | None:
    """Return what filters are applied to."""
    while isinstance(node, nodes.Filter):
        node = node.node
    return node


def _dotted(node: nodes.Expr) -> str | None:
    """Return the source text of a chain that is written with dots only."""
    names: list[str] = []
    while isinstance(node, nodes.Getattr):
        names.append(node.attr)
        node = node.node
    return ".".join((node.name, *reversed(names))) if isinstance(node, nodes.Name) else None
