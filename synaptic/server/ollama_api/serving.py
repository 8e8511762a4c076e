"""From settings to a server that runs until it is told to end."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web as http

from synaptic.errors import BackendUnavailable, ConfigError, UsageError
from synaptic.models import full_name
from synaptic.server.ollama_api import durations
from synaptic.server.ollama_api import tagged_names as names
from synaptic.server.ollama_api.catalogue import Catalogue
from synaptic.server.ollama_api.embedded_engine import EmbeddedEngine
from synaptic.server.ollama_api.loading import Scheduler
from synaptic.server.ollama_api.routes import OllamaApi

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohttp import web

    from synaptic.models import ModelStore
    from synaptic.processes import ChildProcess
    from synaptic.server.ollama_api.generation_options import LoadOptions

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 11434
MODELS_WITHOUT_GPU = 3
"""Models in memory at once: three for each GPU, and as many for a machine that has none (``defaultModelsPerGPU``)."""

BACKLOG = 1024  # connections that the kernel keeps until they are taken
DRAIN = 0.1  # seconds that replies under way get when the server is told to end: Ollama cuts them as well


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """How to serve; ``threads`` 0 is as many as make sense, ``keep_alive`` is in seconds."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    parallel: int = 1
    max_queue: int = 512
    max_loaded: int = MODELS_WITHOUT_GPU
    context: int = 4096
    keep_alive: float = 300.0
    threads: int = 0
    aliases: tuple[str, ...] = ()


def check_host(host: str) -> str:
    """Return the address to listen at.

    Raises:
        UsageError: If it is not on this machine alone.

    """
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise UsageError(
            f"--host {host}: this server has no passwords, so it listens on this machine only",
            hint="use 127.0.0.1, ::1 or localhost; from elsewhere, reach it through an SSH tunnel",
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


def from_environment(environ: Mapping[str, str]) -> dict[str, int | float]:
    """Return what Ollama's own variables say, for :class:`ServeSettings`; 0 loaded models is "choose yourself".

    Raises:
        ConfigError: If one of them is not what Ollama takes.

    """
    found: dict[str, int | float] = {}
    for variable, (field, least) in _COUNTS.items():
        if text := environ.get(variable, "").strip():
            if not text.isdecimal() or int(text) < least:
                raise ConfigError(f"{variable}={text}: it must be a whole number, {least} or more")
            found[field] = int(text)
    if not found.get("max_loaded", 1):
        del found["max_loaded"]
    if text := environ.get("OLLAMA_KEEP_ALIVE", "").strip():
        try:
            found["keep_alive"] = durations.keep_alive_default(text)
        except ValueError as error:
            raise ConfigError(
                f"OLLAMA_KEEP_ALIVE={text}: {error}", hint='write a duration such as "5m", or a number of seconds'
            ) from error
    return found


_COUNTS = {
    "OLLAMA_NUM_PARALLEL": ("parallel", 1),
    "OLLAMA_MAX_QUEUE": ("max_queue", 0),
    "OLLAMA_MAX_LOADED_MODELS": ("max_loaded", 0),
    "OLLAMA_CONTEXT_LENGTH": ("context", 1),
}


async def serve(settings: ServeSettings, store: ModelStore, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; replies under way are cut then, and every engine is gone when this returns.

    Args:
        settings: How.
        store: Where the model is.
        ready: Called with the address once it answers.

    Raises:
        BackendUnavailable: If the port is taken.

    """
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    runner = http.AppRunner(
        application(settings, store), access_log=None, handler_cancellation=True, shutdown_timeout=DRAIN
    )
    try:
        await runner.setup()
        site = http.TCPSite(runner, settings.host, settings.port, backlog=BACKLOG)
        try:
            await site.start()
        except OSError as error:
            raise BackendUnavailable(
                f"cannot listen at {settings.host} port {settings.port}: {error.strerror or error}",
                hint="is another server running there? choose another --port; 0 finds a free one",
            ) from error
        address, port = runner.addresses[0][:2]
        ready(f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}")
        await ended.wait()
    finally:
        await runner.cleanup()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def application(settings: ServeSettings, store: ModelStore) -> web.Application:
    """Return the application for ``settings``; no model is loaded yet."""

    async def start(name: str, options: LoadOptions, on_exit: Callable[[ChildProcess], None]) -> EmbeddedEngine:
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
    catalogue = Catalogue(store, settings.aliases)
    api = OllamaApi(catalogue, scheduler, parallel=settings.parallel, context=settings.context)
    return api.application()
