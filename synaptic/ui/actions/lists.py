"""Agents, models and conversations as they are listed and told, by the command line and the prompt alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synaptic.agents import discover_agents
from synaptic.backends.ollama import NAME as OLLAMA
from synaptic.backends.ollama import is_loopback
from synaptic.models import doubt_about, name_key
from synaptic.text import plural, size
from synaptic.ui.screen import place

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from synaptic.agents import AgentBook, AgentEntry
    from synaptic.messages import ModelInfo, Route
    from synaptic.settings import Settings
    from synaptic.ui.actions.voice import Voice


def found_agents(voice: Voice) -> AgentBook:
    """Return the agents, and say which of the folder do not count, because it is not trusted.

    Raises:
        AgentError: If a file has a mistake.
    """
    book = discover_agents()
    if book.left_out:
        voice.warn(book.left_out)
    return book


def show_agents(voice: Voice, entries: Iterable[AgentEntry]) -> None:
    """Print the agents: where each comes from, and what it overrides."""
    rows = [(entry.agent.name, agent_origin(entry), entry.agent.description) for entry in entries]
    voice.table(rows, ("name", "origin", "description"))


def agent_origin(entry: AgentEntry) -> str:
    """Return where an agent comes from and what it overrides: ``project, overrides …/agents/editor.md``."""
    overrides = ", ".join(str(path) for path in entry.overrides)
    return f"{entry.origin}, overrides {overrides}" if overrides else entry.origin


def show_models(voice: Voice, models: Sequence[ModelInfo], current: str | None, doubts: Mapping[str, str]) -> None:
    """Print the models of a backend; * marks the one that answers, and ``doubts`` say what may be wrong with some."""
    rows = [_model_row(model, current) for model in models]
    voice.table(rows, ("model", "size", "parameters", "quantization", "context", "loaded"))
    for name, doubt in doubts.items():
        voice.warn(f"{name}: {doubt}; synaptic models verify {name} reads it")


def show_model(voice: Voice, model: ModelInfo, route: Route, *, asked: bool) -> None:
    """Print what a backend tells of one of its models; ``asked`` is whether questions go to it."""
    facts = {
        "model": model.name,
        "served by": place(route.backend, None, route.node),
        "size": None if model.size_bytes is None else size(model.size_bytes),
        "parameters": model.parameter_size,
        "quantization": model.quantization,
        "context": None if model.context_length is None else plural(model.context_length, "token"),
        "loaded": "yes" if model.loaded else "no",
        "questions": f"go to it: {route.reason}" if asked else f"go to it with -m {model.name}",
    }
    voice.table([(name, fact or "not told") for name, fact in facts.items()])


def doubts_about(models: Iterable[ModelInfo], route: Route, settings: Settings) -> dict[str, str]:
    """Return what may be wrong with the models whose files are on this machine, by their names; nothing is read."""
    urls = [node.url for node in settings.nodes]
    if route.backend == OLLAMA and not all(map(is_loopback, urls)):
        return {}
    found = ((model.name, doubt_about(model.name)) for model in models)
    return {name: doubt for name, doubt in found if doubt is not None}


def markdown_of(turns: Iterable[tuple[str, str, str]], name: str | None = None) -> str:
    """Return a conversation as a Markdown document.

    A turn is its question, its answer, and how it ended where that was not well.
    """
    parts = [f"# {name or 'Conversation'}\n"]
    for question, answer, remark in turns:
        parts.append("\n".join(f"> {line}".rstrip() for line in question.splitlines()) + "\n")
        parts += [f"{answer.strip()}\n"] if answer else []
        parts += [f"*{remark}*\n"] if remark else []
    return "\n".join(parts)


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
