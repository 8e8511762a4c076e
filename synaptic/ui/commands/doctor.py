"""``synaptic doctor``: what this machine has, and what to do about what it lacks. It changes nothing."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import click

from synaptic.agents import discover_agents
from synaptic.backends import BackendContext, Finding, backend_kind, considered, serving
from synaptic.errors import AgentError, ConfigError, ExitCode, UsageError
from synaptic.settings import ADVICE, Settings, settings_path
from synaptic.ui.commands.support import read
from synaptic.ui.options import given, json_option, settings_options
from synaptic.ui.screen import write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator, Iterator

    from synaptic.ui.options import Options


_SHOWN: Final = ("name", "status", "detail", "fix")


@click.command()
@settings_options
@json_option
@click.pass_context
def doctor(context: click.Context, /, **values: Any) -> int:
    """Check what this machine has, and say what to fix.

    Exit code 0: all is there. 1: something is missing, but questions can be answered. 2: a file is wrong.
    3: nothing can answer.
    """
    options = given(context, **values)
    findings = list(examine(options))
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
    context = BackendContext(settings)
    answers = False
    for name in considered(settings):
        for finding in _backend(name, context):
            counts = name in serving(settings)
            answers = answers or (counts and finding.answers)
            yield finding if counts else replace(finding, answers=False)
    if not answers:
        yield Finding("questions", "missing", "nothing can serve the call", _cure(settings))


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
        yield Finding("folder", "note", left_out.removesuffix(f"; {ADVICE}"), "synaptic trust")


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


async def _awaited(findings: Awaitable[list[Finding]]) -> list[Finding]:
    return await findings
