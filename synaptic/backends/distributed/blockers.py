"""All that stands in the way of distributed inference, said at once: each with what to do about it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from synaptic.backends.distributed.engine import chosen_files
from synaptic.backends.distributed.workers import Endpoint, WorkerState, check_workers, local_worker_count
from synaptic.errors import BackendError, BackendUnavailable, EngineUnavailable
from synaptic.models import open_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.settings import Settings


async def refuse_blockers(settings: Settings, model: str | None, environ: Mapping[str, str] | None = None) -> None:
    """Check that there are an engine, the model, and a worker that answers or is started here.

    Args:
        settings: Which workers there are.
        model: A tag of Ollama's or a file; ``None`` is not looked for.
        environ: Where Ollama's models are; the process's own environment unless given.

    Raises:
        BackendError: What is missing: of several, the first one's class with a line for each.

    """
    found = [await _engine(), await _model(model, environ), await _workers(settings)]
    blockers = [blocker for blocker in found if blocker is not None]
    if len(blockers) == 1:
        raise blockers[0]
    if blockers:
        lines = [f"{len(blockers)} things stand in the way of distributed inference:"]
        for blocker in blockers:
            lines += [f"- {blocker.message}", *(f"    {line.strip()}" for line in (blocker.hint or "").splitlines())]
        raise type(blockers[0])("\n".join(lines), backend="distributed")


async def _engine() -> BackendError | None:
    try:
        await asyncio.to_thread(chosen_files)
    except EngineUnavailable as error:
        return error
    return None


async def _model(model: str | None, environ: Mapping[str, str] | None) -> BackendError | None:
    if model is None:
        return None
    try:
        await open_model(model, environ=environ)
    except BackendError as error:
        return error
    return None


async def _workers(settings: Settings) -> BackendError | None:
    """Return why no worker can be had; where some answer, a load says what became of the others."""
    endpoints = [Endpoint(worker.host, worker.port) for worker in settings.rpc_backends]
    if local_worker_count(settings) or not endpoints:
        return None
    looks = await check_workers(endpoints)
    if any(look.well or look.state is WorkerState.HELD for look in looks):
        return None
    hints = dict.fromkeys(look.hint for look in looks if look.hint)
    return BackendUnavailable("; ".join(look.reason for look in looks), hint="\n".join(hints), backend="distributed")
