"""The references of a template: every dotted chain that begins with a name from outside.

Names that the template binds itself (``for``, ``set``, ``with``) are none, in the scope where they are bound: what is
set in a loop is gone after it, what is set in one branch of an ``if`` may come from outside after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jinja2 import nodes

from synaptic.pipeline.templates.identifiers import GLOBALS
from synaptic.pipeline.templates.references import Reference

if TYPE_CHECKING:
    from collections.abc import Iterable


def references_of(tree: nodes.Node) -> tuple[Reference, ...]:
    """Return each maximal chain, as often as it occurs, in the order of the text."""
    walk = _Walk()
    walk.visit(tree, set())
    return tuple(walk.found)


def sole_reference_of(tree: nodes.Template) -> Reference | None:
    """Return the reference that the whole template consists of, if it is nothing else."""
    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output):
        return None
    parts = [
        node for node in tree.body[0].nodes if not (isinstance(node, nodes.TemplateData) and not node.data.strip())
    ]
    return plain_reference(parts[0]) if len(parts) == 1 else None


def plain_reference(node: nodes.Node) -> Reference | None:
    """Return the reference that an expression is, if it is nothing else."""
    path: list[str] = []
    while isinstance(node, (nodes.Getattr, nodes.Getitem)):
        name = key_of(node)
        if name is None:
            return None
        path.append(name)
        node = node.node
    return Reference(node.name, tuple(reversed(path)), node.lineno) if isinstance(node, nodes.Name) else None


def key_of(node: nodes.Getattr | nodes.Getitem) -> str | None:
    """Return the name that is looked up, where it is written out."""
    if isinstance(node, nodes.Getattr):
        return node.attr
    if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
        return node.arg.value
    return None


def targets_of(node: nodes.Node) -> set[str]:
    """Return the names that an assignment binds."""
    names = {node.name} if isinstance(node, nodes.Name) else set()
    return names | {name.name for name in node.find_all(nodes.Name)}


class _Walk:
    """Visits nodes in the order of evaluation, with the names that are bound there; statements add to them."""

    def __init__(self) -> None:
        self.found: list[Reference] = []

    def visit(self, node: nodes.Node, bound: set[str]) -> None:
        match node:
            case nodes.Getattr() | nodes.Getitem() | nodes.Name():
                self.chain(node, bound)
            case nodes.Call():
                self.call(node, bound)
            case nodes.For():
                self.loop(node, bound)
            case nodes.If():
                self.branches(node, bound)
            case nodes.With():
                self.all(node.values, bound)
                self.all(node.body, bound.union(*map(targets_of, node.targets)))
            case nodes.Assign():
                self.visit(node.node, bound)
                self.assign(node.target, bound)
            case nodes.AssignBlock():
                self.all(node.body, set(bound))
                if node.filter is not None:
                    self.visit(node.filter, bound)
                self.assign(node.target, bound)
            case nodes.FilterBlock():
                self.all(node.body, set(bound))
                self.visit(node.filter, bound)
            case _:
                self.all(node.iter_child_nodes(), bound)

    def all(self, parts: Iterable[nodes.Node], bound: set[str]) -> None:
        for part in parts:
            self.visit(part, bound)

    def chain(self, node: nodes.Expr, bound: set[str]) -> None:
        """Add the chain's longest beginning that is written out; what stands in brackets has references of its own."""
        path: list[str] = []
        inner: list[nodes.Node] = []
        current = node
        while isinstance(current, (nodes.Getattr, nodes.Getitem)):
            name = key_of(current)
            if name is None:
                path.clear()
                inner.append(current.arg)  # type: ignore[union-attr]  # a Getattr always has its name
            else:
                path.append(name)
            current = current.node
        if not isinstance(current, nodes.Name):
            self.visit(current, bound)
        elif current.ctx == "load" and current.name not in bound:
            self.found.append(Reference(current.name, tuple(reversed(path)), current.lineno))
        self.all(reversed(inner), bound)

    def call(self, node: nodes.Call, bound: set[str]) -> None:
        """Visit a call: ``inputs.query.upper()`` refers to ``inputs.query``, ``range(3)`` to nothing."""
        callee = node.node
        if isinstance(callee, nodes.Getattr):
            self.visit(callee.node, bound)
        elif not (isinstance(callee, nodes.Name) and callee.name in GLOBALS):
            self.visit(callee, bound)
        self.all(node.iter_child_nodes(exclude=("node",)), bound)

    def loop(self, node: nodes.For, bound: set[str]) -> None:
        self.visit(node.iter, bound)
        inner = bound | targets_of(node.target) | {"loop"}
        if node.test is not None:
            self.visit(node.test, inner)
        self.all(node.body, inner)
        self.all(node.else_, set(bound))

    def branches(self, node: nodes.If, bound: set[str]) -> None:
        self.visit(node.test, bound)
        outcomes = []
        for branch in (node, *node.elif_):
            inner = set(bound)
            if branch is not node:
                self.visit(branch.test, inner)
            self.all(branch.body, inner)
            outcomes.append(inner)
        otherwise = set(bound)
        self.all(node.else_, otherwise)
        bound |= otherwise.intersection(*outcomes)

    def assign(self, target: nodes.Expr, bound: set[str]) -> None:
        for part in target.find_all(nodes.NSRef) if not isinstance(target, nodes.NSRef) else (target,):
            if part.name not in bound:
                self.found.append(Reference(part.name, (), part.lineno))
        bound |= targets_of(target)
