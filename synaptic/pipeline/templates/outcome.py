"""What a template comes to in a scenario where something is not there, and whether it fails.

A walk over Jinja2's syntax tree that knows some values. What is done with a value that is not there is tried with the
sandbox itself, so that the answer is the run's. Branches that the scenario does not take are not looked at.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import jinja2
from jinja2 import nodes

from synaptic.pipeline.templates.sandbox import evaluate
from synaptic.pipeline.templates.scenarios import ANYTHING, Fails, Fields, Known, OneOf, Scenario, Truth, Value
from synaptic.pipeline.templates.scopes import key_of, targets_of
from synaptic.pipeline.templates.values import SKIPPED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_ORDERED: Final = frozenset({"lt", "lteq", "gt", "gteq"})


def outcome(tree: nodes.Node, scenario: Scenario) -> Value:
    """Return what is known of an expression's value; of a template's, nothing.

    Raises:
        Fails: If the run would fail in this scenario.
    """
    walk = _Walk()
    if isinstance(tree, nodes.Expr):
        return walk.used(tree, scenario)
    walk.statements(tree.body if isinstance(tree, nodes.Template) else [tree], scenario)
    return ANYTHING


def assumed(tree: nodes.Node, *, holds: bool) -> dict[str, bool]:
    """Return the conditions whose outcomes follow from that of a whole one."""
    key, positive = _canonical(tree)
    facts = {key: holds is positive}
    if isinstance(tree, nodes.Not):
        facts |= assumed(tree.node, holds=not holds)
    elif isinstance(tree, (nodes.And, nodes.Or)) and holds is isinstance(tree, nodes.And):
        facts |= assumed(tree.left, holds=holds) | assumed(tree.right, holds=holds)
    elif isinstance(tree, nodes.Compare) and [part.op for part in tree.ops] == ["eq"] and holds:
        constant = tree.ops[0].expr
        if isinstance(constant, nodes.Const) and isinstance(constant.value, bool):
            facts |= assumed(tree.expr, holds=constant.value)
    return facts


class _Walk:
    """Follows the run; ``scenario`` is what is known at a place, names that a template binds included."""

    # Statements. Each returns what is known after it.

    def statements(self, body: Iterable[nodes.Node], scenario: Scenario) -> Scenario:
        for node in body:
            scenario = self.statement(node, scenario)
        return scenario

    def statement(self, node: nodes.Node, scenario: Scenario) -> Scenario:
        match node:
            case nodes.Output():
                self.parts(node, scenario)
            case nodes.For():
                self.loop(node, scenario)
            case nodes.If():
                return self.branches(node, scenario)
            case nodes.With():
                inner = scenario
                for target, value in zip(node.targets, node.values, strict=True):
                    inner = _bound(inner, target, self.value(value, scenario))
                self.statements(node.body, inner)
            case nodes.Assign():
                return _bound(scenario, node.target, self.value(node.node, scenario))
            case nodes.AssignBlock():
                self.statements(node.body, scenario)
                return _bound(scenario, node.target, ANYTHING)
            case nodes.FilterBlock():
                self.statements(node.body, scenario)
        return scenario

    def loop(self, node: nodes.For, scenario: Scenario) -> None:
        items = self.used(node.iter, scenario)
        if isinstance(items, Known) and items.origin is not None:
            if items.value is None or isinstance(items.value, (str, int, float)):
                raise _fails(items, node.iter)
            if not len(items.value):
                self.statements(node.else_, scenario)
                return
        inner = _bound(_bound(scenario, node.target, ANYTHING), nodes.Name("loop", "store"), ANYTHING)
        wanted = True if node.test is None else self.truth(node.test, inner)
        if node.test is not None:
            inner = inner.with_facts(assumed(node.test, holds=True))
        if wanted is not False:
            self.statements(node.body, inner)
        self.statements(node.else_, scenario)

    def branches(self, node: nodes.If, scenario: Scenario) -> Scenario:
        after: list[Scenario] = []
        here = scenario
        for branch in (node, *node.elif_):
            holds = self.truth(branch.test, here)
            if holds is not False:
                after.append(self.statements(branch.body, here.with_facts(assumed(branch.test, holds=True))))
            if holds:
                break
            here = here.with_facts(assumed(branch.test, holds=False))
        else:
            after.append(self.statements(node.else_, here))
        names: dict[str, Value] = {}
        for name in dict.fromkeys(name for each in after for name in each.names):
            values = [each.names.get(name, ANYTHING) for each in after]
            names[name] = values[0] if all(value is values[0] for value in values) else ANYTHING
        return replace(scenario, names=names)

    # Expressions.

    def used(self, node: nodes.Node, scenario: Scenario) -> Value:
        """Return the value of an expression that is used as it is: what is missing fails."""
        value = self.value(node, scenario)
        if isinstance(value, Known) and isinstance(value.value, jinja2.Undefined):
            raise _fails(value, node)
        return value

    def truth(self, node: nodes.Node, scenario: Scenario) -> bool | None:
        """Return whether the expression is true, if that is known."""
        return _truth(self.used(node, scenario))

    def value(self, node: nodes.Node, scenario: Scenario) -> Value:
        if isinstance(node, (nodes.Name, nodes.Getattr, nodes.Getitem)):
            value = self.access(node, scenario)
            return value if value is not ANYTHING else _fact(node, scenario)
        known = _fact(node, scenario)
        return known if known is not ANYTHING else self.computed(node, scenario)

    def computed(self, node: nodes.Node, scenario: Scenario) -> Value:
        kinds = type(node).__mro__
        how = next((_COMPUTED[kind] for kind in kinds if kind in _COMPUTED), _Walk.parts)
        return how(self, node, scenario)

    def constant(self, node: nodes.Const, _scenario: Scenario) -> Value:
        return Known(node.value)

    def negation(self, node: nodes.Not, scenario: Scenario) -> Value:
        holds = self.truth(node.node, scenario)
        return ANYTHING if holds is None else Truth(not holds)

    def signed(self, node: nodes.UnaryExpr, scenario: Scenario) -> Value:
        return self.tried(node, [self.used(node.node, scenario)], type(node))

    def listed(self, node: nodes.List, scenario: Scenario) -> Value:
        values = [self.value(item, scenario) for item in node.items]
        known = [value for value in values if isinstance(value, Known)]
        origin = next((value.origin for value in known if value.origin is not None), None)
        return Known([value.value for value in known], origin) if len(known) == len(values) else ANYTHING

    def parts(self, node: nodes.Node, scenario: Scenario) -> Value:
        """Look at the expressions inside a node of whose value nothing is known."""
        for child in node.iter_child_nodes():
            if isinstance(child, nodes.Expr):
                self.used(child, scenario)
            else:
                self.parts(child, scenario)
        return ANYTHING

    def access(self, node: nodes.Name | nodes.Getattr | nodes.Getitem, scenario: Scenario) -> Value:
        if isinstance(node, nodes.Name):
            return scenario.names.get(node.name, ANYTHING)
        owner = self.used(node.node, scenario)
        name = key_of(node)
        if name is None and isinstance(node, nodes.Getitem):
            self.index(node.arg, scenario)
        if isinstance(owner, Fields) and name is not None:
            return owner.known.get(name, ANYTHING)
        if not _is_absent(owner):
            return ANYTHING
        if isinstance(owner, Known) and owner.value is SKIPPED:
            return owner
        return self.tried(node, [owner], lambda part: nodes.Getitem(part, nodes.Const(name), "load"))

    def index(self, node: nodes.Expr, scenario: Scenario) -> None:
        """Look at what stands in brackets: a slice takes numbers or nothing."""
        parts = [node.start, node.stop, node.step] if isinstance(node, nodes.Slice) else [node]
        for part in parts:
            value = self.used(part, scenario) if part is not None else ANYTHING
            if (
                part is not None
                and isinstance(node, nodes.Slice)
                and isinstance(value, Known)
                and value.value is SKIPPED
            ):
                raise _fails(value, part)

    def both(self, node: nodes.And | nodes.Or, scenario: Scenario) -> Value:
        """Return the value of ``and`` or ``or``, whose right side counts only if the left one does not decide."""
        decides = isinstance(node, nodes.Or)
        left = self.used(node.left, scenario)
        holds = _truth(left)
        if holds is decides:
            return left
        if holds is not None:
            return self.value(node.right, scenario)
        right = _truth(self.used(node.right, scenario.with_facts(assumed(node.left, holds=not decides))))
        return Truth(decides) if right is decides else ANYTHING

    def choice(self, node: nodes.CondExpr, scenario: Scenario) -> Value:
        holds = self.truth(node.test, scenario)
        values = []
        for branch, when in ((node.expr1, True), (node.expr2, False)):
            if holds is not (not when) and branch is not None:
                values.append(self.value(branch, scenario.with_facts(assumed(node.test, holds=when))))
        return values[0] if len(values) == 1 and holds is not None else ANYTHING

    def comparison(self, node: nodes.Compare, scenario: Scenario) -> Value:
        left_node, left = node.expr, self.used(node.expr, scenario)
        result: Value = Truth(True)
        for part in node.ops:
            right = self.used(part.expr, scenario)
            found = self.compared(part.op, (left_node, left), (part.expr, right))
            if _truth(found) is False:
                return found
            if found is ANYTHING:
                result = ANYTHING
            left_node, left = part.expr, right
        return result

    def compared(self, operator: str, one: tuple[nodes.Expr, Value], other: tuple[nodes.Expr, Value]) -> Value:
        (left_node, left), (right_node, right) = one, other
        if operator in _ORDERED:
            for side, value in one, other:
                if _is_absent(value):
                    raise _fails(value, side)
        if isinstance(left, OneOf) and isinstance(right, Known):
            return _chosen(operator, left, right.value)
        if operator in {"in", "notin"} and _is_absent(right) and isinstance(right, Known):
            if right.value is None:
                raise _fails(right, right_node)
            return Truth(operator == "notin")
        return self.tried(
            left_node, [left, right], lambda first, second: nodes.Compare(first, [nodes.Operand(operator, second)])
        )

    def calculation(self, node: nodes.BinExpr, scenario: Scenario) -> Value:
        sides = [(node.left, self.used(node.left, scenario)), (node.right, self.used(node.right, scenario))]
        for side, value in sides:
            formats = isinstance(node, nodes.Mod) and side is node.right and not _is_number(sides[0][1])
            if _is_absent(value) and not (formats and isinstance(value, Known) and value.value is None):
                raise _fails(value, side)
        return self.tried(node, [value for _, value in sides], type(node))

    def applied(self, node: nodes.Filter | nodes.Test, scenario: Scenario) -> Value:
        if node.node is None:
            return ANYTHING
        values = [self.value(part, scenario) for part in (node.node, *node.args, *(pair.value for pair in node.kwargs))]
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            return ANYTHING
        names = [pair.key for pair in node.kwargs]
        count = len(node.args)

        def build(value: nodes.Expr, *given: nodes.Expr) -> nodes.Expr:
            pairs = [nodes.Keyword(name, part) for name, part in zip(names, given[count:], strict=True)]
            return type(node)(value, node.name, list(given[:count]), pairs, None, None)

        return self.tried(node.node, values, build)

    def call(self, node: nodes.Call, scenario: Scenario) -> Value:
        values = [self.used(part, scenario) for part in (*node.args, *(pair.value for pair in node.kwargs))]
        if isinstance(node.node, nodes.Name):
            if node.node.name != "range":
                return ANYTHING
            for part, value in zip(node.args, values, strict=False):
                if _is_absent(value):
                    raise _fails(value, part)
            return ANYTHING
        if not isinstance(node.node, nodes.Getattr):
            return ANYTHING
        owner = self.used(node.node.node, scenario)
        if isinstance(owner, Known) and owner.origin is not None:
            if owner.value is None:
                raise _fails(owner, node.node.node)
            if owner.value is SKIPPED:
                return owner
        return ANYTHING

    def tried(self, node: nodes.Node, values: Sequence[Value], build: Any) -> Value:
        """Return what the sandbox makes of values that are known; nothing where one of them is not."""
        absent = next((value for value in values if isinstance(value, Known) and value.origin is not None), None)
        if absent is None or not all(isinstance(value, Known) for value in values):
            return ANYTHING
        names = {f"v{index}": value.value for index, value in enumerate(values) if isinstance(value, Known)}
        with suppress(Exception):  # an expression can raise anything that its operators can
            return Known(evaluate(build(*(nodes.Name(name, "load") for name in names)), names), absent.origin)
        raise _fails(absent, node)


_COMPUTED: Final[dict[type[nodes.Node], Any]] = {
    nodes.Const: _Walk.constant,
    nodes.And: _Walk.both,
    nodes.Or: _Walk.both,
    nodes.Not: _Walk.negation,
    nodes.Compare: _Walk.comparison,
    nodes.CondExpr: _Walk.choice,
    nodes.UnaryExpr: _Walk.signed,
    nodes.BinExpr: _Walk.calculation,
    nodes.Filter: _Walk.applied,
    nodes.Test: _Walk.applied,
    nodes.Call: _Walk.call,
    nodes.List: _Walk.listed,
    nodes.Tuple: _Walk.listed,
}
"""How the value of each kind of expression is found; the more special kind goes before the general one."""


def _bound(scenario: Scenario, target: nodes.Node, value: Value) -> Scenario:
    """Return what is known after an assignment. A fact about the name before it is none any more."""
    names = {target.name: value} if isinstance(target, nodes.Name) else dict.fromkeys(targets_of(target), ANYTHING)
    return replace(scenario, names={**scenario.names, **names})


def _chosen(operator: str, one: OneOf, wanted: object) -> Value:
    """Return what is known of a comparison of one of several texts."""
    texts = {item for item in (wanted if isinstance(wanted, list) else [wanted]) if isinstance(item, str)}
    listed = isinstance(wanted, list)
    if operator not in ({"in", "notin"} if listed else {"eq", "ne"}):
        return ANYTHING
    positive = operator in {"in", "eq"}
    if not texts & set(one.values):
        return Truth(not positive)
    return Truth(positive) if set(one.values) <= texts else ANYTHING


def _truth(value: Value) -> bool | None:
    match value:
        case Known():
            return bool(value.value)
        case Truth():
            return value.holds
        case Fields() | OneOf():
            return True
    return None


def _fact(node: nodes.Node, scenario: Scenario) -> Value:
    if not scenario.facts or isinstance(node, (nodes.Const, nodes.TemplateData)):
        return ANYTHING
    key, positive = _canonical(node)
    if key in scenario.facts:
        return Truth(scenario.facts[key] is positive)
    if isinstance(node, nodes.Compare) and len(node.ops) == 1 and node.ops[0].op in {"eq", "ne"}:
        constant, of_left = node.ops[0].expr, _fact(node.expr, scenario)
        plain = isinstance(constant, nodes.Const) and any(constant.value is each for each in (True, False, None))
        # What counts as false is not equal to true, and what counts as true is neither false nor none.
        if plain and of_left == Truth(constant.value is not True):  # type: ignore[attr-defined]  # a constant has one
            return Truth(node.ops[0].op == "ne")
    return ANYTHING


def _is_absent(value: Value) -> bool:
    return isinstance(value, Known) and value.origin is not None and (value.value is SKIPPED or value.value is None)


def _is_number(value: Value) -> bool:
    return isinstance(value, Known) and isinstance(value.value, (int, float))


def _fails(value: Value, node: nodes.Node) -> Fails:
    """Return that the value cannot be used at the node."""
    origin = value.origin if isinstance(value, Known) and value.origin is not None else ""
    inner: nodes.Node | None = node
    while isinstance(inner, (nodes.Filter, nodes.Test, nodes.Neg, nodes.Pos, nodes.Call)):
        inner = inner.node
    shown = _text(inner) if isinstance(inner, (nodes.Name, nodes.Getattr)) else origin
    if shown.partition(".")[0] != origin.partition(".")[0]:
        shown = origin  # a name that the template gives it
    return Fails(origin, node.lineno, shown)


def _canonical(node: nodes.Node) -> tuple[str, bool]:
    """Return a text that equal conditions have in common, and whether it says the same or the opposite."""
    if isinstance(node, nodes.Not):
        key, positive = _canonical(node.node)
        return key, not positive
    if isinstance(node, nodes.Compare) and len(node.ops) == 1:
        left, operator, right = _text(node.expr), node.ops[0].op, _text(node.ops[0].expr)
        match operator:
            case "lt" | "gt":
                return (f"{left}<{right}" if operator == "lt" else f"{right}<{left}"), True
            case "lteq" | "gteq":
                return (f"{right}<{left}" if operator == "lteq" else f"{left}<{right}"), False
            case "eq" | "ne":
                return "==".join(sorted((left, right))), operator == "eq"
            case "in" | "notin":
                return f"{left} in {right}", operator == "in"
    return _text(node), True


def _text(node: Any) -> str:
    """Return a text for a part of a tree that is the same for equal parts; of a chain of names, as it is written."""
    match node:
        case nodes.Name():
            return str(node.name)
        case nodes.Getattr():
            return f"{_text(node.node)}.{node.attr}"
        case nodes.Getitem() if key_of(node) is not None:
            return f"{_text(node.node)}.{key_of(node)}"
        case nodes.Node():
            return f"{type(node).__name__}({', '.join(_text(value) for _, value in node.iter_fields())})"
        case list() | tuple():
            return f"[{', '.join(map(_text, node))}]"
    return repr(node)
