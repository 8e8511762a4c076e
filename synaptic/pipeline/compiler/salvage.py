"""A pipeline file with mistakes of form, read as far as it goes, so that the rest of it can be checked too.

A misspelt key is read as the one that was meant. What else is wrong is left out: a step, an input, a default. The names
of steps, inputs and agents that are left out are kept, so that a reference to them is not reported as a second mistake;
so are those of steps whose output is not known, which are read but for that.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pydantic

from synaptic.errors import PipelineError
from synaptic.pipeline.loader import Pipeline, read_leniently
from synaptic.pipeline.spec import KIND_KEYS, PipelineSpec, advice_for, error_path, put_right, repoint, translate
from synaptic.pipeline.templates import words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

    from synaptic.errors import Problem
    from synaptic.text import KeyPath, YamlDocument

_STEPS = ("steps",)
_NAMED = {"inputs", "agents", "tests"}
_LISTED = ("inputs", "agents", "steps")
_NAME_KEYS = ("name", "id")
_REQUIRED = {"version": 1, "name": "unnamed", "result": "-"}
_APART = words(
    """temperature max_tokens timeout retry cache priority concurrency on_error overflow approve model backend
    fallback_models description when needs join required num_ctx select judge"""
)
"""Keys that say nothing of what a step gives, so that the rest can be checked without them."""
_STAND_INS = {"samples": 2}
"""Keys that others need beside them, and a value with which the rest can be checked."""
_SOME_STEP = {"ask": "-"}
"""Stands in the place of the only step: there is no pipeline without any."""
_APART_IN_LOOP = frozenset({"max", "until", "plateau", "keep"})
_STEP_KEYS = frozenset(KIND_KEYS)
_PASSES = 4
"""Leaving something out may leave a mapping empty, which is the next mistake."""


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What could be read.

    Attributes:
        pipeline: Without what is wrong; ``None`` where nothing is left.
        broken: The names that were left out, by the path of the mapping that they stood in.
        misspelt: Where the keys stand that were read as others: that is mistake enough for one place.
    """

    pipeline: Pipeline | None
    problems: tuple[Problem, ...] = ()
    broken: dict[KeyPath, set[str]] = field(default_factory=dict)
    misspelt: frozenset[tuple[int, int]] = frozenset()


def salvage(text: str, source: str, path: Path | None) -> Salvaged:
    """Return the pipeline that the YAML text describes, without what is wrong with its form."""
    try:
        document, unclear = read_leniently(text, source)
    except PipelineError as exc:
        return Salvaged(None, exc.problems)
    data, misplaced = put_right(document)
    unclear += misplaced
    problems: tuple[Problem, ...] = ()
    broken: dict[KeyPath, set[str]] = {}
    misspelt: set[tuple[int, int]] = set()
    unlisted: set[str] = set()
    for _ in range(_PASSES):
        try:
            spec = PipelineSpec.model_validate(data)
        except pydantic.ValidationError as exc:
            errors = exc.errors(include_url=False)
            if not problems:
                problems = tuple(translate(errors, document))
                data = copy.deepcopy(data)
                unlisted = _read_lists(data, document)
                errors = [error for error in errors if error_path(error)[:1] not in {(key,) for key in unlisted}]
            elif unlisted:
                problems += tuple(translate([error for error in errors if error_path(error)[0] in unlisted], document))
                unlisted = set()
            errors = [error for error in errors if not _read_as_meant(data, error, document, misspelt)]
            _leave_out(data, errors, broken)
        else:
            return Salvaged(Pipeline(spec, document, path), (*unclear, *problems), broken, frozenset(misspelt))
    return Salvaged(None, (*unclear, *problems), broken)


def _leave_out(data: dict[str, Any], errors: Sequence[ErrorDetails], broken: dict[KeyPath, set[str]]) -> None:
    for error in errors:
        path = error_path(error)
        owner, name = _part_of(path)
        if name is None:
            key = str(path[0]) if path else ""
            written = data.pop(key, None)
            if key in _NAMED:
                broken.setdefault((key,), set()).update(_names_in(written))
            if key in _REQUIRED:
                data[key] = _REQUIRED[key]
            continue
        mapping = _at(data, owner)
        rest = path[len(owner) + 1 :]
        if not isinstance(mapping, dict) or _without_key(mapping.get(name), rest, error["type"]):
            continue
        broken.setdefault(owner, set()).add(name)
        if not _without_shape(mapping.get(name), rest):
            mapping.pop(name, None)
            if not mapping and owner[-1] == "steps":
                mapping[name] = _SOME_STEP


