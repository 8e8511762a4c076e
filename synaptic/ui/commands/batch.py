"""``synaptic batch``: one pipeline over a file of inputs, to a file of results."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from synaptic import cluster, paths, runtime
from synaptic.agents import discover_agents
from synaptic.errors import ExitCode, UsageError
from synaptic.messages import BackendNotice
from synaptic.pipeline import Pipeline, named_tools
from synaptic.processes import told_to_end
from synaptic.text import plural, rough_seconds, whole_seconds
from synaptic.ui.commands.support import load
from synaptic.ui.options import batch_options, with_options
from synaptic.ui.screen import show_hint, stderr_console
from synaptic.waiting import steady_time

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from synaptic.messages import BackendReport
    from synaptic.runtime import BatchCount
    from synaptic.settings import Settings
    from synaptic.ui.options import Options

AT_ONCE: Final = 16
NEWS_SECONDS: Final = 30.0
"""Between two lines where standard error is no terminal."""
_WHOLE: Final = 100
"""Runs a minute from which on a tenth of one says nothing."""
_OTHER_TABLES: Final = frozenset({".csv", ".tsv", ".xls", ".xlsx"})
_FORMS: Final = "use lines of JSON (.jsonl) or a table (.parquet)"

_EPILOG = """\b
A line of FILE.jsonl is JSON: {"query": "..."} with the inputs of the pipeline, or
"..." for a question alone. A line of results has the line and the status, the
answer, the tokens and the error; the same command again goes on after Ctrl-C or
a kill, does nothing twice, and tries again what failed. Either file is a table
where its name ends in .parquet: a column an input, a row a result.

\b
As in:
  synaptic batch classify.yaml tickets.jsonl -o classes.jsonl
  synaptic batch answer questions.jsonl -o answers.jsonl --concurrency 32
  synaptic batch answer questions.parquet -o answers.parquet --ray 10.0.0.4:6379

Exit codes: 0 all succeeded, 1 some failed, 130 interrupted."""


class _View:
    """Shows how far a batch is: a bar on a terminal, else a line now and then."""

    def __init__(self, options: Options) -> None:
        self._console = stderr_console()
        self._quiet = options.quiet
        self._bar: Progress | None = None
        self._warned: set[str] = set()
        self._began = self._said = steady_time()

    def begin(self, count: BatchCount) -> None:
        """Say what is left of an earlier call; from now on it is measured how fast the rest comes."""
        self._began = self._said = steady_time()
        if self._quiet:
            return
        if count.before:
            self._console.print(f"{plural(count.before, 'result')} of {count.total} were there already", style="dim")
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[news]}"), TimeRemainingColumn())
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.add_task("", total=count.total, completed=count.before, news="")
            self._bar.start()

    def show(self, count: BatchCount) -> None:
        """Show that a run has ended."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.update(TaskID(0), completed=count.ended, news=self._news(count))
        elif steady_time() - self._said > NEWS_SECONDS:
            self._said = steady_time()
            left = (count.total - count.ended) * (self._said - self._began) / (count.succeeded + count.failed)
            said = f"{count.ended} of {count.total}, {self._news(count)}, about {rough_seconds(left)} left"
            self._console.print(said, style="dim", highlight=False)

    def tell(self, report: BackendReport) -> None:
        """Show what is said of a node."""
        if not self._quiet and isinstance(report, BackendNotice):
            self._console.print(report.message, style="yellow", highlight=False, markup=False)

    def warn(self, report: BackendReport) -> None:
        """Show what goes wrong beside the runs, once: that they are not recorded, say, and so cannot go on."""
        if isinstance(report, BackendNotice) and report.level == "warning" and report.message not in self._warned:
            self._warned.add(report.message)
            self.tell(report)

    def end(self, count: BatchCount, output: str) -> None:
        """Say how it ended, and how it goes on."""
        if self._bar is not None:
            self._bar.stop()
        if self._quiet:
            return
        took = whole_seconds(steady_time() - self._began)
        self._console.print(f"{count.ended} of {count.total} in {took}, {self._news(count)}: {output}", highlight=False)
        if count.hopeless is not None:
            show_hint(self._console, f"given up after {runtime.HOPELESS} failures in a row, the last: {count.hopeless}")
        if count.failed or count.ended < count.total:
            show_hint(self._console, "the same command goes on, and tries again what failed")

    def _news(self, count: BatchCount) -> str:
        minutes = max(steady_time() - self._began, 0.1) / 60
        failed = f"{count.failed} failed, " if count.failed else ""
        rate = (count.succeeded + count.failed) / minutes
        return f"{failed}{rate:{',.0f' if rate >= _WHOLE else '.3g'}} a minute, {count.tokens} tokens"


