"""All that stands in the way of distributed inference, said at once: each with what to do about it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeVar

from synaptic.backends.distributed.engine import chosen_files
from synaptic.backends.distributed.workers import (
    Endpoint,
    WorkerState,
    check_workers,
    local_worker_count,
    machines_elsewhere,
)
from synaptic.errors import BackendError, EngineUnavailable, NoPlacement
from synaptic.processes import thread_to_its_end

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from synaptic.settings import Settings

T = TypeVar("T")


async def unblocked(settings: Settings, model: Awaitable[T]) -> T:
    """Return the model, after a look at whether there are an engine, and a worker that answers or is started here.

    ``model`` opens the model, or looks for it.

    Raises:
        BackendError: What is missing: of several, the first one's class with a line for each.
    """
    engine = await _engine()
    opened: T | BackendError
    try:
        opened = await model
    except BackendError as error:
        opened = error
    workers = await _workers(settings)
    if not isinstance(opened, BackendError) and engine is None and workers is None:
        return opened
    raise _together([found for found in (engine, opened, workers) if isinstance(found, BackendError)])


def _together(blockers: Sequence[BackendError]) -> BackendError:
    """Return the only one as it is, or one like the first that tells of all of them."""
    if len(blockers) == 1:
        return blockers[0]
    lines = [f"{len(blockers)} things stand in the way of distributed inference:"]
    for blocker in blockers:
        lines += [f"- {blocker.message}", *(f"    {line.strip()}" for line in (blocker.hint or "").splitlines())]
    told = copy.copy(blockers[0])
    told.message, told.hint = "\n".join(lines), None
    told.args = (told.message,)
    return told


async def _engine() -> BackendError | None:
    try:
        await thread_to_its_end(chosen_files)
    except EngineUnavailable as error:
        return error
    return None


async def _workers(settings: Settings) -> BackendError | None:
    """Return why no worker can be had; where some answer, or may be brought, a load says what became of the others."""
    endpoints = [Endpoint(worker.host, worker.port) for worker in settings.rpc_backends]
    if local_worker_count(settings) or not endpoints or machines_elsewhere(settings):
        return None
    looks = await check_workers(endpoints, allowed=settings.public_workers)
    if any(look.well or look.state is WorkerState.HELD for look in looks):
        return None
    hints = dict.fromkeys(look.hint for look in looks if look.hint)
    return NoPlacement("; ".join(look.reason for look in looks), hint="\n".join(hints))
