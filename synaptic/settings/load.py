"""Settings: flag > ``--set`` > environment > project file > user file > default; each value knows its origin.

One setting is taken whole from the highest source that gives it. The tables, such as ``agent_models``
and ``pipeline_inputs``, are the exception: files and ``--set table.entry=value`` add to them entry by entry.
Every source is checked in full before anything is used, so one error lists all that is wrong.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import TYPE_CHECKING, Any

from synaptic import paths
from synaptic.errors import ConfigError, Problem
from synaptic.settings.alias_names import LOOP_HINT, alias_key, alias_loop, loop_said
from synaptic.settings.anchored import anchored
from synaptic.settings.authorities import authorities_file
from synaptic.settings.check import problem_at
from synaptic.settings.file import misnamed, read_settings_file
from synaptic.settings.legacy import ALIASES, nodes_file_values
from synaptic.settings.model import Settings
from synaptic.settings.sources import (
    Layer,
    argument_layer,
    environment_layer,
    file_layer,
    flag_layer,
    legacy_layer,
)
from synaptic.settings.untrusted import folder_layer
from synaptic.text import legible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from synaptic.settings.check import Given

CONFIG_FILE_VARIABLE = "SYNAPTIC_CONFIG_FILE"
DEFAULT_ORIGIN = "default"
SESSION_ORIGIN = "/set"


@dataclass(frozen=True)
class LoadedSettings:
    """Settings and where they came from.

    Attributes:
        origins: Every setting -> where its value came from: ``default``, ``FILE:LINE``, ``FILE:LINE (OLD KEY)``,
            ``SYNAPTIC_MODEL``, ``--set``, ``-m``. A table with entries of several sources names each with its entries.
        notices: What a person should know, one line each: an alias in use, keys that were ignored.
        left_out: One line that says what of the working directory's file does not count, because it is not trusted,
            and which file is not read, because its name is not that of settings; "" where all counts.
    """

    settings: Settings
    origins: Mapping[str, str]
    notices: tuple[str, ...] = ()
    left_out: str = ""


def settings_path(config_path: Path | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """Return the file that holds the user's settings: ``--config``, ``SYNAPTIC_CONFIG_FILE`` or the one at home."""
    chosen = _chosen_path(config_path, os.environ if environ is None else environ)
    return paths.user_settings_file() if chosen is None else chosen


def load_settings(
    *,
    config_path: Path | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, tuple[str, Any]] = MappingProxyType({}),
    changes: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> LoadedSettings:
    """Read every source and return the settings that apply.

    Args:
        config_path: The file to read instead of the user's; it must exist. The older nodes file is then not read.
        overrides: ``KEY=VALUE`` of each ``--set``.
        flags: Setting -> (flag, value) of flags that have a setting; a value of ``None`` was not given.
        changes: ``KEY=VALUE`` of what was set since the start, with ``/set``; they go before all others.
        environ: The environment; the process's own unless given.
        cwd: Where the project file is looked for; the working directory unless given.

    Raises:
        ConfigError: If anything is wrong anywhere; ``problems`` has every mistake with its place.
    """
    _refuse_others(config_path, overrides, flags)
    variables = os.environ if environ is None else environ
    chosen = _chosen_path(config_path, variables)
    own_file = chosen or _at_home(paths.user_settings_file)
    project, left_out = folder_layer(cwd or Path(), own_file, variables)
    layers = [
        _file_layer(own_file, must_exist=chosen is not None),
        project,
        environment_layer(variables),
        argument_layer(overrides),
        flag_layer(flags),
        argument_layer(changes, source=SESSION_ORIGIN),
    ]
    if chosen is None and not any(_gives_nodes(layer) for layer in layers):
        layers.insert(0, _nodes_layer())
    problems = [problem for layer in layers for problem in layer.problems] or [
        *_unusable_files(layers),
        *_looping_aliases(layers),
    ]
    if problems:
        raise ConfigError.of(problems)
    unread = [] if chosen is not None else _misnamed(cwd or Path(), own_file)
    return replace(_merge(layers), left_out="; ".join(filter(None, [*unread, left_out])))


def _refuse_others(config_path: object, overrides: object, flags: object) -> None:
    """Refuse what a program gives that is of another kind."""
    if not isinstance(config_path, (str, os.PathLike, NoneType)):
        raise ConfigError.of_kind("config_path", config_path, "the path of a file")
    texts = isinstance(overrides, (list, tuple)) and all(isinstance(each, str) for each in overrides)
    if not texts:
        raise ConfigError.of_kind("overrides", overrides, "a list of texts, as in ['retries=1']")
    if not isinstance(flags, Mapping):
        raise ConfigError.of_kind("flags", flags, "a mapping, as in {'model': ('-m', 'llama3.2')}")


def describe(loaded: LoadedSettings) -> list[tuple[str, Any, str]]:
    """Return (setting, value as JSON has it, origin) of every setting, in the order of the reference."""
    values = loaded.settings.model_dump(mode="json")
    # For a node or worker only the keys that are set are listed; for the settings themselves, all of them.
    machines = {"nodes", "rpc_backends"}
    values |= loaded.settings.model_dump(mode="json", include=machines, exclude_none=True)
    return [(name, values[name], loaded.origins[name]) for name in Settings.model_fields]


def _chosen_path(config_path: Path | None, environ: Mapping[str, str]) -> Path | None:
    named = config_path or environ.get(CONFIG_FILE_VARIABLE)
    if not named:
        return None
    return paths.expanded(named)


