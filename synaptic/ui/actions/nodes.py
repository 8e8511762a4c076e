"""What can be done with nodes, for the command line and for the prompt alike: they differ in how they ask and print."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from synaptic.backends.ollama import local_node
from synaptic.backends.pool import (
    FoundNode,
    Inspection,
    inspect_node,
    inspect_nodes,
    once_notice,
    one_server_twice,
    scan,
)
from synaptic.errors import BackendUnavailable, ConfigError, ExitCode
from synaptic.settings import (
    NodeSettings,
    add_node,
    find_node,
    read_node,
    refuse_twin,
    remove_node,
    stored_nodes,
    written_url,
)
from synaptic.text import plural
from synaptic.ui.screen import check_lines, models_word, status_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from synaptic.backends.pool import AddressRange, NodeStatus
    from synaptic.settings import AddedNode, LoadedSettings, Settings
    from synaptic.ui.actions.voice import Voice


def named_nodes(settings: Settings, environ: Mapping[str, str]) -> list[NodeSettings]:
    """Return the nodes of the settings; where there are none, the local one that is used instead."""
    return list(settings.nodes) or [local_node(environ)]


def chosen_nodes(settings: Settings, which: Sequence[str], environ: Mapping[str, str]) -> list[NodeSettings]:
    """Return the nodes that are named, by name or address; all of them where none is. Other addresses are taken, too.

    Raises:
        ConfigError: If a name is of no node.
    """
    if not which:
        return named_nodes(settings, environ)
    return [_chosen(settings, word) for word in which]


def verdict(inspections: Sequence[Inspection]) -> ExitCode:
    """Return the exit code of a check: all are well, some are, or none is."""
    well = sum(inspection.well for inspection in inspections)
    if well == len(inspections):
        return ExitCode.ANSWERED
    return ExitCode.FAILED if well else ExitCode.NO_BACKEND


async def show_settings(voice: Voice, loaded: LoadedSettings, environ: Mapping[str, str]) -> None:
    """Print the nodes of the settings, and which of them are one; none is contacted."""
    nodes = loaded.settings.nodes
    if not nodes:
        local = local_node(environ)
        voice.note(f"no nodes are named: an Ollama at {local.url} is used if one answers")
        voice.note("to name one: synaptic nodes add http://10.0.0.2:11434")
        return
    voice.table([_settings_row(node) for node in nodes], ("node", "url", "parallel", "memory", "access"))
    for index, first in (await one_server_twice([node.url for node in nodes])).items():
        voice.warn(once_notice(nodes[index].url, nodes[first].url, nodes[first].shown))
    voice.note(f"from {loaded.origins['nodes']}; how they are: synaptic nodes check")


def show_statuses(voice: Voice, statuses: Sequence[NodeStatus], width: int | None = None) -> None:
    """Print the table of how nodes stand, and what to do about those that are of no use."""
    headers, rows = status_table(statuses, width)
    voice.table(rows, headers)
    for status in statuses:
        if status.hint:
            voice.note(f"{status.name}: {status.hint}")


async def check(
    voice: Voice, settings: Settings, which: Sequence[str], environ: Mapping[str, str]
) -> tuple[list[Inspection], ExitCode]:
    """Look at nodes, print what that told, and return it with the exit code.

    Raises:
        ConfigError: If a name is of no node.
    """
    inspections = await inspect_nodes(chosen_nodes(settings, which, environ), environ, settings)
    for inspection in inspections:
        for line in check_lines(inspection):
            voice.say(line)
        for notice in inspection.notices:
            voice.warn(notice)
    return inspections, verdict(inspections)


async def add(
    voice: Voice, path: Path, entry: Mapping[str, Any], environ: Mapping[str, str], *, look: bool = True
) -> AddedNode:
    """Write a node into the settings file at ``path``, after a look at whether an Ollama answers there.

    A key of ``entry`` that is ``None`` was not given; ``environ`` has its secret.

    Raises:
        ConfigError: If something in the entry or the file is wrong, or the node is there already.
        BackendError: If it cannot be used; nothing is then written.
    """
    node = read_node({**entry, "url": written_url(entry["url"])})
    refuse_twin(path, node)
    if look:
        inspection = await inspect_node(node, environ)
        _refuse_useless(inspection)
        for notice in inspection.notices:
            voice.warn(notice)
        voice.note(f"{node.url}: Ollama {inspection.version}, {models_word(inspection)}")
        if inspection.hint:
            voice.warn(inspection.hint)
    added = add_node(path, node)
    named = f"{node.name}, " if node.name else ""
    voice.note(f"{path}: added {named}{node.url}")
    if added.taken_over:
        voice.note(f"the {plural(added.before, 'node')} of {added.taken_over} stand in it now, too")
    known = stored_nodes(path)
    for index, first in (await one_server_twice([other.url for other in known])).items():
        if known[index].url == node.url:
            voice.warn(once_notice(node.url, known[first].url, known[first].shown))
    return added


def remove(voice: Voice, path: Path, which: str) -> NodeSettings:
    """Take a node out of the settings file at ``path``.

    Raises:
        ConfigError: If it is not in there, or the file has a mistake.
    """
    node = remove_node(path, which)
    voice.note(f"{path}: removed {f'{node.name}, ' if node.name else ''}{node.url}")
    return node


def mention_local(voice: Voice, added: AddedNode, environ: Mapping[str, str]) -> None:
    """Say so where the first node that is named takes the place of the local one."""
    local = local_node(environ)
    if not added.before and local.url != added.node.url:
        voice.note(f"only named nodes are used now; if {local.url} has an Ollama, too: synaptic nodes add {local.url}")


def announcement(found_in: AddressRange, port: int) -> str:
    """Return what a search will do, for the person who is asked whether it may."""
    count = "1 address" if len(found_in) == 1 else f"{len(found_in):,} addresses"
    public = ", which are on the internet" if found_in.is_public else ""
    asked = f"each is asked for its version at port {port}, and what answers for its models"
    return f"{count} ({found_in}){public}: {asked}"


async def discover(
    found_in: AddressRange, port: int, environ: Mapping[str, str], on_progress: Callable[[int], None]
) -> list[tuple[FoundNode, Inspection]]:
    """Return what speaks like Ollama in a range of addresses, with a look at each."""
    found: list[FoundNode] = []
    async with aclosing(scan(found_in, port, on_progress=on_progress)) as nodes:
        found += [node async for node in nodes]
    order = {f"http://{host}:{port}": index for index, host in enumerate(found_in)}
    found.sort(key=lambda node: order.get(node.url, 0))
    looks = await inspect_nodes([NodeSettings(url=node.url) for node in found], environ)
    return list(zip(found, looks, strict=True))


def show_found(voice: Voice, found: Sequence[tuple[FoundNode, Inspection]], known: Sequence[NodeSettings]) -> None:
    """Print what a search found."""
    urls = {node.url for node in known}
    rows = [
        (node.url, node.version or "?", "yes" if node.url in urls else "no", node.note or models_word(inspection))
        for node, inspection in found
    ]
    if rows:
        voice.table(rows, ("url", "version", "a node", "models"))


def add_found(voice: Voice, path: Path, found: Sequence[FoundNode]) -> int:
    """Write what a search found into the settings file; what is there already, or asks for credentials, is left out.

    Returns:
        How many were added.

    Raises:
        ConfigError: If the file has a mistake, or cannot be written.
    """
    count = 0
    for node in found:
        if node.version is None:
            voice.warn(f"{node.url} is not added: it asks for credentials; use 'nodes add' with --token-env")
            continue
        entry = NodeSettings(url=node.url)
        try:
            refuse_twin(path, entry)
        except ConfigError as exc:
            if exc.problems:
                raise
            continue
        added = add_node(path, entry)
        if added.taken_over:
            voice.note(f"the {plural(added.before, 'node')} of {added.taken_over} stand in {path} now, too")
        count += 1
    voice.note(f"{path}: {plural(count, 'node')} added")
    return count


def _chosen(settings: Settings, word: str) -> NodeSettings:
    try:
        return settings.nodes[find_node(settings.nodes, word, "in the settings")]
    except ConfigError:
        # What has a dot or a colon is an address, and may be looked at before it is added.
        if not any(mark in word for mark in ".:") and word != "localhost":
            raise
        return NodeSettings(url=written_url(word))


def _settings_row(node: NodeSettings) -> tuple[str, ...]:
    return (
        node.name or "",
        node.url,
        str(node.parallel),
        f"{node.memory_gib:g} GiB" if node.memory_gib is not None else "",
        access_words(node),
    )


def access_words(node: NodeSettings) -> str:
    """Return where the secret of a node is, never what it is."""
    parts = []
    if node.token_env or node.token_file:
        parts.append(f"token from {_holder(node.token_env, node.token_file)}")
    if node.username:
        parts.append(f"{node.username}, password from {_holder(node.password_env, node.password_file)}")
    if node.ca_file:
        parts.append(f"certificates of {node.ca_file}")
    return "; ".join(parts)


def _holder(variable: str | None, file: str | None) -> str:
    return f"${variable}" if variable else file or ""


def _refuse_useless(inspection: Inspection) -> None:
    """Raise what is wrong with a node that is about to be added; one without models is of use later."""
    error = inspection.error
    if error is None:
        return
    if isinstance(error, ConfigError):
        raise error
    hint = f"{error.hint} (--no-check adds it all the same)" if error.hint else "--no-check adds it all the same"
    raise BackendUnavailable(f"nothing was added: {error.message}", hint=hint, node=inspection.node.url) from error
