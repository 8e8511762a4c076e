"""Nodes added to a settings file and removed from it; every other key, and every other node, stays as it is."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from synaptic.errors import ConfigError
from synaptic.settings.addresses import OLLAMA_PORT, normal_url
from synaptic.settings.check import Form, Given, problems_of
from synaptic.settings.edit import is_user_file, old_nodes, refuse_mistakes
from synaptic.settings.file import only_writer, read_settings_file, write_settings_file
from synaptic.settings.legacy import modern_nodes
from synaptic.settings.nodes import NodeSettings
from synaptic.text import JsonDocument, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SOURCE = "nodes add"
_LEGACY_URL = "ollama_url"


@dataclass(frozen=True, slots=True)
class AddedNode:
    """What was done.

    Attributes:
        node: The new one.
        before: How many there were, those that were taken over included.
        taken_over: The older file or key that had them, "" if none.

    """

    node: NodeSettings
    before: int
    taken_over: str


def written_url(text: str) -> str:
    """Return the address that a person typed in its one form; ``desk`` and ``10.0.0.2:11434`` mean http.

    Raises:
        ConfigError: If it is no address.

    """
    full = text if "://" in text or not text.strip() else f"http://{text.strip()}"
    try:
        return normal_url(full, default_port=OLLAMA_PORT)
    except ConfigError as exc:
        hint = exc.hint
        if "@" in full:
            hint = "write the address alone, with --username NAME and --password-env VARIABLE"
        raise ConfigError(f"the address {exc.message}", hint=hint) from exc


def read_node(entry: Mapping[str, Any]) -> NodeSettings:
    """Return a node from what was given for its keys; ``None`` was not given.

    Raises:
        ConfigError: If a value is wrong, or two of them do not go together.

    """
    given = {key: value for key, value in entry.items() if value is not None}
    problems = problems_of(Given(("nodes",), [given], "", Form.FILE))
    if problems:
        raise ConfigError.of([replace(problem, source=None, message=_plain(problem.message)) for problem in problems])
    return NodeSettings.model_validate(given)


def add_node(path: Path, node: NodeSettings) -> AddedNode:
    """Write a node into a settings file, after those that are there.

    Nodes that the older program kept elsewhere would be hidden by a list in this file, so they are taken over into it.

    Raises:
        ConfigError: If the file has a mistake, or the node or its name is there already; nothing is then written.

    """
    with only_writer(path):
        document, settings = _read(path)
        entries, taken_over = _entries(path, settings)
        _refuse_twin(path, entries, node)
        entry = node.model_dump(mode="json", exclude_unset=True)
        _write(path, document, {**settings, "nodes": [*entries, entry]})
    return AddedNode(node, len(entries), taken_over)


def stored_nodes(path: Path) -> list[NodeSettings]:
    """Return the nodes that a settings file gives, or an older file or key beside it; none where there is no file.

    Raises:
        ConfigError: If the file has a mistake.

    """
    _, settings = _read(path)
    return [NodeSettings.model_validate(entry) for entry in _entries(path, settings)[0]]


def refuse_twin(path: Path, node: NodeSettings) -> None:
    """Check that :func:`add_node` could add the node.

    Raises:
        ConfigError: If the file has a mistake, with ``problems``; if the node or its name is there already, without.

    """
    _, settings = _read(path)
    _refuse_twin(path, _entries(path, settings)[0], node)


def remove_node(path: Path, which: str) -> NodeSettings:
    """Take a node out of a settings file, by its name or its address, and return it.

    Raises:
        ConfigError: If the file has a mistake or no such node, or several of that name; nothing is then written.

    """
    with only_writer(path):
        document, settings = _read(path)
        entries, _ = _entries(path, settings)
        known = [NodeSettings.model_validate(entry) for entry in entries]
        index = find_node(known, which, f"in {path}")
        _write(path, document, {**settings, "nodes": [*entries[:index], *entries[index + 1 :]]})
    return known[index]


def find_node(nodes: list[NodeSettings], which: str, where: str) -> int:
    """Return the index of the node of that name or address.

    Args:
        nodes: Where it is looked for.
        which: As a person typed it.
        where: For the error: ``in FILE``.

    Raises:
        ConfigError: If there is none, or there are several.

    """
    named = [index for index, node in enumerate(nodes) if node.name == which]
    if len(named) > 1:
        urls = ", ".join(nodes[index].url for index in named)
        raise ConfigError(
            f"{len(named)} nodes are called {which}", hint=f"name the one you mean by its address: {urls}"
        )
    if named:
        return named[0]
    try:
        url = written_url(which)
    except ConfigError:
        url = which
    for index, node in enumerate(nodes):
        if node.url == url:
            return index
    if not nodes:
        raise ConfigError(f"there are no nodes {where}", hint="to name one: synaptic nodes add http://10.0.0.2:11434")
    names = [name for node in nodes for name in (node.name, node.url) if name]
    match = nearest(which, names)
    meant = f"did you mean {match}?" if match else f"the nodes are {', '.join(node.shown for node in nodes)}"
    raise ConfigError(f"there is no node {which!r} {where}", hint=meant)


def _refuse_twin(path: Path, entries: list[Any], node: NodeSettings) -> None:
    for other in (NodeSettings.model_validate(entry) for entry in entries):
        if other.url == node.url:
            called = f", as {other.name}" if other.name else ""
            raise ConfigError(
                f"{node.url} is one of the nodes already{called}",
                hint=f"to change it, edit {path}, or first: synaptic nodes remove {other.shown}",
            )
        if node.name is not None and other.name == node.name:
            raise ConfigError(
                f"there is a node called {node.name} already: {other.url}", hint="give this one another --name"
            )


def _plain(message: str) -> str:
    """Return a message without the place in a list that only has this one node."""
    short = message.removeprefix("nodes[0].")
    return re.sub(r"\bnodes\[0\]", "the node", short)


def _read(path: Path) -> tuple[JsonDocument | None, dict[str, Any]]:
    document = read_settings_file(path)
    if document is not None:
        refuse_mistakes(document)
    return document, {} if document is None else dict(document.value)


def _entries(path: Path, settings: Mapping[str, Any]) -> tuple[list[Any], str]:
    """Return the nodes that the file gives, as they are written; and which older file or key they are taken from."""
    if settings.get("nodes") is not None:
        return list(settings["nodes"]), ""
    legacy = old_nodes() if is_user_file(path) else None
    if legacy is not None:
        return list(modern_nodes(legacy.value["nodes"])), legacy.source
    if settings.get(_LEGACY_URL):
        return [{"url": settings[_LEGACY_URL]}], _LEGACY_URL
    return [], ""


def _write(path: Path, document: JsonDocument | None, settings: dict[str, Any]) -> None:
    positions = {} if document is None else document.positions
    refuse_mistakes(JsonDocument(str(path), settings, positions, document.problems if document else ()))
    write_settings_file(path, settings)