def _at_home(path_of: Any) -> Path | None:
    """Return a path below the home directory, or ``None`` where the user has no home."""
    try:
        path: Path = path_of()
    except RuntimeError:
        return None
    return path


def _misnamed(folder: Path, own_file: Path | None) -> Iterator[str]:
    """Yield what to say of files that were meant as settings, but are called otherwise."""
    project = folder / paths.project_settings_file()
    at_home = own_file is not None and paths.resolved(folder) == paths.resolved(own_file.parent)
    if not at_home and (name := misnamed(project)):
        yield f"./{legible(name)} is not read: settings of a folder are called ./{project.name}"
    if own_file is not None and not os.path.lexists(project if at_home else own_file) and (name := misnamed(own_file)):
        yield f"~/{legible(name)} is not read: your settings are called ~/{own_file.name}"


def _file_layer(path: Path | None, *, must_exist: bool) -> Layer:
    if path is None:
        return Layer()
    try:
        document = read_settings_file(path)
    except ConfigError as exc:
        return Layer(problems=exc.problems)
    if document is not None:
        layer = file_layer(document)
        return replace(layer, givens=tuple(anchored(given, path.parent) for given in layer.givens))
    if not must_exist:
        return Layer()
    missing = Problem("there is no such file", str(path), suggestion="check the path")
    return Layer(problems=(missing,))


def _nodes_layer() -> Layer:
    path = _at_home(paths.user_nodes_file)
    try:
        document = read_settings_file(path) if path is not None else None
    except ConfigError as exc:
        return Layer(problems=exc.problems)
    return Layer() if document is None else legacy_layer(document.source, nodes_file_values(document))


def _gives_nodes(layer: Layer) -> bool:
    return any(given.path == ("nodes",) and not given.weak for given in layer.givens)


def _unusable_files(layers: Sequence[Layer]) -> Iterator[Problem]:
    """Yield what is wrong with the files of certificates that the nodes name, of those nodes that apply."""
    strong = any(_gives_nodes(layer) for layer in layers)
    givens = [given for layer in layers for given in layer.givens if given.path == ("nodes",)]
    applying = [given for given in givens if not (given.weak and strong)]
    if not applying:
        return
    given = applying[-1]
    for index, node in enumerate(Settings.model_validate({"nodes": given.value}).nodes):
        if node.ca_file is None:
            continue
        try:
            authorities_file(node.ca_file)
        except ConfigError as exc:
            yield problem_at(given, f"nodes[{index}].ca_file: {exc.message}", exc.hint, (index, "ca_file"))


def _looping_aliases(layers: Sequence[Layer]) -> Iterator[Problem]:
    """Yield what is wrong with aliases that lead back to themselves, or are one and the same, across all sources."""
    givens = [given for layer in layers for given in layer.givens if given.path[0] == "aliases"]
    aliases: dict[str, tuple[Given, list[str]]] = {}
    for given in givens:
        if len(given.path) == 1:
            aliases = {alias: (given, models) for alias, models in given.value.items()}
        else:
            aliases[given.path[1]] = (given, given.value)
    twins: dict[str, str] = {}
    for alias, (given, _) in aliases.items():
        if (other := twins.setdefault(alias_key(alias), alias)) != alias:
            yield problem_at(given, f"aliases.{alias} and aliases.{other} are one name", "remove one of them")
            return
    if loop := alias_loop({alias: models for alias, (_, models) in aliases.items()}):
        first = next(alias for alias in aliases if alias_key(alias) == alias_key(loop[0]))
        yield problem_at(aliases[first][0], f"aliases.{first} {loop_said(loop)}", LOOP_HINT)


def _merge(layers: Sequence[Layer]) -> LoadedSettings:
    """Return what the layers give together; the last one is the highest."""
    strong_nodes = any(_gives_nodes(layer) for layer in layers)
    values: dict[str, Any] = {}
    contributions: dict[str, list[Given]] = {}
    for given in (given for layer in layers for given in layer.givens):
        if given.weak and strong_nodes:
            continue
        name, *entry = given.path
        if entry:
            values[name] = {**values.get(name, {}), entry[0]: given.value}
            others = [other for other in contributions.get(name, []) if other.path != given.path]
            contributions[name] = [*others, given]
        else:
            values[name] = given.value
            contributions[name] = [given]
    origins = {
        name: _origin(contributions[name]) if name in contributions else DEFAULT_ORIGIN
        for name in Settings.model_fields
    }
    return LoadedSettings(Settings.model_validate(values), MappingProxyType(origins), _notices(layers))


def _origin(contributions: Iterable[Given]) -> str:
    entries: dict[str, list[str]] = {}
    for given in contributions:
        entries.setdefault(given.origin, []).extend([] if given.renamed else given.path[1:])
    if len(entries) == 1:
        return next(iter(entries))
    return ", ".join(f"{origin} ({', '.join(names)})" if names else origin for origin, names in entries.items())


def _notices(layers: Sequence[Layer]) -> tuple[str, ...]:
    givens = [given for layer in layers for given in layer.givens]
    aliases = [
        f"{given.place}: {given.written[0]} is the older name of {given.path[0]}"
        for given in givens
        if given.written and given.written[0] in ALIASES
    ]
    ignored: dict[str, list[str]] = {}
    for source, key in (pair for layer in layers for pair in layer.ignored):
        ignored.setdefault(source, []).append(key)
    if not ignored:
        return tuple(aliases)
    named = ", ".join(f"{source} ({', '.join(keys)})" for source, keys in ignored.items())
    advice = "'synaptic config migrate' writes the new form"
    return (*aliases, f"settings of the older program that have no use here are ignored: {named}; {advice}")
