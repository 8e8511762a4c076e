"""Changes to a settings file that a person asked for: a value, a node, or the whole file in its new form.

Nothing is written unless what would stand there afterwards loads without a mistake; every other key stays as it is.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synaptic import paths
from synaptic.errors import ConfigError, Problem
from synaptic.settings.anchored import anchored
from synaptic.settings.authorities import authorities_file
from synaptic.settings.check import Form, Given, problems_of
from synaptic.settings.endpoints import OLLAMA_PORT, NodeSettings, normal_url
from synaptic.settings.file import back_up, only_writer, read_settings_file, write_settings_file
from synaptic.settings.legacy import ALIASES, MAPPED, modern_nodes, modern_settings, nodes_file_values
from synaptic.settings.model import WHERE_LISTED, Settings
from synaptic.settings.sources import argument_layer, file_layer, legacy_layer
from synaptic.text import JsonDocument, did_you_mean, excerpt, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping


_COMMAND = "config set"


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What ``config migrate`` did.

    Attributes:
        backup: Copy of the file as it was; ``None`` where there was none or nothing was changed.
        renamed: Old key -> dotted new key.
        dropped: Keys that had a value and have no use here.
        nodes_from: The older nodes file, where its nodes were taken over.
    """

    path: Path
    backup: Path | None = None
    changed: bool = False
    renamed: Mapping[str, str] | None = None
    dropped: tuple[str, ...] = ()
    nodes_from: Path | None = None

    def lines(self) -> tuple[str, ...]:
        """Return the report for a person, a line each."""
        if not self.changed:
            return (f"{self.path}: nothing to migrate",)
        lines = [f"{self.path}: written in the new form"]
        lines += [f"  {old} -> {new}" for old, new in (self.renamed or {}).items()]
        lines += [f"  nodes taken over from {self.nodes_from}"] if self.nodes_from else []
        lines += [f"  dropped: {', '.join(self.dropped)}"] if self.dropped else []
        lines += [f"  backup: {self.backup}"] if self.backup else []
        return tuple(lines)


def set_value(path: Path, key: str, raw: str) -> None:
    """Set one setting, or one entry of a table, in a settings file; every other key stays as it is.

    Args:
        path: The file; it is created if there is none.
        key: A setting, or ``table.entry``.
        raw: The value as ``--set`` takes it.

    Raises:
        ConfigError: If key or value is wrong, or if the file is or would be; nothing is then written.
    """
    layer = argument_layer([f"{key}={raw}"], source=_COMMAND)
    if layer.problems:
        raise ConfigError.of(layer.problems)
    given = anchored(layer.givens[0], Path())
    with only_writer(path):
        document = read_settings_file(path)
        old: dict[str, Any] = {} if document is None else document.value
        new = _renamed(old, given.path[0])
        _store(new, given)
        refuse_mistakes(JsonDocument(str(path), new, _positions(document), document.problems if document else ()))
        write_settings_file(path, new, before=document)


def unset_value(path: Path, key: str) -> bool:
    """Remove a setting, or one entry of a table, from a settings file, under whatever name it stands there.

    Returns:
        Whether there was anything to remove; nothing is written otherwise.

    Raises:
        ConfigError: If the file is broken, or would still have a mistake; nothing is then written.
    """
    with only_writer(path):
        return _unset(path, key)


def migrate(path: Path) -> MigrationReport:
    """Write a settings file of the older program in the new form, beside a backup of the old.

    The nodes of ``~/.synapticllamas_nodes.json`` are taken over where ``path`` is the user's own file and has none.
    A file that is in the new form already is left as it is.

    Raises:
        ConfigError: If a file has a mistake, or cannot be written.
    """
    document = read_settings_file(path)
    at_home = is_user_file(path)
    if document is None and not at_home:
        raise ConfigError.of([Problem("there is no such file", str(path), suggestion="check the path")])
    old: dict[str, Any] = {} if document is None else document.value
    if document is not None:
        refuse_mistakes(document)
    nodes = old_nodes() if at_home and "nodes" not in old else None
    weak = {
        key for key, successor in MAPPED.items() if successor.weak and nodes is not None and old.get(key) is not None
    }
    new, renamed, dropped = modern_settings({key: value for key, value in old.items() if key not in weak})
    if nodes is not None:
        new["nodes"] = modern_nodes(nodes.value["nodes"])
    if new == old:
        return MigrationReport(path)
    refuse_mistakes(JsonDocument(str(path), new))
    backup = None if document is None else back_up(path)
    write_settings_file(path, new, before=document)
    lost = nodes_file_values(nodes).ignored if nodes is not None else ()
    return MigrationReport(
        path,
        backup,
        changed=True,
        renamed=renamed,
        dropped=(*dropped, *sorted(weak), *(f"{key} of nodes" for key in lost)),
        nodes_from=paths.user_nodes_file() if nodes is not None else None,
    )


