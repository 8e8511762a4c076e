"""``synaptic distributed``: models whose layers are spread over workers: plan, load, look at, end."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from synaptic.backends.distributed import WorkerRegistry, record_of, service, unblocked
from synaptic.errors import UsageError
from synaptic.models import open_model
from synaptic.text import did_you_mean, seconds
from synaptic.ui.commands.distributed_plan import plan
from synaptic.ui.commands.log_lines import show_logs
from synaptic.ui.commands.support import load, named_model, note
from synaptic.ui.options import json_option, settings_options, with_options
from synaptic.ui.screen import (
    HOLDER_HEADERS,
    LoadView,
    glyphs,
    holder_document,
    holder_rows,
    record_document,
    record_lines,
    terminal_width,
    watch_services,
    write_json,
    write_table,
    write_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from synaptic.backends.distributed import ServiceRecord
    from synaptic.settings import Settings
    from synaptic.ui.options import Options

_START_EPILOG = """\b
As in:
  synaptic distributed start llama3.1:70b            load it, and keep it loaded
  synaptic distributed start ~/models/big.gguf       a file
  synaptic distributed start llama3.1:70b --foreground
                                                     here, until Ctrl-C

\b
Without --foreground a process of your own goes on in the background when this command
ends. Ctrl-C while it loads ends it, too; later: synaptic distributed stop.

\b
Exit codes: 0 it is loaded, 2 wrong usage or settings, 3 it could not be loaded,
130 interrupted."""

_STOP_EPILOG = """\b
As in:
  synaptic distributed stop                  the one that runs
  synaptic distributed stop llama3.1:70b
  synaptic distributed stop --all

\b
Its workers of this machine end with it; those of other machines are free then."""

_STATUS_EPILOG = """\b
As in:
  synaptic distributed status
  synaptic distributed status --watch        redrawn until Ctrl-C
  synaptic distributed status --json

\b
Exit codes: 0 all that run are ready, 1 some are, 3 none is or none runs."""

_LOGS_EPILOG = """\b
As in:
  synaptic distributed logs                  the last 20 lines of each process
  synaptic distributed logs -n 200           more of them
  synaptic distributed logs -f               and what they say from now on, until Ctrl-C

\b
Each line begins with the process that it is from: the service, which starts the others;
the coordinator (llama-server); the workers of this machine. A worker of another machine
keeps its log there."""


class _Group(click.Group):
    """A group that lists its commands in the order in which one needs them."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names as they were added."""
        return list(self.commands)


@click.group(cls=_Group)
def distributed() -> None:
    """Spread the layers of a model over workers, and keep it loaded for later runs."""


distributed.add_command(plan)


@distributed.command(epilog=_START_EPILOG, short_help="Load a model over the workers, and keep it loaded.")
@click.argument("model", required=False, metavar="[MODEL|GGUF]")
@click.option("--foreground", is_flag=True, help="Stay here until Ctrl-C, instead of going on in the background.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but where it serves, and errors.")
@settings_options
@json_option
@with_options
def start(options: Options, model: str | None, *, foreground: bool) -> None:
    """Load MODEL, or the one of the settings, over the workers, and keep it loaded for later runs.

    MODEL is a tag of Ollama's (llama3.1:70b), or the path of a GGUF file.
    """
    settings = load(options).settings
    chosen = named_model(model, settings, "distributed start")
    view = LoadView(sys.stderr, quiet=options.quiet, last_line="Ctrl-C ends it" if foreground else "")
    try:
        asyncio.run(_here(chosen, settings, view, options) if foreground else _away(chosen, settings, view, options))
    finally:
        view.close()


async def _away(model: str, settings: Settings, view: Any, options: Options) -> None:
    """Start the service in the background and wait until it is ready."""
    await unblocked(settings, open_model(model))
    began = time.monotonic()
    launched = service.launch(model, settings)
    if launched.was_running:
        note(options, f"{launched.record.model} is loaded or being loaded already (process {launched.record.pid})")
    record = await service.follow(launched, view)
    view.close()
    if not launched.was_running:
        note(options, f"loaded in {seconds(time.monotonic() - began)}")
    _announce(record, settings, options)
    note(options, f"stop it with: synaptic distributed stop {record.model}")


async def _here(model: str, settings: Settings, view: Any, options: Options) -> None:
    """Be the service, until Ctrl-C or SIGTERM."""
    announced = False

    def shown(record: ServiceRecord) -> None:
        nonlocal announced
        view(record)
        if record.ready and not announced and not view.drawn_in_place:
            announced = True
            _announce(record, settings, options)
            note(options, "Ctrl-C ends it")

    running = await service.run_here(model, settings, shown=shown)
    if running is not None:
        note(options, f"{running.model} is loaded or being loaded already (process {running.pid})")
        _announce(running, settings, options)


