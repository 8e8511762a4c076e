"""``synaptic serve``: the embedded model behind Ollama's API, for programs of this machine."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import click

from synaptic.models import ModelStore
from synaptic.server.ollama_api import ServeSettings, check_alias, check_host, check_keep_alive, from_environment
from synaptic.server.ollama_api import serve as run_server
from synaptic.ui.commands.support import load, note
from synaptic.ui.options import given, settings_options
from synaptic.ui.screen import show_notices, stderr_console

_EPILOG = """\b
Defaults come from the variables that Ollama itself reads: OLLAMA_NUM_PARALLEL,
OLLAMA_MAX_QUEUE, OLLAMA_CONTEXT_LENGTH, OLLAMA_KEEP_ALIVE, OLLAMA_MAX_LOADED_MODELS.

As in: synaptic serve --port 11500 --parallel 2"""


@click.command(epilog=_EPILOG)
@click.option("--api", type=click.Choice(["ollama"]), default="ollama", help="Whose API to speak.")
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", help="Where to listen; this machine only.")
@click.option("--port", type=click.IntRange(0, 65535), default=11434, help="Port to listen at; 0 finds a free one.")
@click.option("--parallel", type=click.IntRange(1, 64), help="Calls at once for each model; more wait. [1]")
@click.option("--max-queue", type=click.IntRange(0), help="Calls that may wait while a model loads. [512]")
@click.option(
    "--context", "num_ctx", type=click.IntRange(1), help="Tokens of context where a call does not say. [4096]"
)
@click.option("--keep-alive", metavar="DURATION", help="How long an unused model stays: 5m, seconds, -1 for ever. [5m]")
@click.option("--threads", type=click.IntRange(1), help="Threads that compute, for each model.")
@click.option("--alias", "aliases", metavar="NAME", multiple=True, help="Another name for the model; repeatable.")
@settings_options
@click.pass_context
def serve(context: click.Context, /, **values: Any) -> None:
    """Serve the embedded model through Ollama's API, on this machine only."""
    options = given(context, **values)
    settings = serve_settings(values, load(options).settings.embedded_threads)
    store = ModelStore()
    if not store.has_model():
        show_notices(stderr_console(), [f"{store.artifact.title} is not here yet: synaptic models pull"])
    asyncio.run(run_server(settings, store, lambda url: note(options, f"serving at {url} (Ctrl-C ends it)")))


def serve_settings(values: dict[str, Any], threads: int | None = None) -> ServeSettings:
    """Return how to serve: the options that were given, else Ollama's variables, else Ollama's defaults.

    Raises:
        UsageError: If an option or a variable is wrong.

    """
    chosen: dict[str, Any] = {"threads": threads or 0, **from_environment(os.environ)}
    options = {"parallel": "parallel", "max_queue": "max_queue", "num_ctx": "context", "threads": "threads"}
    chosen |= {field: values[name] for name, field in options.items() if values[name] is not None}
    if values["keep_alive"] is not None:
        chosen["keep_alive"] = check_keep_alive(values["keep_alive"])
    aliases = tuple(check_alias(alias) for alias in values["aliases"])
    return ServeSettings(host=check_host(values["host"]), port=values["port"], aliases=aliases, **chosen)
