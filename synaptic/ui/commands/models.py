"""``synaptic models``: which models can be asked, and fetching one."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from synaptic.backends.ollama import default_url, pull_model
from synaptic.backends.pool import certificates, node_headers
from synaptic.errors import BackendError, ExitCode, ModelNotFound, UsageError
from synaptic.models import MODEL_NAME, ModelStore, did_you_mean_model, name_key, verify_models
from synaptic.runtime import Session
from synaptic.settings import NodeSettings, find_node
from synaptic.ui.actions import doubts_about, show_model, show_models
from synaptic.ui.commands.support import CliVoice, load, progress
from synaptic.ui.options import json_option, settings_options, with_options
from synaptic.ui.screen import place, show_error, show_hint, stderr_console, write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.messages import ModelInfo, Reporter, Route
    from synaptic.models import Verified
    from synaptic.settings import Settings
    from synaptic.ui.options import Options


_VERIFY_EPILOG = """\b
What a model's content is compared with is the digest that is pinned for the embedded
one, and for a file of Ollama or Hugging Face the one in its name. Any other file has
none: it is "unknown", and its SHA-256 is in the output of --json.

\b
Exit codes: 0 nothing is damaged, 1 a file is."""


@click.group()
def models() -> None:
    """List the models there are, show or fetch one, or verify what is on the disk."""


@models.command("list")
@settings_options
@json_option
@with_options
def list_models(options: Options) -> None:
    """List the models of the backend that would answer a question; * marks the one that would."""
    settings = load(options).settings
    route, found = asyncio.run(_ask(settings))
    doubts = doubts_about(found, route, settings)
    if options.json:
        told = [asdict(model) | {"doubt": doubts.get(model.name)} for model in found]
        write_json({"route": asdict(route), "models": told})
        return
    show_models(CliVoice(options), found, route.model, doubts)
    if not options.quiet:
        show_hint(stderr_console(), f"questions go to {place(route.backend, route.model, route.node)}: {route.reason}")


@models.command(epilog="As in: synaptic models show llama3.1:8b")
@click.argument("name")
@settings_options
@json_option
@with_options
def show(options: Options, name: str) -> None:
    """Show what is known of one model of the backend that would answer a question."""
    settings = load(options).settings
    route, found = asyncio.run(_ask(settings))
    model = next((each for each in found if name_key(each.name) == name_key(name)), None)
    if model is None:
        known = [each.name for each in found]
        hint = did_you_mean_model(name, known) or "'synaptic models list' shows those that are there"
        raise ModelNotFound(f"there is no model {name!r} at {place(route.backend, None, route.node)}", hint=hint)
    doubt = doubts_about([model], route, settings).get(model.name)
    asked = route.model is not None and name_key(route.model) == name_key(model.name)
    if options.json:
        write_json({**asdict(model), "route": asdict(route), "asked": asked, "doubt": doubt})
        return
    show_model(CliVoice(options), model, route, asked=asked)
    if doubt is not None:
        CliVoice(options).warn(f"{doubt}; synaptic models verify {model.name} reads it")


@models.command(epilog="As in: synaptic models pull llama3.1:8b")
@click.argument("name", required=False)
@click.option("--node", metavar="NODE", help="Fetch it on this node alone: its name or its address.")
@settings_options
@with_options
def pull(options: Options, name: str | None, node: str | None) -> None:
    """Fetch a model into Ollama, on every node that calls go to; without NAME, the small embedded one into the cache.

    Where the embedded one is damaged, it is fetched again, and the damaged file gets another name.
    """
    settings = load(options).settings
    embedded = name is None or name_key(name) in {name_key(MODEL_NAME), name_key(MODEL_NAME.partition(":")[0])}
    if embedded and node is not None:
        raise UsageError(f"the embedded model is not fetched on a node ({node})", hint="name another model")
    with progress(options) as report:
        if embedded:
            write_text(f"{asyncio.run(ModelStore().pull(report))}")
        else:
            asyncio.run(_fetch_ollama(name or "", _nodes_meant(settings, node), report))


@models.command(epilog=_VERIFY_EPILOG, short_help="Read the files of models, and compare their content.")
@click.argument("name", required=False)
@click.option("-q", "--quiet", is_flag=True, help="Show damage only.")
@json_option
@with_options
def verify(options: Options, name: str | None) -> int:
    """Read the model NAME on this machine, or a .gguf file, or all models, and compare them with their digests."""
    with progress(options) as report:
        found = asyncio.run(_verified(name, report))
    if options.json:
        write_json([asdict(one) | {"file": one.file and str(one.file)} for one in found])
    for one in () if options.json else found:
        if one.status == "damaged" or not options.quiet:
            write_text(f"{one.status:<8}{one.name}: {_where(one)}")
        if one.fix:
            write_text(f"{'':8}fix: {one.fix}")
    if not found and not options.quiet:
        show_hint(stderr_console(), "no model is on this machine")
    damaged = any(one.status == "damaged" for one in found)
    return int(ExitCode.FAILED if damaged else ExitCode.ANSWERED)


async def _verified(name: str | None, report: Reporter) -> list[Verified]:
    return [one async for one in verify_models(name, report)]


def _where(one: Verified) -> str:
    """Return which file was read, and what is to be said of it."""
    return ": ".join(str(part) for part in (one.file, one.detail) if part)


async def _ask(settings: Settings) -> tuple[Route, list[ModelInfo]]:
    async with Session(settings) as session:
        return await session.route(), await session.models()


def _nodes_meant(settings: Settings, which: str | None) -> list[NodeSettings]:
    """Return the node of that name or address, else all that calls go to."""
    nodes = settings.nodes or [NodeSettings(url=default_url(os.environ))]
    if which is not None:
        return [nodes[find_node(nodes, which, "in the settings")]]
    return nodes if settings.task_distribution_enabled else nodes[:1]


async def _fetch_ollama(name: str, nodes: Sequence[NodeSettings], report: Reporter) -> None:
    """Have a model fetched on some nodes, one after the other; one that fails does not keep the others from it.

    Raises:
        BackendError: That of the last one that failed; those before it have been shown.
    """
    failed: BackendError | None = None
    for node in nodes:
        try:
            headers = node_headers(node, os.environ)
            await pull_model(node.url, name, report, headers=headers, ca_file=certificates(node))
        except BackendError as error:
            if failed is not None:
                show_error(stderr_console(), failed)
            failed = error
        else:
            write_text(f"{name} is on {node.url}")
    if failed is not None:
        raise failed
