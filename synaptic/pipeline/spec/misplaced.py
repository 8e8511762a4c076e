"""Keys of a pipeline file that stand at the wrong level: a prompt among the steps, ``result`` inside ``steps``.

In YAML a level is a few spaces. A key that is indented too little or too far is read at another place, where it is
unknown or of the wrong type, and is missing at its own: two errors for one mistake. Here it is found first, reported
once, and read at the place where it belongs.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from synaptic.pipeline.spec.keys import advice_for, known_keys
from synaptic.pipeline.spec.spec import KIND_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synaptic.errors import Problem
    from synaptic.text import KeyPath, YamlDocument

_ANY_STEP: KeyPath = ("steps", "x")
_MAPPINGS = frozenset({"with", "output", "retry", "timeout", "on_error", "choose", "repeat"})
"""Keys of a step whose value may be a mapping."""
_ALSO_ON_TOP = frozenset({"description", "concurrency"})


class _Move(NamedTuple):
    """A key that is read at another place; without a message it goes with the one before, in one mistake."""

    old: KeyPath
    new: KeyPath
    message: str
    suggestion: str


def put_right(document: YamlDocument) -> tuple[dict[str, Any], list[Problem]]:
    """Return the data with every misplaced key at its own place, and a problem for each of them."""
    data: dict[str, Any] = document.value
    moves, texts = _moves(data), list(_texts_outside(document, data.get("steps"), ("steps",)))
    if not moves and not texts:
        return data, []
    data = copy.deepcopy(data)
    problems = []
    for path, key in texts:
        step, line = _at(data, path[:-1]), path[-1]
        message, advice = f"the text of {key!r} is not indented", f"indent it further than {key!r}"
        problems.append(document.problem(message, path, suggestion=advice))
        step[key] = f"{line}: {step.pop(line)}"
    for move in moves:
        owner = _at(data, move.new[:-1])
        if isinstance(owner, dict) and move.new[-1] not in owner:
            if move.message:
                problems.append(document.problem(move.message, move.old, suggestion=move.suggestion))
            owner[move.new[-1]] = _at(data, move.old[:-1]).pop(move.old[-1])
            repoint(document, move.old, move.new)
    return data, problems


def repoint(document: YamlDocument, old: KeyPath, new: KeyPath) -> None:
    """Let what is read at ``new`` have the place of ``old`` in the file."""
    tables: tuple[dict[KeyPath, Any], ...] = (document.keys, document.values, document.spans)
    for places in tables:
        for path in [path for path in places if path[: len(old)] == old]:
            places[(*new, *path[len(old) :])] = places[path]


def _texts_outside(document: YamlDocument, steps: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Yield each line of a step that is read as a key, and is the first line of the text below the key before it."""
    for name, step in steps.items() if isinstance(steps, dict) else ():
        keys = list(step) if isinstance(step, dict) else []
        for before, key in pairwise(keys):
            here = (*path, name)
            unknown = key not in known_keys(here) and advice_for(key, here)[1] is None
            if unknown and step[before] == "" and (*here, before) in document.blocks:
                yield (*here, key), before


def _at(data: Any, path: KeyPath) -> Any:
    for part in path:
        data = data.get(part) if isinstance(data, dict) else None
    return data


def _moves(data: dict[str, Any]) -> list[_Move]:
    steps = data.get("steps")
    if steps is None and "steps" in data:
        return list(_not_indented(data))
    found = list(_in_steps(data, ("steps",), None))
    last = next(reversed(steps), None) if isinstance(steps, dict) else None
    if last is None:
        return found
    for key in data:
        if key in known_keys(_ANY_STEP) and key not in known_keys(()) and advice_for(key, ())[1] is None:
            known = advice_for(key, ())[0]
            if known.startswith(("known:", "did you mean")):
                message = f"{key!r} is a key of a step, and stands outside of them"
                found.append(_Move((key,), ("steps", last, key), message, f"indent it below the step {last!r}"))
    return found


def _not_indented(data: dict[str, Any]) -> Iterator[_Move]:
    """Yield the steps below ``steps:`` that are not indented; the mistake is one, and said of the first."""
    names = [name for name, value in data.items() if name not in known_keys(()) and _is_step(value)]
    if not names:
        return
    data["steps"] = {}
    message = "the steps stand beside 'steps'"
    for name in names:
        yield _Move((name,), ("steps", name), message if name == names[0] else "", "indent them below it")


def _is_step(value: Any) -> bool:
    return isinstance(value, dict) and any(key in value for key in KIND_KEYS)


def _in_steps(data: dict[str, Any], path: KeyPath, loop: KeyPath | None) -> Iterator[_Move]:
    """Yield the keys among the steps at ``path`` that are none, and those inside of them that belong elsewhere."""
    steps = _at(data, path)
    if not isinstance(steps, dict):
        return
    before: str | None = None
    for name, value in steps.items():
        move = None if _looks_like_step(name, value) else _from_steps(data, (*path, name), before, loop)
        if move is not None:
            yield move
            continue
        before = name
        if isinstance(value, dict):
            yield from _in_step(data, (*path, name), value)


def _looks_like_step(name: str, value: Any) -> bool:
    """Return whether an entry among the steps may be meant as one."""
    if not isinstance(value, dict):
        return value is None and name not in KIND_KEYS
    if name in _MAPPINGS or name in known_keys(()):
        return any(key in KIND_KEYS or advice_for(key, _ANY_STEP)[1] in KIND_KEYS for key in value)
    return True


def _from_steps(data: dict[str, Any], path: KeyPath, before: str | None, loop: KeyPath | None) -> _Move | None:
    """Return where the key among the steps belongs: to the step before it, to the loop around, or to the top."""
    name = str(path[-1])
    owner = _at(data, (*path[:-1], before)) if before is not None else None
    if name in known_keys(()) and name not in data and not (name in _ALSO_ON_TOP and owner is not None):
        return _Move(path, (name,), f"{name!r} stands among the steps", "begin it in the first column")
    if loop is not None and name in known_keys(loop) and name not in _at(data, loop):
        return _Move(path, (*loop, name), f"{name!r} stands among the steps of the loop", "write it beside its 'steps'")
    if name in known_keys(_ANY_STEP) and isinstance(owner, dict) and name not in owner:
        message = f"{name!r} stands among the steps, and is a key of one"
        return _Move(path, (*path[:-1], str(before), name), message, f"indent it further, below {before!r}")
    return None


def _in_step(data: dict[str, Any], path: KeyPath, step: dict[str, Any]) -> Iterator[_Move]:
    """Yield the keys of a step that belong to its ``repeat`` or ``choose``, or to the top of the file."""
    for inner in ("repeat", "choose"):
        part = step.get(inner)
        if isinstance(part, dict):
            for key in step:
                if key in known_keys((*path, inner)) and key not in known_keys(path) and key not in part:
                    message = f"{key!r} stands beside {inner!r}, and is a key of it"
                    yield _Move((*path, key), (*path, inner, key), message, f"indent it further, below {inner!r}")
    if "result" in step and "result" not in data:
        yield _Move((*path, "result"), ("result",), "'result' stands inside a step", "begin it in the first column")
    body = (*path, "repeat", "steps")
    if isinstance(_at(data, body), dict):
        yield from _in_steps(data, body, (*path, "repeat"))
