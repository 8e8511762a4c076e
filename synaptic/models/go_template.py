"""Go's ``text/template`` as chat templates use it: from nodes and data to text, within bounds of work.

A function or a value that chat templates have no use for raises: better no text than one that Go would not write.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from synaptic.models.go_syntax import (
    Action,
    Branch,
    Constant,
    Function,
    GoTemplateError,
    Jump,
    Node,
    Operand,
    Pipe,
    RawText,
)

MOST_STEPS: Final = 20_000
MOST_TEXT: Final = 2_000_000
"""Characters of a rendered text, and of every text on the way there."""

_VERB = re.compile(r"%(.)", re.DOTALL)
_VERBS: Final[Mapping[str, tuple[type, ...]]] = {"s": (str,), "d": (int,), "v": (str, int)}


class Struct(dict[str, Any]):
    """A value with fixed fields: to ask for another one is a mistake, while a map has nothing there."""


class _Break(Exception):
    """Ends a range."""


class _Continue(Exception):
    """Ends a round of a range."""


def render(nodes: Sequence[Node], data: Mapping[str, Any]) -> str:
    """Return the text that a template makes of ``data``.

    Raises:
        GoTemplateError: If it cannot be rendered.
    """
    rendering = _Rendering(data)
    try:
        rendering.write(nodes, data)
    except (_Break, _Continue, RecursionError) as error:
        raise GoTemplateError("it cannot be rendered") from error
    return "".join(rendering.written)


class _Rendering:
    """One rendering: what was written, the variables, and how much work it was."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.written: list[str] = []
        self._scopes: list[dict[str, Any]] = [{"": data}]
        self._steps = 0
        self._characters = 0

    def write(self, nodes: Sequence[Node], dot: Any) -> None:
        """Render nodes with ``dot``."""
        for node in nodes:
            self._work()
            match node:
                case RawText():
                    self._put(node.text)
                case Action():
                    value = self._pipe(node.pipe, dot)
                    if not node.pipe.names:
                        self._put(_printed(value))
                case Branch():
                    self._branch(node, dot)
                case Jump():
                    raise _Break if node.kind == "break" else _Continue

    def _branch(self, node: Branch, dot: Any) -> None:
        self._scopes.append({})
        try:
            if node.kind == "range":
                self._range(node, dot)
                return
            value = self._pipe(node.pipe, dot)
            if _truth(value):
                self.write(node.body, value if node.kind == "with" else dot)
            else:
                self.write(node.otherwise, dot)
        finally:
            self._scopes.pop()

    def _range(self, node: Branch, dot: Any) -> None:
        items = self._commands(node.pipe, dot)
        if items is not None and not isinstance(items, list):
            raise GoTemplateError("only lists can be ranged over here")
        if not items:
            self.write(node.otherwise, dot)
            return
        for index, item in enumerate(items):
            self._work()
            values = (item,) if len(node.pipe.names) == 1 else (index, item)
            self._scopes.append({})
            try:
                for name, value in zip(node.pipe.names, values, strict=False):
                    self._set(name, value, declares=node.pipe.declares)
                self.write(node.body, item)
            except _Continue:
                continue
            except _Break:
                break
            finally:
                self._scopes.pop()

    def _pipe(self, pipe: Pipe, dot: Any) -> Any:
        value = self._commands(pipe, dot)
        for name in pipe.names:
            self._set(name, value, declares=pipe.declares)
        return value

    def _commands(self, pipe: Pipe, dot: Any) -> Any:
        self._work()
        value: Any = None
        for index, command in enumerate(pipe.commands):
            given = (value,) if index else ()
            value = self._command(command, dot, given)
        return value

    def _command(self, command: tuple[Operand, ...], dot: Any, given: tuple[Any, ...]) -> Any:
        self._work()
        first, *rest = command
        if not isinstance(first, Function):
            if rest or given:
                raise GoTemplateError("only functions take arguments")
            return self._value(first, dot)
        if first.name in {"and", "or"}:
            return self._first_that_decides(first.name, rest, given, dot)
        function = _FUNCTIONS.get(first.name)
        if function is None:
            raise GoTemplateError(f"there is no function {first.name!r}")
        arguments = [*(self._value(operand, dot) for operand in rest), *given]
        try:
            value = function(*arguments)
        except (TypeError, ValueError, LookupError, OverflowError) as error:
            raise GoTemplateError(f"{first.name} does not take these arguments") from error
        if isinstance(value, str) and len(value) > MOST_TEXT:
            raise GoTemplateError("a text gets too long")
        return value

    def _first_that_decides(self, name: str, operands: list[Operand], given: tuple[Any, ...], dot: Any) -> Any:
        """Return the first empty argument of ``and``, the first other one of ``or``; the rest is not looked at."""
        value: Any = None
        wanted = name == "or"
        for operand in operands:
            value = self._value(operand, dot)
            if _truth(value) is wanted:
                return value
        for value in given:
            if _truth(value) is wanted:
                return value
        return value

    def _value(self, operand: Operand, dot: Any) -> Any:
        match operand:
            case Constant():
                return operand.value
            case Function():
                return self._command((operand,), dot, ())
            case Pipe():
                return self._commands(operand, dot)
        start = operand.start
        value = dot if start is None else self._get(start) if isinstance(start, str) else self._commands(start, dot)
        for name in operand.fields:
            value = _field(value, name)
        return value

    def _get(self, name: str) -> Any:
        return self._scope_of(name)[name]

    def _set(self, name: str, value: Any, *, declares: bool) -> None:
        (self._scopes[-1] if declares else self._scope_of(name))[name] = value

    def _scope_of(self, name: str) -> dict[str, Any]:
        known = [scope for scope in self._scopes if name in scope]
        if not known:
            raise GoTemplateError(f"there is no variable ${name}")
        return known[-1]

    def _put(self, text: str) -> None:
        self._characters += len(text)
        if self._characters > MOST_TEXT:
            raise GoTemplateError("the text gets too long")
        self.written.append(text)

    def _work(self) -> None:
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise GoTemplateError("it takes too long")


