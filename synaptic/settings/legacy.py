"""The files of the older program: what its keys mean today, and which of them mean nothing any more.

Every key that it wrote, read or documented is known. Those that have a successor are mapped to it; the others are
named once and ignored, and not even that where they are ``null``. A new key always wins over an old one beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from synaptic.settings.check import Form, Given, problem_at, shown
from synaptic.settings.model import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from synaptic.errors import Problem
    from synaptic.text import JsonDocument

ALIASES: Mapping[str, str] = {"model_sharding_enabled": "distributed_inference_enabled"}
"""Older names that stay accepted everywhere, in the environment and on the command line too."""


@dataclass(frozen=True, slots=True)
class Successor:
    """What an old key has become.

    Attributes:
        path: The setting, or the setting and the entry of its table.
        accepts: Whether an old value is one that can be mapped.
        wanted: What it accepts, in words.
        convert: Old value -> new value.
        weak: Counts only where nothing else gives the setting.
    """

    path: tuple[str, ...]
    accepts: Callable[[Any], bool]
    wanted: str
    convert: Callable[[Any], Any] = lambda value: value
    weak: bool = False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


MAPPED: Mapping[str, Successor] = {
    "synthesis_model": Successor(("agent_models", "editor"), _is_text, "text"),
    "agent_timeout": Successor(("call_timeout",), _is_number, "a number"),
    "refinement_rounds": Successor(("pipeline_inputs", "rounds"), _is_count, "a whole number, 0 or more"),
    "quality_threshold": Successor(("pipeline_inputs", "threshold"), _is_number, "a number"),
    "collaborative_mode": Successor(
        ("pipeline",),
        lambda value: isinstance(value, bool),
        "true or false",
        lambda value: "research" if value else "parallel",
    ),
    "ollama_url": Successor(("nodes",), _is_text, "text", lambda value: [{"url": value}], weak=True),
}

IGNORED = frozenset(
    {
        "ast_voting_enabled",
        "dashboard_enable_dask",
        "dashboard_verbose",
        "embedding_model",
        "flockparser_enabled",
        "flockparser_url",
        "max_quality_retries",
        "mode",
        "redis_db",
        "redis_host",
        "redis_logging_enabled",
        "redis_password",
        "redis_port",
        "strategy",
    }
)


@dataclass(frozen=True, slots=True)
class LegacyValues:
    """What the old keys of one file give, what is wrong with them, and which were ignored."""

    givens: tuple[Given, ...] = ()
    problems: tuple[Problem, ...] = ()
    ignored: tuple[str, ...] = ()


def is_legacy(key: str) -> bool:
    """Whether the older program knew this key and we have another name for it, or none."""
    return key in MAPPED or key in IGNORED


def successor_name(key: str) -> str | None:
    """Return the dotted name of what an old key has become, if it has become anything."""
    if key in ALIASES:
        return ALIASES[key]
    return ".".join(MAPPED[key].path) if key in MAPPED else None


def legacy_values(document: JsonDocument) -> LegacyValues:
    """Return what the old keys in a settings file mean."""
    givens: list[Given] = []
    problems: list[Problem] = []
    ignored: list[str] = []
    for key, value in document.value.items():
        if value is None or not is_legacy(key):
            continue
        successor = MAPPED.get(key)
        if successor is None:
            ignored.append(key)
        elif not _superseded(successor, document.value):
            given = Given(successor.path, value, document.source, Form.FILE, document, (key,), weak=successor.weak)
            if successor.accepts(value):
                givens.append(replace(given, value=successor.convert(value)))
            else:
                label = f"{key} (now {'.'.join(successor.path)})"
                message = f"{label} must be {successor.wanted}, not {shown(value)}"
                problems.append(problem_at(given, message, "correct it, or remove it"))
    return LegacyValues(tuple(givens), tuple(problems), tuple(ignored))


def nodes_file_values(document: JsonDocument) -> LegacyValues:
    """Return the nodes that the older program kept in a file of their own; ``priority`` is ignored."""
    problems = [
        problem_at(
            Given((key,), None, document.source, Form.FILE, document, (key,)),
            f"unknown key {key!r} in the nodes file",
            'write {"nodes": [...]}',
        )
        for key in document.value
        if key != "nodes"
    ]
    raw = document.value.get("nodes", [])
    ignored = ("priority",) if any(_has_priority(node) for node in _elements(raw)) else ()
    given = Given(("nodes",), modern_nodes(raw), document.source, Form.FILE, document, ("nodes",))
    return LegacyValues((given,) if given.value != [] else (), tuple(problems), ignored)


def modern_nodes(raw: Any) -> Any:
    """Return the value of ``nodes`` in the older program's file without what we do not have."""
    if not isinstance(raw, list):
        return raw
    return [_modern_node(node) for node in raw]


def modern_settings(old: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str], tuple[str, ...]]:
    """Return valid settings in the new form.

    Returns:
        The new content in the order of the old; old key -> dotted new key of what was carried over; and the keys
        that were dropped although they had a value.
    """
    new: dict[str, Any] = {}
    renamed: dict[str, str] = {}
    dropped: list[str] = []
    for key, value in old.items():
        successor = MAPPED.get(key)
        if key in ALIASES:
            renamed[key] = ALIASES[key]
            new.setdefault(ALIASES[key], value)
        elif key in Settings.model_fields:
            new[key] = {**new.get(key, {}), **value} if isinstance(value, dict) else value
        elif value is None:
            continue
        elif successor is None or _superseded(successor, old):
            dropped.append(key)
        else:
            renamed[key] = ".".join(successor.path)
            _put(new, successor.path, successor.convert(value))
    return new, renamed, tuple(dropped)


def _superseded(successor: Successor, beside: Mapping[str, Any]) -> bool:
    """Whether the file also gives what the old key has become."""
    found: Any = beside
    for part in successor.path:
        if not isinstance(found, dict) or part not in found:
            return False
        found = found[part]
    return True


def _put(new: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        new = new.setdefault(part, {})
    new[path[-1]] = value


def _elements(raw: Any) -> list[Any]:
    return raw if isinstance(raw, list) else []


def _has_priority(node: Any) -> bool:
    return isinstance(node, dict) and node.get("priority") is not None


def _modern_node(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    return {key: value for key, value in node.items() if key != "priority"}
