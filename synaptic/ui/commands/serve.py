"""``synaptic serve``: one address in front of whatever the settings choose, for programs of this machine."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from synaptic import paths
from synaptic.backends import BackendNames
from synaptic.errors import ModelFileError, UsageError
from synaptic.messages import BackendNotice
from synaptic.models import ModelStore
from synaptic.pipeline import Pipeline, builtin_pipelines
from synaptic.server.gateway import KeyFile, TlsFiles, check_allowed_host, check_allowed_origin
from synaptic.server.ollama_api import ServeSettings, check_alias, check_host, check_keep_alive, from_environment
from synaptic.server.program import serve as run_server
from synaptic.settings import MOST_THREADS, settings_path
from synaptic.shared_bounds import LONGEST_CONTEXT
from synaptic.text import did_you_mean
from synaptic.ui.commands.support import load, note
from synaptic.ui.options import settings_options, with_options
from synaptic.ui.screen import show_notices, stderr_console

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from synaptic.messages import BackendReport
    from synaptic.settings import Settings
    from synaptic.ui.options import Options

_EPILOG = """\b
Defaults come from the variables that Ollama itself reads: OLLAMA_NUM_PARALLEL,
OLLAMA_MAX_QUEUE, OLLAMA_CONTEXT_LENGTH, OLLAMA_KEEP_ALIVE, OLLAMA_MAX_LOADED_MODELS,
OLLAMA_ORIGINS.

As in: synaptic serve --port 11500 --parallel 2"""


@click.command(epilog=_EPILOG)
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    help="Where to listen; here only, without keys.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=11434, help="Port to listen at; 0 finds a free one.")
@click.option("--backend", metavar="NAME", help="What serves: embedded, ollama, ...; else the settings choose.")
@click.option(
    "--drain",
    type=click.FloatRange(0, 3600),
    help="Seconds that replies under way get at the end. [30; 0.1 for the embedded model]",
)
@click.option(
    "--pipeline",
    "own_pipelines",
    metavar="FILE",
    multiple=True,
    help="A pipeline to serve as a model, too; repeatable.",
)
@click.option(
    "--keys/--no-keys", default=None, help="Whether clients must bring a key; else they must once there is one."
)
@click.option("--cert", metavar="FILE", help="A certificate in PEM: connections are encrypted with it.")
@click.option("--key", "private_key", metavar="FILE", help="The private key of the certificate, in PEM.")
@click.option("--no-pipelines", is_flag=True, help="Serve no pipelines as models.")
@click.option("--parallel", type=click.IntRange(1, 64), help="Calls at once for each model; more wait. [1]")
@click.option("--max-queue", type=click.IntRange(0, 1_000_000), help="Calls that may wait while a model loads. [512]")
@click.option(
    "--context",
    "num_ctx",
    type=click.IntRange(1, LONGEST_CONTEXT),
    help="Tokens of context where a call does not say. [4096]",
)
@click.option("--keep-alive", metavar="DURATION", help="How long an unused model stays: 5m, seconds, -1 for ever. [5m]")
@click.option("--threads", type=click.IntRange(1, MOST_THREADS), help="Threads that compute, for each model.")
@click.option("--alias", "aliases", metavar="NAME", multiple=True, help="Another name for the model; repeatable.")
@click.option("--allow-host", "hosts", metavar="NAME", multiple=True, help="A name that callers may use; repeatable.")
@click.option("--allow-origin", "origins", metavar="ORIGIN", multiple=True, help="Whose web pages may ask; repeatable.")
@settings_options
@with_options
def serve(options: Options, **values: Any) -> None:
    """Serve what the settings choose, through the APIs of Ollama, OpenAI and Anthropic.

    Options of a model (--parallel to --alias) are for the embedded one.
    """
    chosen = _chosen(options, values["backend"])
    pipelines = served_pipelines(values["own_pipelines"], builtin=not values["no_pipelines"])
    settings = replace(serve_settings(values, chosen.embedded_threads), pipelines=pipelines)
    store = ModelStore()

    def ready(url: str, name: str) -> None:
        if name == "embedded" and chosen.embedded_model is None and (missing := why_missing(store)) is not None:
            show_notices(stderr_console(), [missing])
        note(options, f"serving at {url} ({name}; Ctrl-C ends it)")

    def report(told: BackendReport) -> None:
        if isinstance(told, BackendNotice):
            show_notices(stderr_console(), [told.message])

    at_terminal = sys.stdin is not None and sys.stdin.isatty()  # whose end ends it: it sends SIGHUP, too
    again = None if at_terminal else partial(settings_again, options, values["backend"], _file_of(options))
    asyncio.run(run_server(settings, chosen, store, ready, report, again=again))


def _chosen(options: Options, backend: str | None) -> Settings:
    settings = load(options).settings
    if backend is None:
        return settings
    if backend not in BackendNames():
        raise UsageError(f"--backend {backend}: there is no such backend", hint=did_you_mean(backend, BackendNames()))
    return settings.model_copy(update={"backend": backend})


def _file_of(options: Options) -> Path | None:
    """Return the file of the user's settings; ``None`` where there is none."""
    file = settings_path(options.config_path)
    return file if file.exists() else None


def settings_again(options: Options, backend: str | None, file: Path | None) -> Settings:
    """Return the settings as they are now; a file that was there is not taken for one that says nothing.

    Raises:
        UsageError: If it is gone.
        ConfigError: If anything in the settings is wrong.
    """
    if file is not None and _file_of(options) is None:
        raise UsageError(f"{file} is gone", hint="put it back; or start again without it")
    return _chosen(options, backend)


def served_pipelines(files: Sequence[str], *, builtin: bool) -> dict[str, str | Path]:
    """Return the pipelines that are served as models: the built-in ones, and files under the names that they have.

    Raises:
        PipelineError: If a file is none.
    """
    served: dict[str, str | Path] = {name: name for name in builtin_pipelines()} if builtin else {}
    for file in files:
        path = paths.expanded(file)
        Pipeline.load(path)
        served[path.stem] = path
    return served


def why_missing(store: ModelStore) -> str | None:
    """Return why the model cannot be served, and what to do; ``None`` if it can."""
    try:
        store.check()
    except ModelFileError as error:
        return f"{error.message}; {error.hint}"
    return None if store.has_model() else f"{store.artifact.title} is not here yet: synaptic models pull"


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
    chosen["hosts"] = frozenset(check_allowed_host(host) for host in values["hosts"])
    chosen["origins"] = chosen.get("origins", frozenset()) | {check_allowed_origin(text) for text in values["origins"]}
    if values["drain"] is not None:
        chosen["drain"] = values["drain"]
    aliases = tuple(check_alias(alias) for alias in values["aliases"])
    keys = KeyFile()
    demanded = keys.has_any if values["keys"] is None else values["keys"]
    host = check_host(values["host"], keys=demanded)
    chosen["tls"] = tls_files(values["cert"], values["private_key"])
    return ServeSettings(host=host, port=values["port"], aliases=aliases, keys=keys if demanded else None, **chosen)


def tls_files(cert: str | None, key: str | None) -> TlsFiles | None:
    """Return what connections are encrypted with; ``None`` where that is not asked for.

    Raises:
        UsageError: If one of both is missing, or wrong.
    """
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        given, missing = ("--key", "--cert") if cert is None else ("--cert", "--key")
        raise UsageError(f"{given} needs {missing}", hint="a certificate serves with its private key only")
    return TlsFiles(paths.expanded(cert), paths.expanded(key))
