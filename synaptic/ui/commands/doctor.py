"""``synaptic doctor``: what this machine has, and what to do about what it lacks. It changes nothing."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from synaptic.agents import discover_agents
from synaptic.backends.distributed import (
    Endpoint,
    ProtocolVersion,
    WorkerState,
    check_workers,
    current_engine,
    local_worker_count,
)
from synaptic.backends.embedded import require_engine
from synaptic.backends.pool import inspect_nodes
from synaptic.errors import AgentError, BackendError, BackendUnavailable, ConfigError, EngineUnavailable, ExitCode
from synaptic.models import ModelStore, check_model_file, open_model
from synaptic.settings import Settings, settings_path
from synaptic.ui.actions import local_node
from synaptic.ui.commands.support import load
from synaptic.ui.options import given, json_option, settings_options
from synaptic.ui.screen import write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from synaptic.ui.options import Options


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``fix`` says what to do where it is not as it should be."""

    name: str
    status: str
    detail: str
    fix: str | None = None


@click.command()
@settings_options
@json_option
@click.pass_context
def doctor(context: click.Context, /, **values: Any) -> int:
    """Check what this machine has, and say what to fix.

    Exit code 0: questions can be answered. 2: a file is wrong. 3: nothing can answer.
    """
    options = given(context, **values)
    findings = list(examine(options))
    if options.json:
        write_json([asdict(finding) for finding in findings])
    for finding in () if options.json else findings:
        write_text(f"{finding.status:<8}{finding.name}: {finding.detail}")
        if finding.fix:
            write_text(f"{'':8}fix: {finding.fix}")
    return verdict(findings)


def examine(options: Options) -> Iterator[Finding]:
    """Yield what is found, from the ground up."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    yield Finding("python", "ok", f"{version} ({sys.executable})")
    settings = yield from _settings(options)
    yield from _agents()
    if settings.task_distribution_enabled or not settings.distributed_inference_enabled:
        yield from _servers(settings)
    if settings.distributed_inference_enabled:
        yield from _distributed(settings)
    yield from _embedded(settings)


def verdict(findings: list[Finding]) -> int:
    """Return the exit code for what was found."""
    if any(finding.status == "problem" for finding in findings):
        return int(ExitCode.USAGE)
    can_answer = {finding.name for finding in findings if finding.status == "ok"} & {"ollama", "engine", "llama.cpp"}
    return int(ExitCode.ANSWERED if can_answer else ExitCode.NO_BACKEND)


def _settings(options: Options) -> Generator[Finding, None, Settings]:
    path = settings_path(options.config_path)
    try:
        loaded = load(options)
    except ConfigError as exc:
        yield Finding("settings", "problem", exc.message.replace("\n", "; "), exc.hint or "correct it")
        return Settings()
    state = "" if path.exists() else " (not there: the defaults count)"
    yield Finding("settings", "ok", f"{path}{state}")
    for notice in loaded.notices:
        yield Finding("settings", "note", notice, "synaptic config migrate")
    return loaded.settings


def _agents() -> Iterator[Finding]:
    try:
        names = list(discover_agents())
    except AgentError as exc:
        yield Finding("agents", "problem", exc.message.replace("\n", "; "), exc.hint)
    else:
        yield Finding("agents", "ok", ", ".join(names))


def _servers(settings: Settings) -> Iterator[Finding]:
    for look in asyncio.run(inspect_nodes(settings.nodes or [local_node(os.environ)], os.environ)):
        if look.well:
            names = ", ".join(model.name for model in look.models)
            yield Finding("ollama", "ok", f"{look.node.url} has {names}")
        elif look.error is None:
            yield Finding("ollama", "missing", f"{look.node.url} answers, but has no model", "ollama pull llama3.2")
        else:
            start = "start it (ollama serve), or correct the address"
            fix = start if isinstance(look.error, BackendUnavailable) else look.hint or start
            yield Finding("ollama", "missing", look.reason, fix if settings.nodes else None)


def _distributed(settings: Settings) -> Iterator[Finding]:
    try:
        engine = asyncio.run(current_engine())
    except BackendError as exc:
        yield Finding("llama.cpp", "missing", exc.message, exc.hint)
        return
    yield Finding("llama.cpp", "ok", f"{engine.files.directory} speaks RPC {engine.facts.rpc_version}")
    yield from _workers(settings, engine.facts.rpc_version)
    if count := local_worker_count(settings):
        yield Finding("workers", "ok", f"{count} of this machine will be started")
    if settings.model is not None:
        try:
            shape = asyncio.run(open_model(settings.model))
        except BackendError as exc:
            yield Finding("model", "missing", exc.message, exc.hint)
        else:
            yield Finding("model", "ok", f"{shape.name}: {shape.file}")


def _workers(settings: Settings, version: str) -> Iterator[Finding]:
    endpoints = [Endpoint(worker.host, worker.port) for worker in settings.rpc_backends]
    for look in asyncio.run(check_workers(endpoints, engine=ProtocolVersion.parse(version))):
        if look.well:
            yield Finding("workers", "ok", str(look.endpoint))
        else:
            status = "note" if look.state is WorkerState.HELD else "missing"
            yield Finding("workers", status, look.reason, look.hint)


def _embedded(settings: Settings) -> Iterator[Finding]:
    try:
        require_engine()
    except EngineUnavailable as exc:
        yield Finding("engine", "missing", exc.message, exc.hint)
        return
    yield Finding("engine", "ok", "the embedded engine is installed")
    store = ModelStore()
    if settings.embedded_model is not None:
        try:
            yield Finding("model", "ok", str(check_model_file(settings.embedded_model)))
        except ConfigError as exc:
            yield Finding("model", "problem", exc.message.replace("\n", "; "), exc.hint or "correct embedded_model")
    elif store.has_model():
        yield Finding("model", "ok", str(store.path))
    else:
        yield Finding(
            "model", "note", f"{store.artifact.title} is fetched by the first question", "synaptic models pull"
        )