@distributed.command(epilog=_STOP_EPILOG, short_help="End the service of a model.")
@click.argument("model", required=False)
@click.option("--all", "everything", is_flag=True, help="End all services.")
@with_options
def stop(options: Options, model: str | None, *, everything: bool) -> None:
    """End the service of MODEL, or the only one that runs, with all that it started."""
    if everything and model is not None:
        raise UsageError("name a model, or write --all, not both", hint="as in: synaptic distributed stop --all")
    records = _records(model, at_most=None if everything else 1)

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            ends = {record.model: group.create_task(service.stop(record)) for record in records}
        for name, ended in ends.items():
            note(
                options, f"{name} is stopped" + ("" if ended.result() else "; it did not end by itself, and was killed")
            )

    asyncio.run(run())
    if not records:
        note(options, "no service runs")


@distributed.command(epilog=_STATUS_EPILOG, short_help="Show which models are loaded, and who holds which worker.")
@click.option("--watch", is_flag=True, help="Redraw it until Ctrl-C.")
@json_option
@with_options
def status(options: Options, *, watch: bool) -> int:
    """Show the services with their layers on each worker, and who holds which worker; nothing is contacted."""
    if watch and (options.json or not sys.stdout.isatty()):
        raise UsageError("--watch needs a terminal, and is not for --json", hint="leave it out")
    if watch:
        watch_services(sys.stdout)
    records = service.read_records()
    if options.json:
        write_json(_document(records))
    elif not watch:
        _show(records, options)
    ready = sum(record.ready for record in records)
    return 0 if ready and ready == len(records) else 1 if ready else 3


@distributed.command(epilog=_LOGS_EPILOG, short_help="Show what its processes wrote to their logs.")
@click.argument("model", required=False)
@click.option("-n", "--lines", type=click.IntRange(0, 100_000), default=20, show_default=True, help="Lines of each.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written, until Ctrl-C.")
def logs(model: str | None, lines: int, *, follow: bool) -> None:
    """Show the last lines of the logs of MODEL, or of the only service that runs: service, coordinator, workers."""
    show_logs(_logs_of(model), lines, follow=follow)


def _announce(record: ServiceRecord, settings: Settings, options: Options) -> None:
    """Print where a service serves, and what a run needs to find it."""
    if options.json:
        write_json(record_document(record))
    elif options.quiet:
        write_text(record.url or "")
    else:
        _show_records([record])
        write_text(f"  its API key is in {record.file}")
        if not settings.distributed_inference_enabled:
            note(options, "runs use it with: synaptic config set distributed_inference_enabled true")


def _records(model: str | None, *, at_most: int | None) -> list[ServiceRecord]:
    """Return the services that are meant: that of a model, else those that run.

    Raises:
        UsageError: If the model has none, or more run than are wanted.
    """
    records = service.read_records()
    names = [record.model for record in records]
    if model is not None:
        found = [record for record in records if service.is_called(record, model)]
        if not found:
            running = did_you_mean(model, names) if names else "synaptic distributed start loads one"
            raise UsageError(f"no service of {model} runs", hint=running)
        return found
    if at_most is not None and len(records) > at_most:
        raise UsageError(f"{len(records)} services run: {', '.join(names)}", hint="name one of them")
    return records


def _show(records: Sequence[ServiceRecord], options: Options) -> None:
    _show_records(records)
    if not records:
        note(options, "no service runs; synaptic distributed start loads a model")
    if holders := WorkerRegistry().holders():
        if records:
            write_text("")
        write_table(HOLDER_HEADERS, holder_rows(holders, time.time()))


def _show_records(records: Sequence[ServiceRecord]) -> None:
    drawn_with = glyphs(sys.stdout)
    for record in records:
        for line in record_lines(record, terminal_width(sys.stdout), time.time(), drawn_with):
            write_text(line)


def _document(records: Sequence[ServiceRecord]) -> dict[str, Any]:
    return {
        "services": [record_document(record) for record in records],
        "held": [holder_document(holder) for holder in WorkerRegistry().holders()],
    }


def _logs_of(model: str | None) -> Callable[[], Sequence[service.Log]]:
    """Return a function that tells which logs a service has now.

    Raises:
        UsageError: If none is meant by the words, or there is none.
    """
    if model is not None and service.service_log(model).exists() and record_of(model) is None:
        left = [service.Log("service", service.service_log(model))]
        write_text(f"no service of {model} runs; this is the log of the last one", sys.stderr)
        return lambda: left
    records = _records(model, at_most=1)
    if not records:
        raise UsageError("no service runs", hint="name the model whose service ran: synaptic distributed logs MODEL")
    (record,) = records
    return lambda: service.logs_of(record_of(record.model) or record)
