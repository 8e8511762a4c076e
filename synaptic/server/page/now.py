"""How everything stands at this moment: nodes, coordinators with their layers, calls that wait and why."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from synaptic.backends import capabilities_of
from synaptic.cluster import machines
from synaptic.errors import SynapticError
from synaptic.version import __version__

if TYPE_CHECKING:
    from synaptic.backends import Backend
    from synaptic.backends.distributed import CoordinatorStatus, Placement
    from synaptic.backends.pool import NodeStatus
    from synaptic.messages import ModelInfo

Json = dict[str, Any]


async def now_of(backend: Backend) -> Json:
    """Return how a backend stands, as JSON data; a pool asks its nodes the first time.

    ``nodes`` have their models in memory, calls in flight and queue; a backend that is one place is one node.
    ``coordinators`` have their layers, ``waiting`` says why each call waits, ``placed`` where the latest calls went.
    """
    can = capabilities_of(backend)
    found: Json = {"at": time.time(), "version": __version__, "backend": backend.name}
    if can.nodes is not None:
        if can.start is not None:
            await can.start()
        nodes = [_node(status) for status in can.nodes.statuses()]
        waiting = [asdict(call) for call in can.nodes.waiting_calls()]
        placed = [
            {"tag": past.tag, "model": past.model, "node": past.node, "at": past.at} for past in can.nodes.decisions()
        ]
    else:
        nodes, waiting, placed = [await _only_node(backend)], [], []
    coordinators = [] if can.coordinators is None else [_coordinator(one) for one in can.coordinators.coordinators()]
    return {
        **found,
        "nodes": nodes if can.coordinators is None else [],
        "coordinators": coordinators,
        "waiting": waiting,
        "placed": placed[-50:],
        "machines": await asyncio.to_thread(_machines),
    }


def _node(status: NodeStatus) -> Json:
    told = asdict(status)
    told["models"] = [
        {
            "name": model.name,
            "loaded": model.loaded,
            "bytes": model.size_bytes,
            "vram_share": model.vram_share,
            "rate": model.output_rate,
            "first_token": model.first_token,
            "expires": model.expires_at,
            "note": model.note,
        }
        for model in sorted(status.models, key=lambda model: (not model.loaded, model.name))
    ]
    return told


async def _only_node(backend: Backend) -> Json:
    """Return a backend that is one place as if it were a node: as far as it tells, which is less."""
    can = capabilities_of(backend)
    reason = ""
    models: list[ModelInfo] = []
    try:
        models = await backend.models()
    except SynapticError as error:
        reason = error.message
    listed = [
        {"name": model.name, "loaded": model.loaded, "bytes": model.size_bytes, "rate": None}
        for model in sorted(models, key=lambda model: (not model.loaded, model.name))
    ]
    return {
        "name": can.place or backend.name,
        "url": "",
        "condition": "down" if reason else "up",
        "version": None,
        "limit": can.capacity,
        "cap": can.capacity,
        "in_flight": None,
        "queued": 0,
        "models": listed,
        "errors": 0,
        "last_error": "",
        "reason": reason,
        "hint": "",
    }


def _coordinator(status: CoordinatorStatus) -> Json:
    lost = {str(worker.endpoint) for worker in status.workers if worker.alive is False}
    return {
        "model": status.called(status.model.rpartition("/")[2] or status.model),
        "state": str(status.state),
        "since": status.since,
        "reason": status.reason,
        "url": status.url,
        "progress": None if status.progress is None else asdict(status.progress),
        "calls": status.calls,
        "waiting": status.waiting,
        "restarts": status.restarts,
        "rate": status.tokens_per_second,
        "layers": _layers(status.placement, lost) if status.placement is not None else [],
    }


def _layers(placement: Placement, lost: set[str]) -> list[Json]:
    return [
        {
            "worker": str(share.endpoint),
            "device": share.device,
            "first": share.first,
            "count": share.layers,
            "output": share.output,
            "bytes": share.memory_bytes,
            "lost": str(share.endpoint) in lost,
        }
        for share in placement.shares
    ]


def _machines() -> list[Json]:
    try:
        return [{"name": one.name, "host": one.host, "memory_gib": one.memory_gib} for one in machines()]
    except SynapticError:
        return []  # their own commands say what is wrong with the list
