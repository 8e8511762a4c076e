"""``synaptic models``: which models can be asked, and fetching one."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from synaptic.backends.ollama import default_url, pull_model
from synaptic.backends.pool import certificates, node_headers
from synaptic.errors import ExitCode, ModelNotFound
from synaptic.models import MODEL_NAME, ModelStore, did_you_mean_model, name_key, verify_models
from synaptic.runtime import Session
from synaptic.ui.actions import doubts_about, show_model, show_models
from synaptic.ui.commands.support import CliVoice, load, progress
from synaptic.ui.options import json_option, settings_options, with_options
from synaptic.ui.screen import place, show_hint, stderr_console, write_json, write_text

if TYPE_CHECKING:
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
@settings_options
@with_options
def pull(options: Options, name: str | None) -> None:
    """Fetch a model into Ollama; without NAME, the small embedded one into the cache.

    Where the embedded one is damaged, it is fetched again, and the damaged file gets another name.
    """
    settings = load(options).settings
    embedded = name is None or name_key(name) in {name_key(MODEL_NAME), name_key(MODEL_NAME.partition(":")[0])}
    with progress(options) as report:
        done = asyncio.run(_fetch_embedded(report) if embedded else _fetch_ollama(name or "", settings, report))
    write_text(done)


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


async def _fetch_embedded(report: Reporter) -> str:
    return f"{await ModelStore().pull(report)}"


async def _fetch_ollama(name: str, settings: Settings, report: Reporter) -> str:
    if not settings.nodes:
        url = default_url(os.environ)
        await pull_model(url, name, report)
        return f"{name} is on {url}"

    node = settings.nodes[0]
    url = node.url
    await pull_model(url, name, report, headers=node_headers(node, os.environ), ca_file=certificates(node))
    return f"{name} is on {url}"
