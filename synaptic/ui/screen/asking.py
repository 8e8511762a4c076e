"""Asks a person on the terminal a question, and reads the answer: a line of text, or one for each field of a shape."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from synaptic.agents import BooleanType, EnumType, ListType, ObjectType, Shape, StringType
from synaptic.errors import OutputInvalid
from synaptic.runtime import Approval

if TYPE_CHECKING:
    from collections.abc import Callable

    from synaptic.agents import Field, FieldType
    from synaptic.runtime import ApprovalRequest
    from synaptic.ui.screen.keyboard import Keyboard

_TRUE_FALSE = {"y": True, "yes": True, "true": True, "n": False, "no": False, "false": False}


async def ask(request: ApprovalRequest, keyboard: Keyboard, say: Callable[..., None], default: list[str]) -> Approval:
    """Return the person's answer. What does not fit is asked for again; a terminal that is closed means: refused.

    Args:
        request: The question.
        keyboard: Where the person types.
        say: Writes a line to the terminal; with ``end=""``, without ending it.
        default: The proposed answer for reading, where there is one.
    """
    say(f"{request.path}: {request.question}")
    if request.value is not None:
        say("\n".join(["    Enter alone answers:", *(f"      {line}" for line in default)]))
    if request.problem:
        say(request.problem)
    form = _Form(keyboard, say)
    try:
        if request.shape is None:
            answer: Any = await form.text(proposed=request.value is not None)
        else:
            answer = await form.members(request.shape.root, may_leave=request.value is not None)
    except EOFError:
        say()
        return Approval("refused", reason="the input ended")
    return Approval("accepted") if answer is None else Approval("edited", answer)


class _Form:
    """What a person fills in, a line for each field; a line that does not fit is asked for again, it alone."""

    def __init__(self, keyboard: Keyboard, say: Callable[..., None]) -> None:
        self._keyboard = keyboard
        self._say = say

    async def text(self, *, proposed: bool) -> str | None:
        """Return what is typed; ``None`` where that is Enter alone, and an answer is proposed."""
        while True:
            answer = await self._line("> ")
            if answer or proposed:
                return answer or None
            self._say("the answer is empty")

    async def members(self, kind: ObjectType, above: str = "", *, may_leave: bool) -> dict[str, Any] | None:
        """Return the values of an object's fields; ``None`` where Enter alone at the first leaves it out."""
        found: dict[str, Any] = {}
        for index, field in enumerate(kind.fields):
            first = may_leave and index == 0
            value = await self._field(field, above, may_leave=first)
            if value is None and first:
                return None
            found[field.name] = value
        return found

    async def _field(self, field: Field, above: str, *, may_leave: bool) -> Any:
        """Return the value of a field that fits; ``None`` where Enter alone leaves it out."""
        may_leave = may_leave or field.optional
        if isinstance(field.type, ObjectType):
            return await self.members(field.type, f"{above}{field.key}.", may_leave=may_leave)
        while True:
            typed = await self._line(f"{above}{field.key} ({field.type}{_how(field.type)}) > ")
            if not typed and may_leave:
                return None
            try:
                return _fitting(typed, field)
            except OutputInvalid as exc:
                self._say(exc.message)

    async def _line(self, prompt: str) -> str:
        self._say(prompt, end="")
        line = await self._keyboard.line()
        if line is None:
            raise EOFError
        return line.strip()


def _fitting(typed: str, field: Field) -> Any:
    """Return the value that a typed line stands for.

    Raises:
        OutputInvalid: If that does not fit the field.
    """
    given = {field.name: read(typed, field.type)} if typed else {}
    try:
        return Shape(ObjectType((field,))).validate(given)[field.name]
    except OutputInvalid as exc:
        raise OutputInvalid(exc.message.replace("the reply", "the answer"), text=typed) from exc


def _how(kind: FieldType) -> str:
    """Return how a value is typed that is neither a word nor a list of words."""
    if isinstance(kind, ListType) and isinstance(kind.item, (ListType, ObjectType)):
        return f", as JSON: {json.dumps(_example(kind))}"
    return ""


def _example(kind: FieldType) -> Any:
    """Return a value of a type, for people to see its form."""
    match kind:
        case ObjectType():
            return {field.name: _example(field.type) for field in kind.fields}
        case ListType():
            return [_example(kind.item)]
        case EnumType():
            return kind.values[0]
        case BooleanType():
            return True
        case StringType():
            return "text"
    return 1


def read(typed: str, kind: FieldType) -> Any:
    """Return the value that a typed text stands for; the text itself where it stands for none of that type."""
    if isinstance(kind, (StringType, EnumType)):
        return typed
    if isinstance(kind, BooleanType):
        return _TRUE_FALSE.get(typed.lower(), typed)
    if isinstance(kind, ListType) and not typed.startswith("["):
        return [read(item.strip(), kind.item) for item in typed.split(",") if item.strip()]
    try:
        return json.loads(typed)
    except (ValueError, RecursionError):
        return typed
