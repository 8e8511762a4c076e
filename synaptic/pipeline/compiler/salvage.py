"""A pipeline file with mistakes of form, read as far as it goes, so that the rest of it can be checked too.

A misspelt key is read as the one that was meant. What else is wrong is left out: a step, an input, a default. The names
of steps, inputs and agents that are left out are kept, so that a reference to them is not reported as a second mistake.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pydantic

from synaptic.errors import PipelineError
from synaptic.pipeline.loader import Pipeline, read_leniently
from synaptic.pipeline.spec import PipelineSpec, advice_for, error_path, translate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

    from synaptic.errors import Problem
    from synaptic.text import KeyPath, YamlDocument

_STEPS = ("steps",)
_NAMED = {"inputs", "agents"}
_REQUIRED = {"version": 1, "name": "unnamed", "result": "-"}
_PASSES = 4
"""Leaving something out may leave a mapping empty, which is the next mistake."""


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What could be read.

    Attributes:
        pipeline: Without what is wrong; ``None`` where nothing is left.
        problems: Every mistake of form.
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
    data = document.value
    problems: tuple[Problem, ...] = ()
    broken: dict[KeyPath, set[str]] = {}
    misspelt: set[tuple[int, int]] = set()
    for _ in range(_PASSES):
        try:
            spec = PipelineSpec.model_validate(data)
        except pydantic.ValidationError as exc:
            errors = exc.errors(include_url=False)
            if not problems:
                problems = tuple(translate(errors, document))
                data = copy.deepcopy(data)
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
            data.pop(key, None)
            if key in _REQUIRED:
                data[key] = _REQUIRED[key]
            continue
        broken.setdefault(owner, set()).add(name)
        mapping = _at(data, owner)
        if isinstance(mapping, dict):
            mapping.pop(name, None)


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
    tables: tuple[dict[KeyPath, Any], ...] = (document.keys, document.values, document.spans)
    for places in tables:
        for other in [each for each in places if each[: len(path)] == path]:
            places[(*path[:-1], meant, *other[len(path) :])] = places[other]
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
