"""Ollama's chat templates: what one makes of a conversation, and whether it leaves the last turn of the assistant open.

A model goes on with a last message of the role ``assistant`` only where the prompt ends in that message's text. Where
the template closes the turn and begins a new one, the model begins a new answer. Every template in Ollama's own source
closes it; of the public library's, those do not that test for the last message, and those without ``.Messages``.

The rules are those of ``template/template.go`` in Ollama (August 2026).
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any, Final

from synaptic.models.go_syntax import Action, Branch, FieldPath, GoTemplateError, Node, Pipe, parse
from synaptic.models.go_template import Struct, render

if TYPE_CHECKING:
    from collections.abc import Iterable

NO_TEMPLATE: Final = "{{ .Prompt }}"
"""What Ollama shows for a model that has none; then its engine chooses one, which is not shown."""

_RESPONSE = Action(Pipe(((FieldPath(("Response",)),),)))


class LastTurn(Enum):
    """What a template does with a last message of the assistant."""

    OPEN = "open"
    CLOSED = "closed"
    UNKNOWN = "unknown"


@lru_cache(maxsize=256)
def last_turn(template: str) -> LastTurn:
    """Judge a template in Go's notation; what cannot be judged for sure is ``UNKNOWN``, as Jinja templates are."""
    if template.strip() in {"", NO_TEMPLATE}:
        return LastTurn.UNKNOWN
    try:
        nodes = parse(template)
        if not {"messages", "prompt"} & _identifiers(nodes):
            return LastTurn.UNKNOWN
        opens = {
            _rendered(nodes, conversation, think=think).endswith(_SAID)
            for conversation, think in product(_CONVERSATIONS, (None, False, True))
        }
    except GoTemplateError:
        return LastTurn.UNKNOWN
    if len(opens) > 1:
        return LastTurn.UNKNOWN
    return LastTurn.OPEN if opens.pop() else LastTurn.CLOSED


_SAID = "Once upon a time there lived a"
_CONVERSATIONS: Final = tuple(
    [*before, ("assistant", _SAID)]
    for before in (
        [("user", "Tell me a story.")],
        [("system", "You tell stories."), ("user", "Tell me a story.")],
        [("user", "Hello."), ("assistant", "Hello!"), ("user", "Tell me a story.")],
        [("system", "Be kind."), ("user", "Hello."), ("assistant", "Hello!"), ("user", "Tell me a story.")],
    )
)


def _rendered(nodes: tuple[Node, ...], messages: Iterable[tuple[str, str]], *, think: bool | None) -> str:
    system, turns = _collated(messages)
    names = _identifiers(nodes)
    thinking = {"Think": bool(think), "ThinkLevel": "", "IsThinkSet": think is not None}
    if "messages" in names:
        structs = [
            Struct(Role=role, Content=content, Thinking="", Images=[], ToolCalls=[], ToolName="", ToolCallID="")
            for role, content in turns
        ]
        return render(nodes, {"System": system, "Messages": structs, "Tools": [], "Response": "", **thinking})
    return _rendered_in_exchanges(nodes if "response" in names else (*nodes, _RESPONSE), turns, thinking)


def _rendered_in_exchanges(nodes: tuple[Node, ...], turns: Iterable[tuple[str, str]], thinking: dict[str, Any]) -> str:
    """Render the older kind of template, made for one question and one answer, once for each of them.

    The last time, whatever follows the answer is left out.
    """
    written: list[str] = []
    exchange = {"System": "", "Prompt": "", "Response": ""}

    def write(part: tuple[Node, ...]) -> None:
        written.append(render(part, {**exchange, **thinking}))
        exchange.update(System="", Prompt="", Response="")

    for role, content in turns:
        if (role == "system" and (exchange["Prompt"] or exchange["Response"])) or (
            role == "user" and exchange["Response"]
        ):
            write(nodes)
        if (field := {"system": "System", "user": "Prompt", "assistant": "Response"}.get(role)) is not None:
            exchange[field] = content
    write(_up_to_response(nodes)[0])
    return "".join(written)


def _collated(messages: Iterable[tuple[str, str]]) -> tuple[str, list[tuple[str, str]]]:
    """Return what the system says, and the messages, those of one role after another joined."""
    systems: list[str] = []
    turns: list[tuple[str, str]] = []
    for role, content in messages:
        if role == "system":
            systems.append(content)
        if turns and turns[-1][0] == role:
            turns[-1] = (role, f"{turns[-1][1]}\n\n{content}")
        else:
            turns.append((role, content))
    return "\n\n".join(systems), turns


def _up_to_response(nodes: tuple[Node, ...]) -> tuple[tuple[Node, ...], bool]:
    """Return the nodes without those after the first that writes ``.Response``, and whether there is one."""
    kept: list[Node] = []
    for node in nodes:
        if isinstance(node, Branch):
            body, found = _up_to_response(node.body)
            otherwise, found = ((), True) if found else _up_to_response(node.otherwise)
            kept.append(replace(node, body=body, otherwise=otherwise))
        else:
            kept.append(node)
            found = isinstance(node, Action) and any(
                isinstance(operand, FieldPath) and operand.start is None and "Response" in operand.fields
                for command in node.pipe.commands
                for operand in command
            )
        if found:
            return tuple(kept), True
    return tuple(kept), False


def _identifiers(nodes: Iterable[Node]) -> set[str]:
    """Return the names of all fields that a template asks for, in lower case."""
    names: set[str] = set()
    for node in nodes:
        match node:
            case Action():
                names |= _names_in(node.pipe)
            case Branch():
                names |= _names_in(node.pipe) | _identifiers(node.body) | _identifiers(node.otherwise)
    return names


def _names_in(pipe: Pipe) -> set[str]:
    """Return the names of the fields that a pipe asks for, but not of those of what a pipe within it gives."""
    names: set[str] = set()
    for operand in (operand for command in pipe.commands for operand in command):
        if isinstance(operand, Pipe):
            names |= _names_in(operand)
        elif isinstance(operand, FieldPath) and not isinstance(operand.start, Pipe):
            names |= {name.lower() for name in operand.fields}
    return names
