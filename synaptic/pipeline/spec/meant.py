"""What a person meant by a value of the wrong type, and how it is written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from synaptic.text import amount_meant, one_line

if TYPE_CHECKING:
    from synaptic.text import KeyPath

_SHOWN: Final = 60
_YES: Final = frozenset({"true", "yes", "on", "y", "1"})
_NO: Final = frozenset({"false", "no", "off", "n", "0"})
_NUMBER: Final = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")
_DECIMAL_COMMA: Final = re.compile(r"([-+]?[0-9]+),([0-9]{1,2})")
_THOUSANDS: Final = re.compile(r"[0-9]{1,3}(?:[,_ ][0-9]{3})+")
_INPUT_TYPES: Final = frozenset({"string", "integer", "number", "boolean", "list", "file", "files"})
_LISTS: Final = {
    "steps": "write 'NAME:' in the place of each '- ', and what the step does below it",
    "inputs": "write 'NAME: {}' in the place of each '- '",
    "agents": "write 'NAME:' in the place of each '- ', and the agent's prompt below it",
    "tests": "write 'NAME:' in the place of each '- ', and its inputs, replies and expect below it",
    "replies": "write 'STEP: reply' in the place of each '- '",
    "options": "write 'LABEL: when to choose it' in the place of each '- '",
    "output": "write 'FIELD: string' in the place of each '- '",
    "with": "write 'NAME: value' in the place of each '- '",
    "defaults": "write 'model: …' and the like without '- '",
}
_EMPTY: Final = {
    "steps": "write a step below it, indented: 'NAME: {agent: …, prompt: …}'",
    "step": "write what it does below it, indented: 'agent: …' and 'prompt: …'",
    "input": "write '{name}: {}'",
    "agent": "write its prompt below it, indented: 'prompt: …'",
    "test": "write its inputs, replies and expect below it, indented, or {}",
}
_TEXT: Final = {
    "step": "write '{name}: {agent: …, prompt: …}'",
    "agent": "write '{name}: {prompt: …}'",
    "output": "give it a field, such as '{answer: string}'",
    "repeat": "write '{max: 3, steps: {…}'",
    "retry": "write {attempts: {value}}",
    "budget": "write {calls: {value}}, or tokens or seconds",
    "choose": "write '{prompt: …, options: {…}'",
    "expect": "write {result: {value}}, or contains, that or fails",
}
_NAMES: Final = frozenset({"agent", "use", "tool", "model", "backend", "judge"})
_NOT_TEXT: Final = {
    "agent": "declare it under 'agents', and name it here",
    "prompt": "write '|' behind 'prompt:', and its lines below, indented",
    "when": "write one expression: 'a and b', 'a or b'",
    "until": "write one expression: 'a and b', 'a or b'",
    "use": "name one pipeline; several are several steps",
    "tool": "name one tool; its arguments stand under 'with'",
    "model": "name one; others stand under 'fallback_models'",
}


def meant(wanted: str, value: Any, name: str, path: KeyPath) -> str | None:
    """Return what to write in the place of a value; ``None`` where that cannot be said.

    Args:
        wanted: What kind of value belongs here, as pydantic calls the error.
        value: What stands here.
        name: The last key.
        path: Every key that leads here.
    """
    if wanted == "bool_type":
        return _truth(value)
    if wanted in {"int_type", "float_type"}:
        return _number(value, name)
    if wanted == "list_type":
        return f"write [{one_line(str(value), _SHOWN)}]" if isinstance(value, (str, int, float)) else None
    if wanted == "string_type":
        if name in _NAMES and isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
            return f"write {one_line(value[0], _SHOWN)} without brackets"
        return _NOT_TEXT.get(name) if isinstance(value, (list, dict)) else None
    if wanted in {"model_type", "model_attributes_type", "dict_type"}:
        return _mapping(value, name, path)
    return None


def _truth(value: Any) -> str | None:
    word = str(value).lower()
    if word in _YES:
        return "write true"
    return "write false" if word in _NO else None


def _number(value: Any, name: str) -> str | None:
    if not isinstance(value, str):
        return None
    if "{{" in value:
        return "write the number itself: templates stand in prompts"
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return f"write {text} without quotes"
    if match := _DECIMAL_COMMA.fullmatch(text):
        return f"write {match[1]}.{match[2]}"
    if _THOUSANDS.fullmatch(text):
        return f"write {re.sub('[,_ ]', '', text)}"
    amount = amount_meant(text, name)
    return None if amount is None else f"write {amount:.10g}"


def _mapping(value: Any, name: str, path: KeyPath) -> str | None:
    place = _place(name, path)
    if name == "timeout" and isinstance(value, str):
        amount = amount_meant(value, name)
        return None if amount is None else f"write {amount:.10g}"
    if isinstance(value, list):
        return _LISTS.get(place)
    if value is None:
        advice = _EMPTY.get(place, "write its lines below it, indented, or remove it")
    elif place == "input":
        known = isinstance(value, str) and value in _INPUT_TYPES
        advice = "write '{name}: {type: {value}}'" if known else "write '{name}: {default: {value}}'"
    elif place in _TEXT:
        advice = _TEXT[place]
    else:
        return None
    return advice.replace("{name}", name).replace("{value}", one_line(str(value), _SHOWN))


def _place(name: str, path: KeyPath) -> str:
    """Return which part of a pipeline the mapping is."""
    if path[:1] == ("tests",) and name == "inputs":
        return "with"  # values, as there
    if len(path) > 1 and path[-2] in {"inputs", "agents", "steps", "tests"}:
        return str(path[-2])[:-1]
    return name
