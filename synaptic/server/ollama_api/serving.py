"""How to serve, and the embedded engine that is served so."""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from synaptic.backends.embedded import available_memory
from synaptic.errors import ConfigError, UsageError
from synaptic.models import full_name
from synaptic.server.gateway import check_allowed_origin
from synaptic.server.ollama_api import durations
from synaptic.server.ollama_api import tagged_names as names
from synaptic.server.ollama_api.catalogue import Catalogue, check_memory
from synaptic.server.ollama_api.embedded_engine import EmbeddedEngine
from synaptic.server.ollama_api.embedded_host import EmbeddedHost
from synaptic.server.ollama_api.engine_backend import EngineBackend
from synaptic.server.ollama_api.loading import Scheduler
from synaptic.shared_bounds import LONGEST_CONTEXT
from synaptic.text import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from synaptic.models import ModelStore
    from synaptic.processes import ChildProcess
    from synaptic.server.gateway import CallMeter, KeyFile, TlsFiles
    from synaptic.server.ollama_api.generation_options import LoadOptions

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 11434
MODELS_WITHOUT_GPU = 3
"""Models in memory at once: three for each GPU, and as many for a machine that has none (``defaultModelsPerGPU``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """How to serve; ``threads`` 0 is as many as make sense, ``keep_alive`` is in seconds.

    ``hosts`` and ``origins`` are those that are answered besides this machine's (:class:`Guard`); ``drain`` is how many
    seconds replies under way get when the server is told to end; ``None`` is what suits what serves.
    ``pipelines`` are served as models: by name, a built-in one's name or a file. ``keys`` are demanded of clients.
    ``tls`` encrypts connections.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    parallel: int = 1
    max_queue: int = 512
    max_loaded: int = MODELS_WITHOUT_GPU
    context: int = 4096
    keep_alive: float = 300.0
    threads: int = 0
    aliases: tuple[str, ...] = ()
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    drain: float | None = None
    pipelines: Mapping[str, str | Path] = field(default_factory=dict)
    keys: KeyFile | None = None
    tls: TlsFiles | None = None


def check_host(host: str, *, keys: bool = False) -> str:
    """Return the address to listen at; with ``keys``, which clients must bring then, it may be any.

    Raises:
        UsageError: If it is not on this machine alone, and no keys are demanded.
    """
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not keys:
        raise UsageError(
            f"--host {host}: no key is demanded of clients, so it listens on this machine only",
            hint="make a key (synaptic keys add NAME), or use 127.0.0.1, ::1 or localhost",
        )
    return host.strip("[]")


def check_alias(alias: str) -> str:
    """Return another name for the model, with its tag.

    Raises:
        UsageError: If no model can have that name.
    """
    if not names.is_valid(alias):
        raise UsageError(f"--alias {alias!r} is no name of a model", hint="write it as in --alias writer:1b")
    return full_name(alias)


def check_keep_alive(text: str) -> float:
    """Return the seconds of ``--keep-alive``; a bare number is seconds, a negative one for ever.

    Raises:
        UsageError: If it is not a duration.
    """
    try:
        return durations.keep_alive_default(text)
    except ValueError as error:
        raise UsageError(
            f"--keep-alive {text}: {error}", hint='write it as "5m", "90s" or a number of seconds'
        ) from error


def from_environment(environ: Mapping[str, str]) -> dict[str, int | float | frozenset[str]]:
    """Return what Ollama's own variables say, for :class:`ServeSettings`; 0 loaded models is "choose yourself".

    Raises:
        ConfigError: If one of them is not what Ollama takes.
        UsageError: If one of the origins is none.
    """
    found: dict[str, Any] = {}
    for variable, (setting, least, most) in _COUNTS.items():
        if text := environ.get(variable, "").strip():
            if not text.isdecimal() or len(text) > _DIGITS or not least <= int(text) <= most:
                raise ConfigError(f"{variable}={excerpt(text)}: it must be a whole number from {least} to {most}")
            found[setting] = int(text)
    if not found.get("max_loaded", 1):
        del found["max_loaded"]
    if text := environ.get("OLLAMA_KEEP_ALIVE", "").strip():
        try:
            found["keep_alive"] = durations.keep_alive_default(text)
        except ValueError as error:
            raise ConfigError(
                f"OLLAMA_KEEP_ALIVE={text}: {error}", hint='write a duration such as "5m", or a number of seconds'
            ) from error
    if texts := environ.get("OLLAMA_ORIGINS", "").replace(",", " ").split():
        found["origins"] = frozenset(check_allowed_origin(text, "OLLAMA_ORIGINS:") for text in texts)
    return found


_DIGITS = 20
_COUNTS = {
    "OLLAMA_NUM_PARALLEL": ("parallel", 1, 64),
    "OLLAMA_MAX_QUEUE": ("max_queue", 0, 1_000_000),
    "OLLAMA_MAX_LOADED_MODELS": ("max_loaded", 0, 1000),
    "OLLAMA_CONTEXT_LENGTH": ("context", 1, LONGEST_CONTEXT),
}


@dataclass(frozen=True, slots=True)
class EmbeddedModels:
    """The embedded engine as Ollama's dialect drives it, and the same as a backend for everything else."""

    host: EmbeddedHost
    backend: EngineBackend


def embedded_models(settings: ServeSettings, store: ModelStore, meter: CallMeter | None = None) -> EmbeddedModels:
    """Return the embedded engine for ``settings``, whose calls ``meter`` counts; no model is loaded yet."""
    catalogue = Catalogue(store, settings.aliases)

    async def start(name: str, options: LoadOptions, on_exit: Callable[[ChildProcess], None]) -> EmbeddedEngine:
        await asyncio.to_thread(store.check)
        check_memory(options, settings.parallel, catalogue.facts(), available_memory())
        return await EmbeddedEngine.start(
            store.path,
            name=name,
            context=options.context,
            slots=settings.parallel,
            threads=options.num_thread or settings.threads or None,
            shift=options.shift,
            on_exit=on_exit,
        )

    scheduler = Scheduler(
        start,
        parallel=settings.parallel,
        max_queue=settings.max_queue,
        max_loaded=settings.max_loaded,
        keep_alive=settings.keep_alive,
    )
    host = EmbeddedHost(catalogue, scheduler, parallel=settings.parallel, context=settings.context, meter=meter)
    return EmbeddedModels(host, EngineBackend(catalogue, scheduler, context=settings.context))
