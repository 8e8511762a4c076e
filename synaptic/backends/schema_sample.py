"""A small value that fits a JSON Schema, always the same one: what a backend without a model can answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.messages import JsonSchema

WORD = "text"
MAX_DEPTH = 32
"""Where a schema refers to itself without end, the value becomes ``None`` at this depth."""


def sample_value(schema: JsonSchema) -> Any:
    """Return a small value of the shape that ``schema`` describes.

    Every property is there, every list has as many items as it must and at least one if it may, strings are as long as
    they must be, numbers as small as they may be (0 where they may be anything). Patterns and formats of strings are
    not followed.
    """
    return _sample(schema, schema, 0, 1)


def _sample(schema: Any, root: JsonSchema, depth: int, number: int) -> Any:
    """Return the sample of a part of ``root``; ``number`` tells the items of one list apart."""
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return None
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][(number - 1) % len(schema["enum"])]
    if "$ref" in schema:
        return _sample(_resolve(schema["$ref"], root), root, depth + 1, number)
    for union in ("anyOf", "oneOf"):
        if schema.get(union):
            return _sample(schema[union][0], root, depth + 1, number)
    if schema.get("allOf"):
        merged: dict[str, Any] = {}
        for part in schema["allOf"]:
            _merge(merged, _resolve(part["$ref"], root) if "$ref" in part else part)
        _merge(merged, {key: value for key, value in schema.items() if key != "allOf"})
        return _sample(merged, root, depth + 1, number)
    return _of_type(schema, root, depth, number)


def _of_type(schema: Mapping[str, Any], root: JsonSchema, depth: int, number: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "array" if "items" in schema else "string")
    match kind[0] if isinstance(kind, (list, tuple)) and kind else kind:
        case "object":
            members = schema.get("properties", {})
            return {name: _sample(member, root, depth + 1, number) for name, member in members.items()}
        case "array":
            least = max(1, schema.get("minItems", 0))
            count = min(least, schema.get("maxItems", least))
            return [_sample(schema.get("items", {}), root, depth + 1, item + 1) for item in range(count)]
        case "integer":
            return _integer(schema)
        case "number":
            return _number(schema)
        case "boolean":
            return False
        case "null":
            return None
        case _:
            return _string(schema, number)


def _string(schema: Mapping[str, Any], number: int) -> str:
    text = WORD if number == 1 else f"{WORD} {number}"
    least = schema.get("minLength", 0)
    while len(text) < least:
        text += f" {WORD}"
    most = schema.get("maxLength", len(text))
    return text[: max(least, min(most, len(text)))].rstrip().ljust(least, ".")


def _integer(schema: Mapping[str, Any]) -> int:
    low, high = schema.get("minimum"), schema.get("maximum")
    if "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + 1
    if "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - 1
    value = int(_nearest_to_zero(low, high))
    return value + 1 if low is not None and value < low else value


def _number(schema: Mapping[str, Any]) -> float:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    value = _nearest_to_zero(low, high)
    if value in {schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")}:
        if low is not None and high is not None:
            return float(low + high) / 2
        return float(value + 1 if low is not None else value - 1)
    return float(value)


def _nearest_to_zero(low: float | None, high: float | None) -> float:
    if low is not None and low > 0:
        return low
    return high if high is not None and high < 0 else 0


def _merge(into: dict[str, Any], part: Mapping[str, Any]) -> None:
    for key, value in part.items():
        both = key == "properties" and key in into
        into[key] = {**into[key], **value} if both else value


def _resolve(reference: Any, root: JsonSchema) -> Any:
    """Return what a reference inside the same document points to, or ``None``."""
    target: Any = root
    for part in str(reference).removeprefix("#").strip("/").split("/"):
        if part:
            target = target.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
    return target
