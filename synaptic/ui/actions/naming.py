"""Settings that name something of ours: a name that leads nowhere is refused before it is kept."""

from __future__ import annotations

from synaptic.agents import discover_agents
from synaptic.backends import backend_kind
from synaptic.pipeline import Pipeline


def refuse_unknown(key: str, raw: str) -> None:
    """Refuse a value that names a pipeline, a backend or an agent that there is none of.

    Args:
        key: A setting, or ``table.entry``.
        raw: The value as ``--set`` takes it.

    Raises:
        PipelineError: If there is no such pipeline, or it has mistakes.
        UsageError: If there is no such backend.
        AgentError: If there is no such agent.

    """
    value = raw.strip().strip('"')
    name, _, entry = key.partition(".")
    if key == "pipeline":
        Pipeline.find(value)
    elif key == "backend" and value not in {"", "null", "none"}:
        backend_kind(value)
    elif name == "agent_models" and entry:
        discover_agents()[entry]
