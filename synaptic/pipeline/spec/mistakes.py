"""Pydantic's errors of a pipeline file in plain words: each mistake of form once, at its place in the file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from synaptic.pipeline.spec.keys import advice_for
from synaptic.pipeline.spec.meant import meant
from synaptic.text import did_you_mean, explain, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydantic_core import ErrorDetails

    from synaptic.errors import Problem
    from synaptic.text import KeyPath, YamlDocument

MAX_TRANSLATED = 500
"""A file with more mistakes than this is probably not a pipeline: the rest is only counted."""

_NAME_RULE = "use small letters, digits and _, beginning with a letter, at most 64"
_AGENT_RULE = "use small letters, digits, - and _, beginning with a letter, at most 64"
_SHORT_FORMS = {
    "timeout": "a number of seconds, or a mapping of total, idle and first_token",
    "retry": "a mapping, such as {attempts: 3}",
}
_TYPE_WORDS = {
    "str": "string",
    "text": "string",
    "int": "integer",
    "float": "number",
    "double": "number",
    "bool": "boolean",
    "array": "list",
    "path": "file",
    "document": "file",
    "documents": "files",
    "enum": "string",
    "choice": "string",
    "sequence": "list",
    "decimal": "number",
}
_ADD = {"version": "add 'version: 1'", "result": "add \"result: '{{ steps.NAME }}'\""}
_KEY_MARK = "[key]"
_WRONG_KEY = {"string_pattern_mismatch", "string_too_long"}


def translate(errors: Sequence[ErrorDetails], document: YamlDocument) -> list[Problem]:
    """Return one problem for each mistake, in the order of the file."""
    absent = _explained(errors)
    problems: dict[tuple[Any, ...], Problem] = {}
    for error in errors[:MAX_TRANSLATED]:
        path = error_path(error)
        if error["type"] == "missing" and path in absent:
            continue
        problem = _translate(error, path, document)
        problems.setdefault((problem.line, problem.column, problem.message), problem)
    more = len(errors) - MAX_TRANSLATED
    if more > 0:
        last = document.problem(f"and {more} more mistakes", error_path(errors[MAX_TRANSLATED]))
        problems[(last.line, last.column, last.message)] = last
    return sorted(problems.values(), key=lambda problem: (problem.line or 0, problem.column or 0))


def error_path(error: ErrorDetails) -> KeyPath:
    """Return where in the data the error is."""
    path = tuple(error["loc"])
    if path and path[-1] == _KEY_MARK and error["type"] in _WRONG_KEY:
        return path[:-1]
    # "max" of a loop is a number or text: pydantic names the member of the union that did not fit.
    in_loop = len(path) > 1 and path[-2] == "max" and path[-1] in {"int", "str"}
    return path[:-1] if in_loop else path


def _explained(errors: Iterable[ErrorDetails]) -> set[KeyPath]:
    """Return the keys that are missing only because they are misspelt."""
    found: set[KeyPath] = set()
    for error in errors:
        if error["type"] == "extra_forbidden":
            *owner, name = error["loc"]
            meant = advice_for(str(name), tuple(owner))[1]
            if meant is not None:
                found.add((*owner, meant))
    return found


def _translate(error: ErrorDetails, path: KeyPath, document: YamlDocument) -> Problem:
    kind = error["type"]
    name: str = str(path[-1]) if path else "the pipeline"
    if kind == "extra_forbidden":
        return document.problem(f"unknown key {name!r}", path, suggestion=advice_for(name, path[:-1])[0])
    if kind == "missing":
        owner = repr(".".join(str(part) for part in path[:-1])) if len(path) > 1 else "the pipeline"
        return document.problem(f"{owner} lacks {name!r}", path[:-1], suggestion=_ADD.get(name, f"add '{name}: …'"))
    if kind in _WRONG_KEY:
        is_key = error["loc"][-1] == _KEY_MARK
        rule = _AGENT_RULE if len(path) > 1 and path[-2] == "agents" else _NAME_RULE
        shown = name if is_key else str(error["input"])
        message = f"{_shorten(shown)} is not a usable name"
        return document.problem(message, path, at_key=is_key, suggestion=rule)
    if isinstance(path[-1] if path else None, int):
        name = f"{path[-2]}[{path[-1]}]" if len(path) > 1 else name
    message, suggestion = _explain(error, name, path)
    return document.problem(message, path, at_key=False, suggestion=suggestion)


def _explain(error: ErrorDetails, name: str, path: KeyPath) -> tuple[str, str | None]:
    """Return what is wrong with a value, and what to write instead."""
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if tuple(error["loc"]) != path or (kind == "string_type" and path[-1:] == ("max",) and "repeat" in path):
        return f"{name!r} must be a whole number, or an expression that gives one, not {_describe(value)}", None
    demand = explain(error, mapping="a mapping (key: value lines)")
    if demand is not None and kind == "literal_error":
        return _literal(name, demand, value, str(context["expected"]))
    if demand is not None:
        return _demanded(demand, error, name, path)
    if kind in {"on_error", "approve"}:
        words = re.findall(r"[a-z]+", error["msg"].partition("must be")[2].partition("{")[0])
        match = nearest(value, [word for word in words if word != "or"]) if isinstance(value, str) else None
        return f"{name!r} {error['msg']}, not {_describe(value)}", match and f"did you mean {match!r}?"
    if kind in {"foreach", "result", "texts", "expected", "failing"}:
        quoted = kind == "expected" and isinstance(value, bool)
        return (
            f"{name!r} {error['msg']}, not {_describe(value)}",
            f"put it in quotes: '{_plain(value)}'" if quoted else None,
        )
    if kind == "duration":
        return f"{name!r} is no time: {_describe(value)}", error["msg"]
    message = error["msg"].removeprefix("Value error, ")
    return f"{name!r}: {message[:1].lower()}{message[1:]}", None


def _demanded(demand: str, error: ErrorDetails, name: str, path: KeyPath) -> tuple[str, str | None]:
    kind, value = error["type"], error["input"]
    if "model" in kind:
        demand = f"must be {_SHORT_FORMS[name]}" if name in _SHORT_FORMS else demand
        if len(path) > 1 and path[-2] == "options":
            demand = "must be text that describes the option, or a mapping of description and steps"
    if kind in {"too_short", "too_long"}:
        return f"{name!r} {demand}", None
    if "than" in kind:
        return f"{name!r} {demand}, not {value:.15g}", None
    if kind == "string_type" and _is_number(value):
        suggestion: str | None = f"put it in quotes: '{_plain(value)}'"
    else:
        suggestion = meant(kind, value, str(path[-1]) if path else "", path)
    return f"{name!r} {demand}, not {_describe(value)}", suggestion


def _literal(name: str, demand: str, value: Any, expected: str) -> tuple[str, str | None]:
    """Return what is wrong with a value that is none of the allowed ones."""
    words = re.findall(r"'([^']*)'", expected)
    number = expected.isdigit() and not isinstance(value, bool) and isinstance(value, (int, float))
    message = f"{name!r} {demand}, not {_plain(value) if number else _describe(value)}"
    if not words:
        return message, f"write {expected} without quotes" if str(value) == expected else None
    other = _TYPE_WORDS.get(str(value).lower(), "")
    word = other if other in words else str(value).lower().replace("-", "_")
    suggestion = did_you_mean(word, words) if isinstance(value, str) else None
    # The message has listed the allowed words already.
    return message, suggestion if suggestion and suggestion.startswith("did") else None


def _describe(value: Any) -> str:
    names = {bool: "true/false", int: "a number", float: "a number", list: "a list", dict: "a mapping"}
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return _shorten(value)
    if isinstance(value, (list, dict)):
        return names[type(value)]
    kind = next((name for known, name in names.items() if isinstance(value, known)), type(value).__name__)
    return f"{kind} ({_plain(value)})"


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float))


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")
