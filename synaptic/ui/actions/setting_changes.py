"""Changes of settings: a name that leads nowhere is refused before it is kept, and what goes before it is said."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from synaptic import models
from synaptic.agents import discover_agents
from synaptic.backends import backend_kind, pool
from synaptic.errors import ConfigError, Problem, SynapticError
from synaptic.pipeline import Pipeline, builtin_pipelines, misspelt_defaults
from synaptic.settings import decode_setting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from synaptic.settings import LoadedSettings, Settings
    from synaptic.ui.actions.voice import Voice


def _model_file(path: str) -> Path:
    return models.check_model_file(path)  # models are loaded by the few who name one


_FINDERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "pipeline": Pipeline.find,
    "backend": backend_kind,
    "embedded_model": _model_file,
}


def refuse_unknown(key: str, raw: str) -> None:
    """Refuse a value that names a pipeline, a backend, a model's file or an agent that there is none of.

    Args:
        key: A setting, or ``table.entry``.
        raw: The value as ``--set`` takes it.

    Raises:
        PipelineError: If there is no such pipeline, or it has mistakes.
        UsageError: If there is no such backend.
        ConfigError: If there is no such file, or it is no model.
        AgentError: If there is no such agent.
    """
    name, _, entry = key.partition(".")
    if key in _FINDERS:
        value = decode_setting(key, raw)
        if value is not None:
            _FINDERS[key](value)
    elif name == "agent_models" and entry:
        discover_agents()[entry]


def leading_nowhere(loaded: LoadedSettings) -> list[Problem]:
    """Return a problem for each setting that names what is not there: a pipeline, a model's file, a node's secret."""
    settings = loaded.settings
    named = {key: getattr(settings, key) for key in _FINDERS}
    entries = {key: value for key, value in named.items() if value is not None}
    problems = []
    for key in (*entries, *(f"agent_models.{agent}" for agent in settings.agent_models)):
        try:
            refuse_unknown(key, entries.get(key, ""))
        except SynapticError as exc:
            source = loaded.origins.get(key.partition(".")[0], "")
            problems.append(Problem(f"{key}: {exc.message.removeprefix(f'{key}: ')}", source, suggestion=exc.hint))
    for node in settings.nodes:
        try:
            pool.node_headers(node, os.environ)
        except ConfigError as exc:
            problems.append(Problem(f"nodes: {exc.message}", loaded.origins["nodes"], suggestion=exc.hint))
    return problems


def doubtful_inputs(settings: Settings) -> list[str]:
    """Return a line for each of ``pipeline_inputs`` that is nearly an input of the pipeline that is set, or of ours."""
    names = builtin_pipelines() if settings.pipeline is None else [settings.pipeline]
    lines: dict[str, str] = {}
    for name in names if settings.pipeline_inputs else ():
        for line in misspelt_defaults(Pipeline.find(name), settings.pipeline_inputs):
            lines.setdefault(line.partition(" ")[0], line)
    return [*lines.values()]


def mention_origin(voice: Voice, path: Path, loaded: LoadedSettings, name: str = "nodes") -> None:
    """Say so where another source than the file that was just written gives the setting that applies."""
    origin = loaded.origins.get(name, "default")
    if origin != "default" and not origin.startswith(str(path)):
        voice.warn(f"{name} comes from {origin} now, which goes before {path}")
