"""Jinja2 as pipelines use it: sandboxed, within bounds of work and text, and compiled only when it is needed.

Jinja2's own sandbox keeps templates away from Python's internals. It does not keep them from running for ever or
from filling the memory; that is done here, by a meter that every loop, filter, operator and call reports to.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from synaptic.pipeline.templates import filters
from synaptic.pipeline.templates.filters import meter_of
from synaptic.pipeline.templates.identifiers import GLOBALS, LIST_METHODS, LOOP_METHODS, MAPPING_METHODS, TEXT_METHODS
from synaptic.pipeline.templates.limits import MAX_BITS, MAX_TEXT, Meter, TooMuch
from synaptic.pipeline.templates.values import SKIPPED, SkippedValueUsed
from synaptic.text import nearest

_MAX_EXPONENT = 64
_NODES_A_UNIT = 4
_CHARACTERS_A_UNIT = 16
_RESULT = "result"
# Names that no template can write.
_COUNTED, _WEIGHED, _JOINED, _FILLED, _KEYED = "loop!", "weigh!", "concat!", "fill!", "key!"
_NO_KEY = "what is looked up is a name or a number, not a list"


class MeteredContext(Context):
    """The variables of one rendering, with its meter."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.meter = Meter()


class Missing(jinja2.StrictUndefined):
    """What is not there. Any use of it raises, and says what was meant."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        name, owner = self._undefined_name, self._undefined_obj
        if self._undefined_hint or not isinstance(owner, (Mapping, str, list, tuple)):
            return super()._undefined_message
        if isinstance(owner, Mapping):
            near = nearest(str(name), [str(key) for key in owner])
            return f"there is no field {name!r}" + (f"; did you mean {near!r}?" if near else "")
        what = "a text" if isinstance(owner, str) else "a list"
        return f"{what} has no {name!r}" if isinstance(name, str) else f"{what} has no item {name!r}"


class Names(Namespace):
    """What ``namespace()`` gives. It has no text: one that holds another twice, thirty times over, fills the memory."""

    def __repr__(self) -> str:
        raise TypeError("a namespace is not text; write one of its names, as in ns.total")


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox with bounds, with fields before methods, and with skipped steps."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})
    intercepted_unops = frozenset({"-"})
    context_class = MeteredContext

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return ``obj.attribute``: a field of a mapping, or one of the harmless methods."""
        if isinstance(obj, Mapping):
            # Jinja2 asks for the attribute first, so that a field called "items" would be dict.items.
            if attribute in obj:
                return obj[attribute]
            allowed = MAPPING_METHODS
        elif obj is SKIPPED:
            return SKIPPED
        elif isinstance(obj, str):
            allowed = TEXT_METHODS
        elif type(obj) in (list, tuple):
            allowed = LIST_METHODS
        elif isinstance(obj, (int, float, type(None))):
            allowed = frozenset()
        else:
            return super().getattr(obj, attribute)
        return getattr(obj, attribute) if attribute in allowed else self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return ``obj[argument]``, never an attribute of a text or list."""
        if isinstance(argument, (tuple, list, Mapping)):
            raise TypeError(_NO_KEY)
        if not isinstance(obj, (Mapping, str, int, float, type(None))) and type(obj) not in (list, tuple):
            return SKIPPED if obj is SKIPPED else super().getitem(obj, argument)
        try:
            return obj[argument]
        except (TypeError, LookupError):
            return self.undefined(obj=obj, name=argument)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Return ``left operator right``, unless it would be enormous."""
        if left is SKIPPED or right is SKIPPED:
            raise SkippedValueUsed
        meter = meter_of(context)
        meter.spend(1)
        if isinstance(left, (int, float)) and isinstance(right, (int, float)):
            _refuse_enormous(operator, left, right)
        elif operator == "+":
            if isinstance(left, str) and isinstance(right, str):
                meter.allow_text(len(left) + len(right))
                meter.spend_on_text(len(left) + len(right))
            elif isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
                meter.spend(len(left) + len(right))
        elif operator == "%" and isinstance(left, str):
            return filters.format_text(meter, left, right)
        elif operator in {"*", "**"} and not isinstance(left, jinja2.Undefined):
            raise SecurityError(f"'{operator}' works on numbers only")
        return super().call_binop(context, operator, left, right)

    def call_unop(self, context: Context, operator: str, arg: Any) -> Any:
        """Return ``-arg``, unless it is enormous."""
        meter_of(context).spend(1)
        filters.refuse_enormous(arg)
        return super().call_unop(context, operator, arg)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805, PYI063  (as in Jinja2: no clash with a keyword argument)
        """Return what a call of one of the harmless functions and methods gives."""
        if __obj is SKIPPED:
            return SKIPPED
        if isinstance(__obj, jinja2.Undefined):
            return __obj()  # raises, and says what is missing
        meter = meter_of(__context)
        meter.spend(1)
        for argument in (*args, *kwargs.values()):
            meter.weigh(argument)
        if not _is_harmless(__self, meter, __obj, args, kwargs):
            raise SecurityError(f"{getattr(__obj, '__name__', type(__obj).__name__)!r} cannot be called in a template")
        result = super().call(__context, __obj, *args, **kwargs)
        if isinstance(result, (str, list)):
            meter.weigh(result)
        elif isinstance(result, range):
            result = list(result)  # it is shown, measured and handed on like any other list
            meter.spend(len(result) // _NODES_A_UNIT)
        elif isinstance(getattr(__obj, "__self__", None), Mapping) and __obj.__name__ != "get":
            result = list(result)
            meter.spend(len(result))
        return filters.settled(meter, result)


def _refuse_enormous(operator: str, left: float, right: float) -> None:
    for number in (left, right):
        if isinstance(number, int) and number.bit_length() > MAX_BITS:
            raise SecurityError(f"'{operator}' works on numbers of ordinary size only")
    if operator == "**" and abs(right) > _MAX_EXPONENT:
        raise SecurityError(f"'**' takes exponents up to {_MAX_EXPONENT}")


def _is_harmless(sandbox: Sandbox, meter: Meter, function: Any, args: Any, kwargs: Any) -> bool:
    """Return whether the function may be called; its work is counted, and what would be enormous refused."""
    if any(function is sandbox.globals[name] for name in GLOBALS):
        return True
    if not isinstance(function, (types.BuiltinMethodType, types.MethodType)):
        return False
    owner, name = function.__self__, function.__name__
    if isinstance(owner, str):
        meter.spend_on_text(len(owner))
        if name == "replace":
            filters.bound_replace(meter, owner, *args, **kwargs)
        elif name in {"strip", "lstrip", "rstrip"}:
            filters.bound_strip(meter, owner, *args)
        elif name == "join":
            items = list(args[0]) if args else []
            meter.allow_text(meter.weigh(items).characters + len(items) * len(owner))
        return name in TEXT_METHODS
    if isinstance(owner, (list, tuple)):
        meter.weigh(owner)
        return name in LIST_METHODS
    if isinstance(owner, Mapping):
        return name in MAPPING_METHODS
    return isinstance(owner, LoopContext) and name in LOOP_METHODS


class _Counted:
    """The items of a loop; each round is counted before it begins."""

    __slots__ = ("cost", "items", "meter")

    def __init__(self, meter: Meter, items: Any, cost: int) -> None:
        self.meter = meter
        self.items = items
        self.cost = cost

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        for item in self.items:
            self.meter.spend(self.cost)
            yield item


@jinja2.pass_context
def _counted(context: Context, items: Any, cost: int) -> _Counted:
    if isinstance(items, jinja2.Undefined):
        iter(items)  # raises, and says what is missing
    if items is None or isinstance(items, (str, int, float)):
        what = {str: "text", bool: "true or false", type(None): "nothing"}.get(type(items), "a number")
        raise TypeError(f"a loop needs a list, and this is {what}")
    return _Counted(meter_of(context), items, cost)


@jinja2.pass_context
def _weighed(context: Context, value: Any) -> Any:
    if value.__class__ is str:
        meter_of(context).spend_on_text(len(value))
    else:
        meter_of(context).weigh(value)
    return value


def _keyed(value: Any) -> Any:
    if isinstance(value, tuple):  # hashing it goes over all of it, as often as it holds the same, and without a bound
        raise TypeError(_NO_KEY)
    return value


@jinja2.pass_context
def _joined(context: Context, values: list[Any]) -> str:
    meter = meter_of(context)
    pieces = [value if value.__class__ is str else filters.shown(meter, value) for value in values]
    length = sum(map(len, pieces))
    meter.allow_text(length)
    meter.spend_on_text(length)
    return "".join(pieces)


class _Hardener(NodeTransformer):
    """Sends what Jinja2 compiles to plain Python past the meter."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        size = sum(1 for _ in node.find_all(nodes.Node))
        text = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        cost = 1 + size // _NODES_A_UNIT + text // _CHARACTERS_A_UNIT
        self.generic_visit(node)
        node.iter = _filter(node.iter, _COUNTED, nodes.Const(cost))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), _JOINED)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        if any(operand.op in {"in", "notin"} for operand in node.ops):  # what is looked for is hashed
            node.expr = _filter(node.expr, _WEIGHED)
        for operand in node.ops:
            if not isinstance(operand.expr, nodes.Const):
                operand.expr = _filter(operand.expr, _WEIGHED)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.key, nodes.Const):
            node.key = _filter(node.key, _KEYED)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _filter(node.node, _WEIGHED)
        return node

    def visit_FilterBlock(self, node: nodes.FilterBlock) -> nodes.Node:
        self.generic_visit(node)
        node.filter = _filter(node.filter, _FILLED)
        return node


def _filter(node: nodes.Node, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


def _refuse_unusable(value: Any) -> None:
    """Raise for what must not leave the template: something missing, also inside a list, or a function."""
    stack = [value]
    while stack:
        current = stack.pop()
        if isinstance(current, jinja2.Undefined):
            str(current)  # raises, and says what is missing
            raise jinja2.UndefinedError("there is no value where the condition is false; write an 'else'")
        if isinstance(current, (list, tuple)):
            stack.extend(current)
        elif isinstance(current, dict):
            stack.extend(current.values())
        elif current is not SKIPPED and callable(current):
            raise TypeError("a function is no value; did you forget the brackets after its name?")


@cache
def environment() -> Sandbox:
    """Return the one environment."""
    result = Sandbox(undefined=Missing, finalize=filters.finalize, keep_trailing_newline=False, cache_size=0)
    result.trim_blocks = result.lstrip_blocks = True
    internal: dict[str, Any] = {
        _COUNTED: _counted,
        _WEIGHED: _weighed,
        _JOINED: _joined,
        _FILLED: filters.finalize,
        _KEYED: _keyed,
    }
    result.filters = {**filters.make_filters(), **internal}
    result.tests = filters.make_tests()
    result.globals = {"range": result.globals["range"], "namespace": Names}
    return result


def evaluate(expression: nodes.Expr, variables: Mapping[str, Any]) -> Any:
    """Return the value of an expression as a run would have it, missing ones included.

    Raises:
        Exception: Whatever an expression can raise.
    """
    return _result(_generated(nodes.Template([nodes.Assign(nodes.Name(_RESULT, "store"), expression)])), variables)


def _generated(tree: nodes.Template) -> jinja2.Template:
    """Return the code of a template, hardened."""
    sandbox = environment()
    _Hardener().visit(tree)
    tree.set_environment(sandbox)
    tree.set_lineno(1)
    return sandbox.from_string(tree)


def _result(template: jinja2.Template, variables: Mapping[str, Any]) -> Any:
    """Run the code of an expression and return what it assigned."""
    context = template.new_context(dict(variables))
    for _ in template.root_render_func(context):
        pass
    return context.vars[_RESULT]


class Program:
    """The code of one template, generated when it is first run: many templates of a file never are."""

    __slots__ = ("_compiled", "_is_expression", "_source")

    def __init__(self, source: str, *, is_expression: bool = False) -> None:
        self._source = source
        self._is_expression = is_expression
        self._compiled: jinja2.Template | None = None

    def compiled(self) -> jinja2.Template:
        """Return Jinja2's template."""
        if self._compiled is None:
            tree = environment().parse(self._source)
            if self._is_expression:
                (output,) = tree.body
                (value,) = output.nodes  # type: ignore[attr-defined]  # syntax.py has seen that it is one Output
                tree.body = [nodes.Assign(nodes.Name(_RESULT, "store"), value, lineno=1)]
            self._compiled = _generated(tree)
        return self._compiled

    def pieces(self, variables: Mapping[str, Any]) -> list[str]:
        """Return the output in pieces; those that are data are of type ``Data``.

        Raises:
            Exception: Whatever an expression can raise.
        """
        template = self.compiled()
        pieces, length = [], 0
        for piece in template.root_render_func(template.new_context(dict(variables))):
            length += len(piece)
            if length > MAX_TEXT:
                raise TooMuch(f"the template would make a text of more than {MAX_TEXT:,} characters")
            pieces.append(piece)
        return pieces

    def value(self, variables: Mapping[str, Any]) -> Any:
        """Return the value of an expression.

        Raises:
            Exception: Whatever an expression can raise; also if it has no value, or one that only templates can use.
        """
        value = _result(self.compiled(), variables)
        _refuse_unusable(value)
        return value
