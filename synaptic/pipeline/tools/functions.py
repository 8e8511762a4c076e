"""Tools: Python functions of the person's own that a pipeline may call, with typed arguments.

A function becomes a tool by the person's choice alone: ``@tool`` in a module that is named (``--tools``), an entry
point of an installed package, or the library's argument. A pipeline names a tool; it can never name code.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeAlias, TypeVar, overload

from pydantic import BaseModel

from synaptic.errors import Problem, ToolError, ToolRaised, UsageError
from synaptic.pipeline.templates import UNKNOWN, StaticType
from synaptic.pipeline.tools.parameters import Parameter, UnusableType, hints_of, static_type
from synaptic.processes import Raised, in_thread
from synaptic.text import did_you_mean, nearest

Function = TypeVar("Function", bound=Callable[..., Any])
Complaint: TypeAlias = tuple[str | None, str, str | None]
"""The argument that is wrong (``None``: one is missing), what is wrong, and what to write instead."""

MARK: Final = "__synaptic_tool__"
ONCE: Final = "__synaptic_tool_once__"
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_DEEPEST: Final = 100
_UNNAMED: Final = {
    inspect.Parameter.POSITIONAL_ONLY: "is positional-only (before the /)",
    inspect.Parameter.VAR_POSITIONAL: "takes any number of values (*)",
    inspect.Parameter.VAR_KEYWORD: "takes any name (**)",
}


class Later(Enum):
    """Stands for a value that is only known when the pipeline runs."""

    VALUE = "value"
    TEXT = "text"


LATER: Final = Later.VALUE
"""Any value: what ``"{{ steps.a }}"`` alone gives."""
TEXT_LATER: Final = Later.TEXT
"""Some text: what a template with more than one reference gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that pipelines may call.

    Attributes:
        description: The first line of the function's docstring.
        parameters: In the order of the signature.
        returns: What is known of the result before it runs, from the return annotation.
        origin: Where the function stands, as ``file:line``.
        installed: Whether a package offers it, and no person named it for this run.
        idempotent: Whether calling it once more does no harm, where it is not known how the last call ended.
    """

    name: str
    description: str
    parameters: Mapping[str, Parameter]
    returns: StaticType
    origin: str
    function: Callable[..., Any] = field(repr=False)
    installed: bool = False
    idempotent: bool = True

    @classmethod
    def of(cls, function: Callable[..., Any], *, name: str | None = None) -> Tool:
        """Return the tool that ``function`` is; its name comes from ``@tool``, else from the function.

        Raises:
            UsageError: If the signature cannot be called with named, JSON-like arguments; with every mistake in it.
        """
        called = name or tool_name(function) or getattr(function, "__name__", "")
        if isinstance(function, type) or not called or not callable(function):
            raise UsageError(f"a tool is a function, not {function!r}")
        source, line = _place(function)

        def problem(message: str, suggestion: str | None = None) -> Problem:
            return Problem(f"the tool {called!r}: {message}", source, line, suggestion=suggestion)

        try:
            hints = hints_of(function)
        except Exception as exc:  # (an annotation is any expression, and may raise anything)
            advice = "import what it names outside of TYPE_CHECKING"
            raise UsageError.of([problem(f"its annotations cannot be read: {exc}", advice)]) from exc
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError) as exc:
            raise UsageError.of(
                [problem("its arguments are not known", "wrap it into a function of your own")]
            ) from exc
        parameters, mistakes = _parameters(signature, hints)
        if mistakes:
            raise UsageError.of([problem(*mistake) for mistake in mistakes])
        text = inspect.getdoc(function) or ""
        return cls(
            name=called,
            description=text.partition("\n")[0].strip(),
            parameters=parameters,
            returns=static_type(hints["return"], f"the output of the tool {called!r}")
            if "return" in hints
            else UNKNOWN,
            origin=":".join(str(part) for part in (source, line) if part is not None),
            function=function,
            idempotent=not getattr(function, "__dict__", {}).get(ONCE, False),
        )

    def complaints(self, arguments: Mapping[str, object]) -> list[Complaint]:
        """Return what is wrong with these arguments, as far as that is known before the pipeline runs.

        Args:
            arguments: Literal values; ``LATER`` and ``TEXT_LATER`` stand for others, also inside lists and
                mappings.
        """
        found: list[Complaint] = []
        missing = [each.name for each in self.parameters.values() if each.required and each.name not in arguments]
        unknown = [name for name in arguments if name not in self.parameters]
        # One that is missing and one that is not known are one mistake.
        meant = {
            *(nearest(name, self.parameters) for name in unknown),
            *(missing if len(missing) == len(unknown) == 1 else ()),
        }
        for name, value in arguments.items():
            parameter = self.parameters.get(name)
            if parameter is None:
                what = f"the tool {self.name!r} has no argument {name!r}"
                only = missing[0] if len(missing) == len(unknown) == 1 else name
                found.append((name, what, did_you_mean(only, self.parameters)))
            elif value is TEXT_LATER and not parameter.takes_text:
                what = f"argument {name!r} must be {parameter.type}, but this template gives text"
                found.append((name, self._of_me(what), 'write one reference alone, as in "{{ steps.a.count }}"'))
            elif not _holds_later(value):
                try:
                    parameter.convert(value)
                except ValueError as exc:
                    found.append((name, self._of_me(str(exc)), None))
        for parameter in self.parameters.values():
            if parameter.required and parameter.name not in {*arguments, *meant}:
                what = f"the tool {self.name!r} needs the argument {parameter.name!r} ({parameter.type})"
                found.append((None, what, f"write it under 'with', as in {parameter.name}: …"))
        return found

    async def call(self, arguments: Mapping[str, object]) -> object:
        """Return the result as JSON-like data.

        An async function is awaited here. Any other runs in a thread, with the context variables of the caller;
        Python cannot stop a thread, so where this call is cancelled the thread goes on by itself and its result is
        dropped.

        Raises:
            ToolError: If an argument has the wrong type, or the result is not JSON-like data.
            ToolRaised: If the function raises.
        """
        values = self._values(arguments)
        try:
            if inspect.iscoroutinefunction(self.function):
                result = await self.function(**values)
            else:
                result = await in_thread(lambda: self.function(**values))
                if inspect.isawaitable(result):
                    result = await result
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise ToolError(f"the tool {self.name!r} was cancelled by something inside it") from exc
        except Raised as exc:
            raise self._failed(exc.error) from exc.error
        except (Exception, SystemExit) as exc:  # (a foreign function may raise anything; this is its boundary)
            raise self._failed(exc) from exc
        try:
            return plain(result)
        except (TypeError, ValueError, RecursionError) as exc:
            raise ToolError(
                f"the tool {self.name!r} returned {exc}", hint="return text, numbers, lists, mappings"
            ) from exc

    def _values(self, arguments: Mapping[str, object]) -> dict[str, Any]:
        wrong = [(name, what) for name, what, _ in self.complaints(dict.fromkeys(arguments, LATER))]
        if wrong:
            raise ToolError(wrong[0][1])
        try:
            return {name: self.parameters[name].convert(value) for name, value in arguments.items()}
        except ValueError as exc:
            raise ToolError(self._of_me(str(exc))) from exc

    def _of_me(self, message: str) -> str:
        return f"the tool {self.name!r}: {message}"

    def _failed(self, error: BaseException) -> ToolRaised:
        text = str(error).strip()
        return ToolRaised(f"the tool {self.name!r} raised {type(error).__name__}{f': {text}' if text else ''}")


@overload
def tool(function: Function) -> Function: ...
@overload
def tool(*, name: str | None = None, idempotent: bool = True) -> Callable[[Function], Function]: ...
def tool(
    function: Function | None = None, *, name: str | None = None, idempotent: bool = True
) -> Function | Callable[[Function], Function]:
    """Mark a function as a tool; it stays the function that it is.

    ::

        @tool
        def word_count(text: str, least: int = 1) -> int:
            '''Count the words of a text.'''

    Args:
        function: A function, async or not, whose arguments and result are JSON-like: text, numbers, lists, mappings,
            dataclasses, pydantic models.
        name: What pipelines call it; default: the function's name.
        idempotent: False of a function that must not work twice, such as one that sends a message. A run that was cut
            off while it worked, and goes on, asks a person before it calls the function again.

    Raises:
        UsageError: If it is not a function, or the name is not usable.
    """
    if function is None:
        return lambda marked: _mark(marked, name, idempotent=idempotent)
    return _mark(function, name, idempotent=idempotent)


def tool_name(value: object) -> str | None:
    """Return the name that ``@tool`` gave to a function; ``None`` for anything else."""
    name = getattr(value, "__dict__", {}).get(MARK)
    return name if isinstance(name, str) else None


def plain(value: Any, depth: int = 0) -> Any:
    """Return a result as JSON-like data: models and dataclasses become mappings, tuples lists.

    Raises:
        TypeError: If there is anything else in it; the message names what and where.
        ValueError: If a number is not finite, or it is nested too deeply.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value}, which is no number that JSON knows")
        return float(value)
    if depth > _DEEPEST:
        raise ValueError(f"data nested more than {_DEEPEST} levels deep")
    if isinstance(value, (list, tuple)):
        return [plain(item, depth + 1) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {entry.name: plain(getattr(value, entry.name), depth + 1) for entry in dataclasses.fields(value)}
    if not isinstance(value, Mapping):
        value = _dumped(value)
    wrong = next((key for key in value if not isinstance(key, str)), None)
    if wrong is not None:
        raise TypeError(f"a mapping with the key {wrong!r}, which is no text")
    return {str(key): plain(item, depth + 1) for key, item in value.items()}


def _dumped(value: object) -> Mapping[Any, Any]:
    if isinstance(value, BaseModel):
        dumped = value.model_dump(mode="json")
        if isinstance(dumped, dict):
            return dumped
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    raise TypeError(f"a value of the type {name}, which is no JSON-like data")


def _mark(function: Function, name: str | None, *, idempotent: bool) -> Function:
    called = name if name is not None else getattr(function, "__name__", None)
    if isinstance(function, type) or called is None or not callable(function):
        raise UsageError(f"@tool is for functions, not for {function!r}")
    if not _NAME.fullmatch(called):
        advice = "use letters, digits, _ and -, beginning with a letter"
        raise UsageError(f"{called!r} is not a usable name for a tool", hint=advice)
    setattr(function, MARK, called)
    setattr(function, ONCE, not idempotent)
    return function


def _parameters(
    signature: inspect.Signature, hints: Mapping[str, Any]
) -> tuple[dict[str, Parameter], list[tuple[str, str | None]]]:
    """Return the parameters, and what is wrong with them: (message, what to write instead)."""
    parameters: dict[str, Parameter] = {}
    mistakes: list[tuple[str, str | None]] = []
    for name, found in signature.parameters.items():
        if found.kind in _UNNAMED:
            mistakes.append((f"the argument {name!r} {_UNNAMED[found.kind]}", "give every argument a name of its own"))
            continue
        required = found.default is found.empty
        default = None if required else found.default
        try:
            parameters[name] = Parameter.of(name, hints.get(name, Any), required=required, default=default)
        except UnusableType as exc:
            message = f"the argument {name!r} has the type {exc}, which no value of a pipeline has"
            mistakes.append((message, "use str, int, float, bool, list, dict, a dataclass or a pydantic model"))
    return parameters, mistakes


def _place(function: Callable[..., Any]) -> tuple[str | None, int | None]:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code is not None else (None, None)


def _holds_later(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_later, value.values()))
    return any(map(_holds_later, value)) if isinstance(value, list) else isinstance(value, Later)