def is_user_file(path: Path) -> bool:
    """Return whether ``path`` is the settings file at home."""
    return os.path.realpath(path) == os.path.realpath(paths.user_settings_file())


def old_nodes() -> JsonDocument | None:
    """Return the nodes file of the older program, if it is there and names a node.

    Raises:
        ConfigError: If it has a mistake.
    """
    document = read_settings_file(paths.user_nodes_file())
    if document is None:
        return None
    layer = legacy_layer(document.source, nodes_file_values(document))
    if layer.problems:
        raise ConfigError.of(layer.problems)
    return document if layer.givens else None


def refuse_mistakes(document: JsonDocument) -> None:
    """Check a settings file.

    Raises:
        ConfigError: With every mistake in it.
    """
    problems = file_layer(document).problems
    if problems:
        raise ConfigError.of(problems)


def _unset(path: Path, key: str) -> bool:
    document = read_settings_file(path)
    old: dict[str, Any] = {} if document is None else document.value
    name, _, entry = key.partition(".")
    target = (ALIASES.get(name, name), *([entry] if entry else []))
    if key not in old and target[0] not in Settings.model_fields and key not in MAPPED:
        raise ConfigError.of(
            [
                Problem(
                    f"unknown setting {excerpt(key)!r}",
                    "config unset",
                    suggestion=did_you_mean(key, Settings.model_fields, listing=WHERE_LISTED),
                )
            ]
        )
    new = {old_key: value for old_key, value in old.items() if old_key != key and not _means(old_key, target)}
    table = new.get(target[0])
    if entry and isinstance(table, dict) and entry in table:
        new[target[0]] = {other: value for other, value in table.items() if other != entry}
        if not new[target[0]]:
            del new[target[0]]
    if document is None or new == old:
        return False
    refuse_mistakes(JsonDocument(document.source, new, document.positions, document.problems))
    write_settings_file(path, new, before=document)
    return True


def _positions(document: JsonDocument | None) -> Any:
    return {} if document is None else document.positions


def _renamed(old: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the file with ``name`` under its own name, where it stood under an alias."""
    aliases = {alias for alias, now in ALIASES.items() if now == name}
    if name in old:
        return {key: value for key, value in old.items() if key not in aliases}
    return {name if key in aliases else key: value for key, value in old.items()}


def _store(new: dict[str, Any], given: Given) -> None:
    name, *entry = given.path
    if entry:
        table = new.get(name)
        new[name] = {**(table if isinstance(table, dict) else {}), entry[0]: given.value}
    elif isinstance(given.value, list):
        # Elements may have been given in short; the file gets them in full.
        settings = Settings.model_validate({name: given.value})
        new[name] = settings.model_dump(mode="json", include={name}, exclude_unset=True)[name]
    else:
        new[name] = given.value


def _means(key: str, target: tuple[str, ...]) -> bool:
    """Whether a file's key gives ``target``, or a part of it, under any name."""
    path = MAPPED[key].path if key in MAPPED else (ALIASES.get(key, key),)
    return path[: len(target)] == target


_LEGACY_URL = "ollama_url"


@dataclass(frozen=True, slots=True)
class AddedNode:
    """What was done.

    Attributes:
        before: How many there were, those that were taken over included.
        taken_over: The older file or key that had them, "" if none.
    """

    node: NodeSettings
    before: int
    taken_over: str


def written_url(text: str) -> str:
    """Return the address that a person typed in its one form; ``desk`` and ``10.0.0.2:11434`` mean http.

    Raises:
        ConfigError: If it is not an address.
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
        ConfigError: If a value is wrong, two of them do not go together, or its ``ca_file`` cannot be used.
    """
    given = {key: value for key, value in entry.items() if value is not None}
    problems = problems_of(Given(("nodes",), [given], "", Form.FILE))
    if problems:
        raise ConfigError.of([replace(problem, source=None, message=_plain(problem.message)) for problem in problems])
    node = NodeSettings.model_validate(given)
    if node.ca_file is not None:
        authorities_file(node.ca_file)
    return node


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

    ``where`` is for the error: ``in FILE``.

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
    write_settings_file(path, settings, before=document)
