"""``synaptic models``: which models can be asked, and fetching one."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from synaptic.backends.ollama import default_url, pull_model
from synaptic.backends.pool import certificates, node_headers
from synaptic.models import MODEL_NAME, ensure_model, name_key
from synaptic.runtime import BackendReported, Session
from synaptic.ui.actions import show_models
from synaptic.ui.commands.support import CliVoice, load
from synaptic.ui.options import given, json_option, settings_options
from synaptic.ui.screen import make_renderer, place, show_hint, stderr_console, write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from synaptic.messages import BackendReport, ModelInfo, Route
    from synaptic.settings import Settings


@click.group()
def models() -> None:
    """List the models there are, or fetch one."""


@models.command("list")
@settings_options
@json_option
@click.pass_context
def list_models(context: click.Context, /, **values: Any) -> None:
    """List the models of the backend that would answer a question; * marks the one that would."""
    options = given(context, **values)
    route, found = asyncio.run(_ask(load(options).settings))
    if options.json:
        write_json({"route": asdict(route), "models": [asdict(model) for model in found]})
        return
    show_models(CliVoice(options), found, route.model)
    if not options.quiet:
        show_hint(stderr_console(), f"questions go to {place(route.backend, route.model, route.node)}: {route.reason}")


@models.command(epilog="As in: synaptic models pull llama3.1:8b")
@click.argument("name", required=False)
@settings_options
@click.pass_context
def pull(context: click.Context, /, name: str | None, **values: Any) -> None:
    """Fetch a model into Ollama; without NAME, the small embedded one into the cache."""
    options = given(context, **values)
    settings = load(options).settings
    renderer = make_renderer(console=stderr_console(), out=sys.stdout, quiet=options.quiet, answer=False)
    embedded = name is None or name_key(name) in {name_key(MODEL_NAME), name_key(MODEL_NAME.partition(":")[0])}

    def report(event: BackendReport) -> None:
        renderer.handle(BackendReported(event))

    try:
        done = asyncio.run(_fetch_embedded(report) if embedded else _fetch_ollama(name or "", settings, report))
    finally:
        renderer.close()
    write_text(done)


async def _ask(settings: Settings) -> tuple[Route, list[ModelInfo]]:
    async with Session(settings) as session:
        return await session.route(), await session.models()


async def _fetch_embedded(report: Callable[[BackendReport], None]) -> str:
    return f"{await ensure_model(report)}"


async def _fetch_ollama(name: str, settings: Settings, report: Callable[[BackendReport], None]) -> str:
    if not settings.nodes:
        url = default_url(os.environ)
        await pull_model(url, name, report)
        return f"{name} is on {url}"

    node = settings.nodes[0]
    url = node.url
    await pull_model(url, name, report, headers=node_headers(node, os.environ), ca_file=certificates(node))
    return f"{name} is on {url}"
