"""The rows of the settings reference in docs/reference/settings.md, as the models have them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from synaptic.settings.model import NodeSettings, RpcBackendSettings, Settings, field_kind

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

_WORDS = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    list: "list",
    dict: "table",
}


def rows(model: type[BaseModel]) -> list[str]:
    """Return one Markdown table row a field."""
    return [_row(name, info) for name, info in model.model_fields.items()]


def all_rows() -> list[str]:
    """Return the rows of every model that a settings file holds."""
    return [row for model in (Settings, NodeSettings, RpcBackendSettings) for row in rows(model)]


def _row(name: str, info: FieldInfo) -> str:
    default: Any = info.get_default(call_default_factory=True)
    shown = "required" if info.is_required() else f"`{json.dumps(default)}`"
    return f"| `{name}` | {_type(info)} | {shown} | {info.description} |"


def _type(info: FieldInfo) -> str:
    kind = field_kind(info.annotation)
    bounds = {
        bound: getattr(item, bound) for item in info.metadata for bound in ("gt", "ge", "le") if hasattr(item, bound)
    }
    text = _WORDS[kind.base]
    if "ge" in bounds and "le" in bounds:
        text += f", {bounds['ge']} to {bounds['le']}"
    elif "ge" in bounds:
        text += f", {bounds['ge']} or more"
    elif "gt" in bounds:
        text += f" above {bounds['gt']}"
    return f"{text}, or null" if kind.optional else text
