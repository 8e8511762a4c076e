"""What can be done with RPC workers, for the command line and for the prompt alike."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from synaptic.backends.distributed import Endpoint, current_engine, workers
from synaptic.errors import ConfigError, EngineUnavailable, UsageError
from synaptic.ui.screen import CPU_NOTE, look_lines, needs_cpu_note

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from synaptic.errors import ExitCode
    from synaptic.settings import Settings
    from synaptic.ui.actions.voice import Voice


def named_workers(settings: Settings) -> list[Endpoint]:
    """Return the workers of the settings."""
    return [Endpoint(worker.host, worker.port) for worker in settings.rpc_backends]


def given_workers(words: Sequence[str]) -> list[Endpoint]:
    """Return the workers that a person wrote, each once.

    Raises:
        UsageError: If one of the words is no address.
    """
    found: list[Endpoint] = []
    for word in words:
        try:
            found.append(Endpoint.parse(word))
        except ConfigError as error:
            raise UsageError(f"{word!r} {error.message}", hint=error.hint) from error
    return list(dict.fromkeys(found))


async def engine_version() -> workers.ProtocolVersion | None:
    """Return the version that the engine of this machine speaks, ``None`` where there is none that works."""
    try:
        engine = await current_engine()
    except EngineUnavailable:
        return None
    return workers.ProtocolVersion.parse(engine.facts.rpc_version)


async def check(
    endpoints: Sequence[Endpoint], *, allowed: Collection[str], measured: bool = False
) -> tuple[workers.ProtocolVersion | None, list[workers.WorkerLook]]:
    """Ask workers how they are; return the version of this machine's engine, too.

    Neither is a held one contacted, nor one outside private networks that is not ``allowed``.
    """
    engine = await engine_version()
    return engine, await workers.check_workers(endpoints, engine=engine, measured=measured, allowed=allowed)


def show_looks(voice: Voice, engine: workers.ProtocolVersion | None, looks: Sequence[workers.WorkerLook]) -> ExitCode:
    """Print what a check told, and return the exit code for it."""
    now = time.time()
    for look in looks:
        for line in look_lines(look, now):
            voice.say(line)
    if needs_cpu_note(looks):
        voice.note(f"memory: {CPU_NOTE}")
    if engine is None and any(look.well for look in looks):
        voice.note(
            "no engine works on this machine (synaptic engine status), so the workers were compared with each other"
        )
    return workers.verdict(looks)
