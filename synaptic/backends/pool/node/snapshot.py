"""A node as people see it, from what the pool knows of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synaptic.backends.pool.node.status import ModelStatus, NodeStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.backends.pool.node.node import PoolNode
    from synaptic.backends.pool.node.state import ModelState


def node_status(member: PoolNode, queued: Mapping[str, int], now: float) -> NodeStatus:
    """Return how a node stands.

    ``queued`` counts the calls that wait for each model; ``now`` is by the clock of the event loop.
    """
    state, health = member.state, member.health
    condition = health.condition(now)
    if condition == "up" and not (member.checked_at or member.served or member.errors):
        condition = "unknown"
    probe = health.next_probe(now) if condition == "down" else None
    return NodeStatus(
        name=state.name,
        url=member.url,
        condition=condition,
        version=member.version,
        limit=state.limit,
        cap=state.cap,
        in_flight=state.in_flight,
        elsewhere=state.elsewhere,
        queued=sum(count for model, count in queued.items() if model in state.models),
        models=tuple(_model_status(model, now) for model in sorted(state.models.values(), key=_loaded_first)),
        served=member.served,
        errors=member.errors,
        last_error=member.history[-1].message if member.history else "",
        reason="" if condition == "up" else state.why_closed or health.reason,
        hint=member.trouble.hint or "" if member.trouble is not None and condition != "up" else "",
        probe_in=None if probe is None else max(0.0, probe - now),
    )


def _model_status(model: ModelState, now: float) -> ModelStatus:
    rates = model.rates
    share = model.vram_bytes / model.loaded_bytes if model.resident and model.loaded_bytes else None
    return ModelStatus(
        name=model.shown,
        loaded=model.resident,
        size_bytes=model.size_bytes,
        vram_share=share,
        context_length=model.loaded_context if model.resident else model.context_length,
        first_token=rates.first_token if rates.samples else None,
        output_rate=rates.output_rate or None,
        samples=rates.samples,
        expires_at=model.expires_at if model.resident else "",
        note=model.refused_why if model.refused_until > now else "",
    )


def _loaded_first(model: ModelState) -> tuple[bool, str]:
    return (not model.resident, model.name)
