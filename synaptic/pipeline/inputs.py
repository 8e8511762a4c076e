"""A run's inputs: what was given, checked against what the pipeline declares."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from synaptic.errors import PipelineError
from synaptic.problems import Problem, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.pipeline.spec import InputSpec, PipelineSpec

_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def bind_inputs(spec: PipelineSpec, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return every declared input with its value.

    Args:
        spec: The pipeline.
        given: What the caller gave; text is read as the declared type. An undeclared name is an error.
        defaults: The person's own defaults (setting ``pipeline_inputs``); undeclared names are passed over.

    Raises:
        PipelineError: With every input that is missing, unknown or of the wrong type.

    """
    problems = [
        Problem(f"pipeline {spec.name!r} has no input {name!r}", suggestion=did_you_mean(name, spec.inputs))
        for name in given
        if name not in spec.inputs
    ]
    values: dict[str, Any] = {}
    for name, declared in spec.inputs.items():
        value = given.get(name, defaults.get(name, declared.default))
        if value is None:
            if declared.required:
                problems.append(Problem(f"pipeline {spec.name!r} needs the input {name!r}", suggestion=_how(name)))
            values[name] = None
            continue
        try:
            values[name] = convert(value, declared)
        except ValueError as exc:
            problems.append(Problem(f"input {name!r} {exc}"))
    if problems:
        raise PipelineError.of(problems)
    return values


def _how(name: str) -> str:
    return "write the question after the command" if name == "query" else f"give it with -i {name}=VALUE"


def convert(value: Any, declared: InputSpec) -> Any:
    """Return ``value`` as the declared type, reading text where text is given.

    Raises:
        ValueError: Saying what was expected.

    """
    kind = declared.type
    if kind == "string":
        result: Any = _string(value)
    elif kind == "boolean":
        result = value if isinstance(value, bool) else _BOOLEANS.get(str(value).strip().lower())
        if result is None:
            raise ValueError(f"must be true or false, not {value!r}")
    elif kind == "list":
        result = _list(value)
    else:
        result = _number(value, whole=kind == "integer")
        if declared.minimum is not None and result < declared.minimum:
            raise ValueError(f"must be at least {declared.minimum:g}, not {value}")
        if declared.maximum is not None and result > declared.maximum:
            raise ValueError(f"must be at most {declared.maximum:g}, not {value}")
    return result


def _string(value: Any) -> str:
    if isinstance(value, str):
        if not value.strip():
            raise ValueError("is empty")
        return value
    if isinstance(value, (int, float)):
        return str(value)
    raise ValueError(f"must be text, not {type(value).__name__}")


def _list(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    if isinstance(value, (list, tuple)):
        return list(value)
    raise ValueError(f"must be a list (on the command line: a,b,c), not {value!r}")


def _number(value: Any, *, whole: bool) -> int | float:
    what = "a whole number" if whole else "a number"
    if isinstance(value, bool):
        raise ValueError(f"must be {what}, not {value}")  # noqa: TRY004  (one kind of failure for the caller)
    try:
        number = int(str(value)) if whole else float(value)
    except (TypeError, ValueError) as exc:
        raise ValueError(f"must be {what}, not {value!r}") from exc
    if not math.isfinite(number):
        raise ValueError(f"must be {what}, not {value!r}")
    return number
