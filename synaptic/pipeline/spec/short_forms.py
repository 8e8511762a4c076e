"""Types of the pipeline file that may be written in a short form and in a long one, each with one clear error.

A plain union would report one error for each of its members; here the short form is turned into the long one
first, so that a typo in the long form is one error, at its own key.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

IDENTIFIER = r"^[a-z][a-z0-9_]*$"
Identifier: TypeAlias = Annotated[str, Field(pattern=IDENTIFIER, max_length=64)]
Seconds: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_WRITE_DURATION = "write true, or how long it holds: a number of seconds, or 30s, 10m, 12h, 7d"


class Strict(BaseModel):
    """A mapping of the file: unknown keys are errors, nothing is coerced, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TimeoutSpec(Strict):
    """Bounds in seconds; what is left out comes from the pipeline's defaults, then from the settings.

    Attributes:
        total: The whole call; of a tool, a sub-pipeline or a loop, the whole step.
        idle: Between two tokens.
        first_token: Until the first token; covers loading a cold model.
    """

    total: Seconds | None = None
    idle: Seconds | None = None
    first_token: Seconds | None = None


class OnErrorSpec(Strict):
    """What a step's failure means: the run fails, the step is skipped, or another step's output takes its place."""

    action: Literal["fail", "skip", "use"] = "fail"
    use: Identifier | None = None


class OptionSpec(Strict):
    """One option of ``choose``.

    Attributes:
        description: When to choose it; shown to the model.
        steps: The steps that run only if this option (or another that lists them) is chosen.
    """

    description: str = ""
    steps: list[str] = Field(default_factory=list)


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _timeout(value: Any) -> Any:
    return {"total": float(value)} if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _on_error(value: Any) -> Any:
    if isinstance(value, OnErrorSpec):
        return value
    if value in ("fail", "skip"):
        return {"action": value}
    if isinstance(value, dict) and set(value) == {"use"}:
        return {"action": "use", "use": value["use"]}
    raise PydanticCustomError("on_error", "must be fail, skip, or {use: STEP}", {})


def _option(value: Any) -> Any:
    return {"description": value} if isinstance(value, str) else value


def _cache(value: Any) -> float:
    """Return how long an entry holds, in seconds; 0 is no cache."""
    if isinstance(value, bool):
        return math.inf if value else 0.0
    if isinstance(value, (int, float)) and value > 0:
        return float(value)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[1]) == 0:
        raise PydanticCustomError("duration", _WRITE_DURATION, {})
    return float(int(match[1]) * _UNITS[match[2]])


def _approve(value: Any) -> str:
    if isinstance(value, bool):
        return "output" if value else ""
    if value in ("prompt", "output", "both"):
        return str(value)
    raise PydanticCustomError("approve", "must be true, prompt, output or both", {})


def _foreach(value: Any) -> str | list[Any]:
    if isinstance(value, (str, list)):
        return value
    raise PydanticCustomError("foreach", "must be a list, or an expression that gives one", {})


def _result(value: Any) -> str | dict[str, Any]:
    if isinstance(value, (str, dict)):
        return value
    raise PydanticCustomError("result", "must be text, or a mapping of name -> value", {})


def _texts(value: Any) -> Any:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return [value]
    if isinstance(value, list):
        return value
    raise PydanticCustomError("texts", "must be text, or a list of texts", {})


def _expected(value: Any) -> str | dict[str, Any]:
    value = _as_text(value)
    if isinstance(value, (str, dict)):
        return value
    raise PydanticCustomError("expected", "must be the text, or a mapping of name -> value", {})


def _failing(value: Any) -> str:
    if value is True:
        return ""
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise PydanticCustomError("failing", "must be words of the error, or true", {})


def _version(value: Any) -> Any:
    if isinstance(value, bool):  # which Python takes for 1
        raise PydanticCustomError("literal_error", "Input should be 1", {"expected": "1"})
    return value


_DURATION_SCHEMA = {
    "anyOf": [
        {"type": "boolean"},
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "string", "pattern": "^[0-9]{1,9}[smhd]$"},
    ]
}
_ON_ERROR_SCHEMA = {
    "anyOf": [
        {"enum": ["fail", "skip"]},
        {
            "type": "object",
            "properties": {"use": {"type": "string", "pattern": IDENTIFIER}},
            "required": ["use"],
            "additionalProperties": False,
        },
    ]
}
_APPROVE_SCHEMA = {"enum": [True, False, "prompt", "output", "both"]}

_TEXTS_SCHEMA = {
    "anyOf": [
        {"type": ["string", "number"]},
        {"type": "array", "items": {"type": ["string", "number"]}, "minItems": 1},
    ]
}
_FAILING_SCHEMA = {"anyOf": [{"type": "string", "pattern": r"\S"}, {"const": True}]}

Version: TypeAlias = Annotated[Literal[1], BeforeValidator(_version)]
Timeout: TypeAlias = Annotated[TimeoutSpec, BeforeValidator(_timeout)]
OnError: TypeAlias = Annotated[OnErrorSpec, BeforeValidator(_on_error), WithJsonSchema(_ON_ERROR_SCHEMA)]
Option: TypeAlias = Annotated[OptionSpec, BeforeValidator(_option)]
Listed: TypeAlias = Annotated[str | list[Any], PlainValidator(_foreach), WithJsonSchema({"type": ["string", "array"]})]
Result: TypeAlias = Annotated[
    str | dict[str, Any], PlainValidator(_result), WithJsonSchema({"type": ["string", "object"]})
]
WrittenText: TypeAlias = Annotated[str, BeforeValidator(_as_text)]
"""A text that may be written as a number: ``choices: [3.10, 3.11]``."""
Texts: TypeAlias = Annotated[
    list[WrittenText], Field(min_length=1), BeforeValidator(_texts), WithJsonSchema(_TEXTS_SCHEMA)
]
Expected: TypeAlias = Annotated[
    str | dict[str, Any] | None, PlainValidator(_expected), WithJsonSchema({"type": ["string", "number", "object"]})
]
Failing: TypeAlias = Annotated[str | None, PlainValidator(_failing), WithJsonSchema(_FAILING_SCHEMA)]
"""Words of an error; "" is any error."""

CacheSeconds: TypeAlias = Annotated[float, BeforeValidator(_cache), WithJsonSchema(_DURATION_SCHEMA)]
Approve: TypeAlias = Annotated[
    Literal["", "prompt", "output", "both"], BeforeValidator(_approve), WithJsonSchema(_APPROVE_SCHEMA)
]
