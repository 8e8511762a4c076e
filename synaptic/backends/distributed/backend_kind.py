"""Distributed inference as the settings describe it: opened, and looked at for ``synaptic doctor``."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from synaptic.backends.base import BackendContext, BackendKind, Finding
from synaptic.backends.distributed.backend import NAME, DistributedBackend
from synaptic.backends.distributed.engine import current_engine
from synaptic.backends.distributed.workers import (
    Endpoint,
    ProtocolVersion,
    WorkerState,
    check_workers,
    local_worker_count,
    machines_elsewhere,
)
from synaptic.backends.llama_server import examine as examine_server
from synaptic.errors import BackendError
from synaptic.models import known_damage, open_model
from synaptic.text import plural

if TYPE_CHECKING:
    from synaptic.settings import Settings


def from_context(context: BackendContext) -> DistributedBackend:
    """Return the distributed backend; nothing is started yet."""
    return DistributedBackend(context.settings, context.report)


async def examine(context: BackendContext) -> list[Finding]:
    """Return whether a coordinator is there; else whether an engine is, the workers, and the model on this machine."""
    settings = context.settings
    findings: list[Finding] = []
    if settings.coordinator_url is not None:
        findings = await examine_server(replace(context, url=settings.coordinator_url))
        if any(finding.answers for finding in findings):
            return findings
    spoken = None
    try:
        engine = await current_engine()
    except BackendError as exc:
        findings.append(Finding("llama.cpp", "missing", exc.message, exc.hint))
    else:
        rpc = engine.facts.rpc_version
        spoken = ProtocolVersion.parse(rpc)
        findings.append(Finding("llama.cpp", "ok", f"{engine.files.directory} speaks RPC {rpc}", answers=True))
    endpoints = [Endpoint(worker.host, worker.port) for worker in settings.rpc_backends]
    for look in await check_workers(endpoints, engine=spoken, allowed=settings.public_workers):
        if look.well:
            findings.append(Finding("workers", "ok", str(look.endpoint)))
        else:
            status: Literal["note", "missing"] = "note" if look.state is WorkerState.HELD else "missing"
            findings.append(Finding("workers", status, look.reason, look.hint))
    if count := local_worker_count(settings):
        findings.append(Finding("workers", "ok", f"{count} of this machine will be started"))
    if settings.model_replicas > 1:
        findings.append(_replica_finding(settings.model_replicas, len(endpoints) + count, settings))
    if settings.model is not None:
        findings.append(await _model_finding(settings.model))
    return findings


def _replica_finding(wanted: int, workers: int, settings: Settings) -> Finding:
    """Return whether there are workers for as many replicas; that each holds the model shows when it is loaded."""
    if workers >= wanted or machines_elsewhere(settings):
        return Finding("replicas", "ok", f"up to {wanted} coordinators of a model, each over workers of its own")
    return Finding(
        "replicas",
        "note",
        f"model_replicas is {wanted}, and there {'is' if workers == 1 else 'are'} {plural(workers, 'worker')}",
        "each replica needs a worker at least: name more in rpc_backends, or raise local_workers",
    )


async def _model_finding(model: str) -> Finding:
    try:
        shape = await open_model(model)
        damaged = await asyncio.to_thread(known_damage, shape.name, shape.files)
    except BackendError as exc:
        return Finding("model", "missing", exc.message, exc.hint)
    if damaged is not None:
        return Finding("model", "missing", damaged.message, damaged.hint)
    return Finding("model", "ok", f"{shape.name}: {shape.file}")


KIND = BackendKind(
    name=NAME,
    summary="a model's layers over the RPC workers of `rpc_backends`, or of this machine",
    open=from_context,
    examine=examine,
)
