"""The lists of agents and models, for the command line and for the prompt alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synaptic.models import name_key
from synaptic.text import size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synaptic.agents import AgentEntry
    from synaptic.messages import ModelInfo
    from synaptic.ui.actions.voice import Voice


def show_agents(voice: Voice, entries: Iterable[AgentEntry]) -> None:
    """Print the agents: where each comes from, and what it overrides."""
    rows = [(entry.agent.name, agent_origin(entry), entry.agent.description) for entry in entries]
    voice.table(rows, ("name", "origin", "description"))


def agent_origin(entry: AgentEntry) -> str:
    """Return where an agent comes from and what it overrides: ``project, overrides …/agents/editor.md``."""
    overrides = ", ".join(str(path) for path in entry.overrides)
    return f"{entry.origin}, overrides {overrides}" if overrides else entry.origin


def show_models(voice: Voice, models: Iterable[ModelInfo], current: str | None) -> None:
    """Print the models of a backend; * marks the one that answers."""
    rows = [_model_row(model, current) for model in models]
    voice.table(rows, ("model", "size", "parameters", "quantization", "context", "loaded"))


def _model_row(model: ModelInfo, current: str | None) -> tuple[str, ...]:
    mark = "*" if current is not None and name_key(current) == name_key(model.name) else ""
    return (
        f"{model.name}{mark}",
        size(model.size_bytes) if model.size_bytes is not None else "",
        model.parameter_size or "",
        model.quantization or "",
        str(model.context_length or ""),
        "yes" if model.loaded else "no",
    )
