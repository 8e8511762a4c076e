"""Settings that name something of ours: a name that leads nowhere is refused before it is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from synaptic.agents import discover_agents
from synaptic.backends import backend_kind
from synaptic.pipeline import Pipeline
from synaptic.settings import decode_setting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_FINDERS: Final[Mapping[str, Callable[[str], Any]]] = {"pipeline": Pipeline.find, "backend": backend_kind}


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
    name, _, entry = key.partition(".")
    if key in _FINDERS:
        value = decode_setting(key, raw)
        if value is not None:
            _FINDERS[key](value)
    elif name == "agent_models" and entry:
        discover_agents()[entry]
