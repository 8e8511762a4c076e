"""Asks a person on the terminal a question, and reads the answer: a line of text, or one for each field of a shape."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from synaptic.agents import BooleanType, EnumType, ListType, StringType
from synaptic.errors import OutputInvalid
from synaptic.runtime import Approval

if TYPE_CHECKING:
    from collections.abc import Callable

    from synaptic.agents import Field, FieldType
    from synaptic.runtime import ApprovalRequest
    from synaptic.ui.screen.keyboard import Keyboard

_TRUE_FALSE = {"y": True, "yes": True, "true": True, "n": False, "no": False, "false": False}


async def ask(request: ApprovalRequest, keyboard: Keyboard, say: Callable[..., None], default: list[str]) -> Approval:
    """Return the person's answer. One that does not fit is asked for again; a terminal that is closed means: refused.

    Args:
        request: The question.
        keyboard: Where the person types.
        say: Writes a line to the terminal; with ``end=""``, without ending it.
        default: The proposed answer for reading, where there is one.

    """
    say(f"{request.path}: {request.question}")
    if request.value is not None:
        say("\n".join(["    Enter alone answers:", *(f"      {line}" for line in default)]))
    problem = request.problem
    while True:
        if problem:
            say(problem)
        try:
            answer = await _lines(request, keyboard, say)
            if answer is None:
                return Approval("accepted")
            return Approval("edited", answer if request.shape is None else request.shape.validate(answer))
        except OutputInvalid as exc:
            problem = exc.message.replace("the reply", "the answer")
        except EOFError:
            say()
            return Approval("refused", reason="the input ended")


async def _lines(request: ApprovalRequest, keyboard: Keyboard, say: Callable[..., None]) -> Any:
    """Return what is typed; ``None`` where that is Enter alone, and an answer is proposed."""
    if request.shape is None:
        answer = (await _line("> ", keyboard, say)).strip()
        if not answer and request.value is None:
            raise OutputInvalid("the answer is empty")
        return answer or None
    found: dict[str, Any] = {}
    for index, field in enumerate(request.shape.root.fields):
        typed = (await _line(f"{_prompt(field)} > ", keyboard, say)).strip()
        if not typed and index == 0 and request.value is not None:
            return None
        if typed:
            found[field.name] = read(typed, field.type)
    return found


async def _line(prompt: str, keyboard: Keyboard, say: Callable[..., None]) -> str:
    say(prompt, end="")
    line = await keyboard.line()
    if line is None:
        raise EOFError
    return line


def _prompt(field: Field) -> str:
    return f"{field.key} ({field.type})"


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