@click.command("batch", epilog=_EPILOG)
@click.argument("pipeline", metavar="NAME|FILE")
@click.argument("inputs", metavar="FILE.jsonl|FILE.parquet")
@click.option("-o", "--output", metavar="PATH", required=True, help="File of results: lines of JSON, or .parquet.")
@click.option("--concurrency", type=click.IntRange(1, 10_000), default=AT_ONCE, help="Runs at the same time. [16]")
@click.option("--ordered/--as-they-end", default=True, help="How the rows stand once all are there. [--ordered]")
@click.option(
    "--ray",
    "address",
    metavar="[ADDRESS]",
    is_flag=False,
    flag_value="",
    help="Run on the nodes of a Ray cluster: host:port, 'auto', 'local'. [ray_address, or 'local']",
)
@batch_options
@with_options
def batch(
    options: Options,
    pipeline: str,
    inputs: str,
    output: str,
    *,
    concurrency: int,
    ordered: bool,
    address: str | None,
) -> int:
    """Run a pipeline over a file of inputs, and write a file of results."""
    _refuse_other_places(inputs, output)
    loaded = load(options)
    chosen = Pipeline.find(pipeline)
    items = runtime.read_items(paths.expanded(inputs), chosen, loaded.settings.pipeline_inputs)
    results = runtime.Results.open(paths.expanded(output), runtime.made_by(chosen, options.model))
    complete = False
    view = _View(options)
    try:
        owner: AbstractAsyncContextManager[object]
        if address is None:
            owner = session = _session(options, loaded.settings, concurrency, view)
            runs: runtime.ItemRuns = runtime.SessionRuns(session, chosen, options.model)
        else:
            order = _order(options, loaded.settings, chosen, concurrency)
            owner = runs = cluster.RayRuns(address or loaded.settings.ray_address or "local", order, view.tell)
        work = runtime.Batch(runs, items, results, told=view.show)
        code = asyncio.run(_until_told(owner, work, concurrency, view))
        complete = code == ExitCode.ANSWERED
        if complete and ordered:
            results.put_in_order(item.key for item in items)
    finally:
        results.close(complete=complete)
    view.end(work.count, output)
    return code


def _refuse_other_places(inputs: str, output: str) -> None:
    """Refuse what other programs take for inputs and results, where lines of JSON would be read and written.

    Raises:
        UsageError: For a standard stream, and for the name of another kind of table.
    """
    for what, path in (("the inputs", inputs), ("-o", output)):
        if path == "-":
            message = f"{what}: a batch reads and writes files, with which it goes on after a kill, and no stream"
            raise UsageError(message, hint=f"name a file; {_FORMS}")
        if (kind := Path(path).suffix.lower()) in _OTHER_TABLES:
            python = "python3 -c 'import csv, json, sys; [print(json.dumps(row)) for row in csv.DictReader(sys.stdin)]'"
            cure = f"; {python} < {path} > FILE.jsonl converts it" if path == inputs and kind == ".csv" else ""
            raise UsageError(f"{what}: {path} is a kind of table that a batch does not know", hint=f"{_FORMS}{cure}")


def _session(options: Options, settings: Settings, concurrency: int, view: _View) -> runtime.Session:
    book = discover_agents()

    def heard(event: runtime.Event) -> None:
        if isinstance(event, runtime.BackendReported):
            view.warn(event.report)

    return runtime.Session(
        settings,
        tools=named_tools(options.tools),
        approver=runtime.approve_all if options.yes else None,
        priority="batch",
        runs_at_once=concurrency,
        steady={name: book[name] for name in book},
        on_event=heard,
    )


def _order(options: Options, settings: Settings, chosen: Pipeline, concurrency: int) -> cluster.BatchOrder:
    tools, approved = options.tools, options.yes
    return cluster.BatchOrder.of(
        chosen, settings, model=options.model, tools=tools, approved=approved, at_once=concurrency
    )


async def _until_told(
    owner: AbstractAsyncContextManager[object], work: runtime.Batch, concurrency: int, view: _View
) -> int:
    """Run the batch until it is through, or this program is told to end; return the exit code."""
    with told_to_end() as ended:
        running = asyncio.create_task(_run(owner, work, concurrency, view))
        waiting = asyncio.create_task(ended.wait())
        await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not running.done():
            running.cancel()
            await asyncio.wait([running])
            return ExitCode.INTERRUPTED
        count = running.result()
    return int(ExitCode.FAILED if count.failed or count.hopeless else ExitCode.ANSWERED)


async def _run(
    owner: AbstractAsyncContextManager[object], work: runtime.Batch, concurrency: int, view: _View
) -> BatchCount:
    async with owner:
        await work.check()
        view.begin(work.count)
        return await work.run(concurrency)
