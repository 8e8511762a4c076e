"""``synaptic doctor``: what this machine has, and what to do about what it lacks.

It changes nothing, but that ``--deep`` removes tensors from the cache that are not what their names say.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

import click

from synaptic import paths
from synaptic.agents import discover_agents
from synaptic.backends import BackendContext, Finding, backend_kind, considered, serving
from synaptic.backends.distributed import engine as engines
from synaptic.backends.distributed import workers as rpc_workers
from synaptic.errors import AgentError, ConfigError, EngineUnavailable, ExitCode, SynapticError, UsageError
from synaptic.messages import BackendProgress
from synaptic.models import verify_models
from synaptic.runtime import Session
from synaptic.settings import ADVICE, Settings, settings_path
from synaptic.text import plural
from synaptic.ui.actions import journal_finding, leading_nowhere, machine_findings
from synaptic.ui.commands.support import progress, read
from synaptic.ui.options import json_option, settings_options, with_options
from synaptic.ui.screen import write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator, Iterator

    from synaptic.messages import Reporter
    from synaptic.ui.options import Options


_SHOWN: Final = ("name", "status", "detail", "fix")


@click.command()
@click.option("--deep", is_flag=True, help="Also read all models, the engine and the tensor cache; may take minutes.")
@settings_options
@json_option
@with_options
def doctor(options: Options, *, deep: bool) -> int:
    """Check what this machine has, and say what to fix.

    Exit code 0: all is there. 1: something is missing, but questions can be answered. 2: a file is wrong.
    3: nothing can answer.
    """
    findings = list(examine(options))
    if deep:
        findings += read_everything(options)
    if options.json:
        write_json([{name: getattr(finding, name) for name in _SHOWN} for finding in findings])
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
    yield journal_finding(settings)
    context = BackendContext(settings)
    answers = False
    for name in considered(settings):
        for finding in _backend(name, context):
            counts = name in serving(settings)
            answers = answers or (counts and finding.answers)
            yield finding if counts else replace(finding, answers=False)
    if settings.distributed_inference_enabled:
        yield from asyncio.run(machine_findings())
    if not answers:
        yield asyncio.run(_unanswered(settings))


async def _unanswered(settings: Settings) -> Finding:
    """Return why a question would not be answered, in the words in which it would be refused."""
    try:
        async with Session(settings) as session:
            await session.route()
    except SynapticError as exc:
        if settings.model is not None:  # of which no finding speaks
            return Finding("questions", "missing", exc.message, exc.hint)
    return Finding("questions", "missing", "nothing can serve the call", _cure(settings))


def _cure(settings: Settings) -> str:
    """Return what to do where nothing answers."""
    spared = "embedded" not in serving(settings) and settings.backend is None
    where = "no node is named and distributed inference is off"
    more = f"; the embedded model answers only where {where}" if spared else ""
    return f"correct what is missing above{more}"


def verdict(findings: list[Finding]) -> int:
    """Return the exit code for what was found."""
    if any(finding.status == "problem" for finding in findings):
        return int(ExitCode.USAGE)
    if not any(finding.answers for finding in findings):
        return int(ExitCode.NO_BACKEND)
    missing = any(finding.status == "missing" for finding in findings)
    return int(ExitCode.FAILED if missing else ExitCode.ANSWERED)


def _settings(options: Options) -> Generator[Finding, None, Settings]:
    path = settings_path(options.config_path)
    try:
        loaded = read(options)
    except ConfigError as exc:
        yield Finding("settings", "problem", exc.message.replace("\n", "; "), exc.hint or "correct it")
        return Settings()
    state = "" if path.exists() else " (not there: the defaults count)"
    yield Finding("settings", "ok", f"{path}{state}")
    for notice in loaded.notices:
        yield Finding("settings", "note", notice, "synaptic config migrate")
    yield from _folder(loaded.left_out)
    for problem in leading_nowhere(loaded):
        if not problem.message.startswith(("backend:", "embedded_model:", "nodes:")):  # they are looked at below
            yield Finding("settings", "problem", f"{problem.location}: {problem.message}", problem.suggestion)
    return loaded.settings


def _agents() -> Iterator[Finding]:
    try:
        book = discover_agents()
    except AgentError as exc:
        yield Finding("agents", "problem", exc.message.replace("\n", "; "), exc.hint)
    else:
        yield Finding("agents", "ok", ", ".join(book))
        yield from _folder(book.left_out)


def _folder(left_out: str) -> Iterator[Finding]:
    """Yield what of the folder does not count, if anything does not."""
    if left_out:
        told = left_out.removesuffix(f"; {ADVICE}")
        yield Finding("folder", "note", told, "synaptic trust" if told != left_out else "rename or remove it")


def _backend(name: str, context: BackendContext) -> Iterator[Finding]:
    """Yield what the backend of that name finds of what it needs."""
    try:
        kind = backend_kind(name)
    except UsageError as exc:
        yield Finding("backend", "problem", exc.message, exc.hint)
        return
    if kind.examine is None:
        yield Finding(name, "ok", kind.summary, answers=True)
    else:
        yield from asyncio.run(_awaited(kind.examine(context)))


def read_everything(options: Options) -> list[Finding]:
    """Return what is found when the content of all models, of the engine and of the tensor cache is read."""
    with progress(options) as report:
        return [*asyncio.run(_models(report)), *_engine(), *_tensors(report)]


async def _models(report: Reporter) -> list[Finding]:
    status: dict[str, Literal["ok", "note", "missing"]] = {"whole": "ok", "unknown": "note", "damaged": "missing"}
    return [
        Finding("content", status[one.status], f"{one.name}: {one.detail or one.file}", one.fix or None)
        async for one in verify_models(None, report)
    ]


def _engine() -> Iterator[Finding]:
    """Yield what became of the engine's files; that there is none is said elsewhere, where one is needed."""
    try:
        files, states = engines.verify_engine()
    except EngineUnavailable:
        return
    if changed := engines.describe(states):
        yield Finding("content", "missing", f"the engine in {files.directory}: {changed}", "synaptic engine verify")
    else:
        yield Finding("content", "ok", f"the engine in {files.directory}: {plural(len(states), 'file')} as they were")


def _tensors(report: Reporter) -> Iterator[Finding]:
    """Yield what became of the tensor cache, if anything is in it."""
    cache = rpc_workers.TensorCache(paths.tensor_cache_dir())
    try:
        whole, removed = cache.verify(lambda done, total: report(BackendProgress("tensors", "checking", done, total)))
    except OSError as exc:
        yield Finding("content", "note", f"the tensor cache cannot be read: {exc.strerror or exc} ({cache.root})")
        return
    if removed:
        said = f"{plural(removed, 'tensor')} of {whole + removed} in {cache.root} had decayed: removed, and sent again"
        yield Finding("content", "note", said)
    elif whole:
        yield Finding("content", "ok", f"{plural(whole, 'tensor')} in {cache.root}")


async def _awaited(findings: Awaitable[list[Finding]]) -> list[Finding]:
    return await findings