def _without_shape(step: Any, path: KeyPath) -> bool:
    """Leave the shape of a step's output out, and return whether that is all that was wrong with it."""
    if path[:1] != ("output",) or not isinstance(step, dict):
        return False
    step.pop("output", None)
    return True


def _read_lists(data: dict[str, Any], document: YamlDocument) -> set[str]:
    """Read lists of named parts as the mappings that they should have been, and return their keys."""
    found = set()
    for key in _LISTED:
        items: list[Any] = data[key] if isinstance(data.get(key), list) else []
        names = [_own_name(item) for item in items]
        if names and None not in names and len(set(names)) == len(names):
            data[key] = {str(name): _unnamed(item, name) for name, item in zip(names, items, strict=True)}
            for index, (name, item) in enumerate(zip(names, items, strict=True)):
                inside = isinstance(item, dict) and name in item
                repoint(document, (key, index, str(name)) if inside else (key, index), (key, str(name)))
            found.add(key)
    return found


def _own_name(item: Any) -> str | None:
    """Return the name of a part that stands in a list: ``{name: plan, …}``, ``{plan: {…}}``, or the name alone."""
    if isinstance(item, str):
        return item
    if not isinstance(item, dict) or not item:
        return None
    alone = next(iter(item)) if len(item) == 1 and isinstance(next(iter(item.values())), dict) else None
    name = next((item[key] for key in _NAME_KEYS if key in item), alone)
    return name if isinstance(name, str) else None


def _unnamed(item: Any, name: str | None) -> Any:
    if isinstance(item, str):
        return {}
    return item[name] if name in item else {key: value for key, value in item.items() if key not in _NAME_KEYS}


def _names_in(written: Any) -> Iterator[str]:
    """Yield the names that a list has, which should have been a mapping."""
    for item in written if isinstance(written, list) else ():
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            yield str(item["name"] if "name" in item else next(iter(item), ""))


def _without_key(part: Any, path: KeyPath, kind: str) -> bool:
    """Leave one key out of a step, input or agent, and return whether the rest still says what is meant."""
    key = path[0] if path else None
    if key == "repeat" and len(path) > 1 and path[1] in _APART_IN_LOOP:
        part, path, key = part.get("repeat"), path[1:], path[1]
    if not isinstance(part, dict) or key not in part:
        # An error that another one has taken away with it.
        return isinstance(part, dict) and key is not None and kind != "missing"
    if key in _APART or key in _APART_IN_LOOP:
        del part[key]
        return True
    if key in _STAND_INS:
        part[key] = _STAND_INS[key]
        return True
    if kind != "extra_forbidden" or len(path) > 1:
        return False
    del part[key]
    # An unknown key may be what the step does, by a name that is not known: then nothing is known of the step.
    return not _STEP_KEYS.isdisjoint(part) and ("agent" not in part or bool(part.get("prompt")))


def _read_as_meant(
    data: dict[str, Any], error: ErrorDetails, document: YamlDocument, misspelt: set[tuple[int, int]]
) -> bool:
    """Give the value of a misspelt key to the key that was meant, and return whether there is one."""
    if error["type"] != "extra_forbidden":
        return False
    path = error_path(error)
    mapping, name = _at(data, path[:-1]), path[-1]
    meant = advice_for(str(name), path[:-1])[1]
    if meant is None or not isinstance(mapping, dict) or meant in mapping or name not in mapping:
        return False
    mapping[meant] = mapping.pop(name)
    misspelt.add(document.keys[path])
    repoint(document, path, (*path[:-1], meant))
    return True


def _at(data: Any, path: KeyPath) -> Any:
    for part in path:
        if isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            data = data.get(part) if isinstance(data, dict) else None
    return data


def _part_of(path: KeyPath) -> tuple[KeyPath, str | None]:
    """Return the mapping and the name of the innermost step, input or agent that the path leads into."""
    if len(path) > 1 and path[0] in _NAMED:
        return path[:1], str(path[1])
    if len(path) < 2 or path[:1] != _STEPS:
        return (), None
    end = 2
    while path[end : end + 2] == ("repeat", "steps") and len(path) > end + 2:
        end += 3
    return path[: end - 1], str(path[end - 1])