def _field(value: Any, name: str) -> Any:
    if isinstance(value, Struct):
        if name not in value:
            raise GoTemplateError(f"there is no field {name!r}")
        return value[name]
    if not isinstance(value, Mapping):
        raise GoTemplateError(f"{name!r} is asked for of what has no fields")
    return value.get(name)


def _truth(value: Any) -> bool:
    return value is not None and value is not False and value not in (0, "", [], {})


def _printed(value: Any) -> str:
    match value:
        case str():
            return value
        case None:
            return "<no value>"
        case bool():
            return str(value).lower()
        case int():
            return str(value)
    raise GoTemplateError("only texts and whole numbers are written")


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise TypeError
    return any(_comparable(first, other) and first == other for other in others)


def _comparison(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compared(first: Any, second: Any) -> bool:
        if isinstance(first, bool) or not _comparable(first, second):
            raise TypeError
        return compare(first, second)

    return compared


def _comparable(first: Any, second: Any) -> bool:
    """Return true, as only basic values of one kind are compared."""
    if type(first) is not type(second) or not isinstance(first, (str, int, float, bool)):
        raise TypeError
    return True


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Mapping) and not isinstance(value, Struct) and isinstance(key, str):
            value = value.get(key)
        elif isinstance(value, list) and type(key) is int and 0 <= key < len(value):
            value = value[key]
        else:
            raise TypeError
    return value


def _slice(value: Any, *bounds: int) -> Any:
    """Return a part of a list, or of a text that has no characters of several bytes: Go counts bytes."""
    if not isinstance(value, list) and not (isinstance(value, str) and value.isascii()):
        raise TypeError
    ends = [0, len(value)]
    ends[: len(bounds)] = bounds
    if len(ends) != 2 or not all(low <= high for low, high in pairwise([0, *ends, len(value)])):
        raise TypeError
    return value[ends[0] : ends[1]]


def _length(value: Any) -> int:
    return len(value.encode()) if isinstance(value, str) else len(value)


def _formatted(form: str, *values: Any) -> str:
    """Return what ``printf`` gives, for the verbs whose text is sure."""
    left = list(values)

    def one(verb: re.Match[str]) -> str:
        if verb[1] == "%":
            return "%"
        value = left.pop(0)
        if not isinstance(value, _VERBS[verb[1]]):
            raise TypeError
        return _printed(value)

    text = _VERB.sub(one, form)
    if left:
        raise TypeError
    return text


def _joined(*values: Any) -> str:
    """Return what ``print`` gives for texts; between others, spaces would come."""
    if not all(isinstance(value, str) for value in values):
        raise TypeError
    return "".join(values)


def _json(value: Any) -> str:
    """Return a text or a number in Go's JSON, which hides what HTML could read."""
    if not isinstance(value, (str, int)):
        raise TypeError
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _date(days: int) -> Callable[..., str]:
    return lambda *_: f"{datetime.now(UTC) + timedelta(days=days):%Y-%m-%d}"


_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "not": lambda value: not _truth(value),
    "eq": _equal,
    "ne": lambda first, second: not _equal(first, second),
    "lt": _comparison(operator.lt),
    "le": _comparison(operator.le),
    "gt": _comparison(operator.gt),
    "ge": _comparison(operator.ge),
    "len": _length,
    "index": _index,
    "slice": _slice,
    "print": _joined,
    "printf": _formatted,
    "json": _json,
    "currentDate": _date(0),
    "yesterdayDate": _date(-1),
}
"""Those of Go, and those that Ollama adds (``template/template.go``)."""
