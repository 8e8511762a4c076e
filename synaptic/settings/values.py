"""Settings written as plain text, in the environment and after ``--set``: what the text means, by the field's type."""

from __future__ import annotations

import re
from typing import Any

from synaptic.errors import ConfigError
from synaptic.settings.check import BOOLEANS
from synaptic.settings.model import FieldKind, Settings, field_kind
from synaptic.text import parse_json

_NOTHING = {"", "none", "null"}
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(?:[eE][+-]?[0-9]{1,3})?")


def decode_setting(name: str, text: str) -> Any:
    """Return what ``text`` means for the setting ``name``.

    Text that does not mean anything of the right type is returned as it is: validation then says what was expected.

    Raises:
        ConfigError: If it begins like a JSON list or object and is broken.

    """
    kind = field_kind(Settings.model_fields[name].annotation)
    word = text.strip().lower()
    if kind.optional and (word in _NOTHING or (word == "off" and kind.base in {int, float})):
        return None
    if kind.base is str:
        return text
    return _decode(kind, text.strip())


def decode_entry(table: str, text: str) -> Any:
    """Return what ``text`` means for an entry: text for ``agent_models``, else JSON where it is JSON."""
    if table == "agent_models":
        return text
    try:
        return _json(text)
    except ConfigError:
        return text


def _json(text: str) -> Any:
    document = parse_json(text, "")
    if document.problems:
        raise ConfigError.of(document.problems)
    return document.value


def _decode(kind: FieldKind, text: str) -> Any:
    if kind.base is bool:
        return BOOLEANS.get(text.lower(), text)
    if kind.base in {int, float} and _INTEGER.fullmatch(text):
        return int(text)
    if kind.base is float:
        return float(text) if _NUMBER.fullmatch(text) else text
    if text.startswith(("[", "{")):
        return _json(text)
    if kind.base is list:
        return [item.strip() for item in text.split(",") if item.strip()]
    return text
