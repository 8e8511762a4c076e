"""``synaptic runs``: what was run, told again, looked for, handed on and removed."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, cast

import click

from synaptic.errors import ExitCode, UsageError
from synaptic.runtime import Journal
from synaptic.text import plural, size, written_duration, written_size
from synaptic.ui import screen, shell_values  # what renders a run loads when one is shown
from synaptic.ui.actions import account_of, known_step, show_runs, told
from synaptic.ui.commands.runs_again import AGAIN
from synaptic.ui.commands.support import CliVoice, paged, read_written
from synaptic.ui.options import json_option, with_options
from synaptic.ui.screen import (
    FOUND_HEADERS,
    RUN_HEADERS,
    account_document,
    account_html,
    account_markdown,
    found_rows,
    run_row_document,
    run_rows,
    write_document,
    write_json,
    write_table,
    write_text,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.runtime import KeptRun, KeptStatus
    from synaptic.ui.options import Options

STATUSES = ("running", "waiting", "interrupted", "succeeded", "stopped", "failed", "cancelled", "damaged")

_SHOWN = 10
"""Of the runs that would go, the latest so many are listed."""

_PRUNE_EPILOG = """\b
As in:
  synaptic runs prune --keep 200                the latest 200 stay, all others go
  synaptic runs prune --older 30d               those go that began before 30 days
  synaptic runs prune --older 30d --keep 50     the same, but the latest 50 stay
  synaptic runs prune --max-bytes 500M          the oldest go until 500 MB are in use

\b
Runs that are pinned or at work stay. A text goes with the last run that has it."""


@click.group()
def runs() -> None:
    """List, find, show and remove recorded runs, go on with them, begin others with them.

    RUN is the id of a run, or a beginning or an end of it that no other has.
    """


@runs.command("list")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many at most.")
@click.option("--all", "wants_all", is_flag=True, help="All of them.")
@click.option("--status", type=click.Choice(STATUSES), help="Only those that ended so.")
@click.option("-p", "--pipeline", metavar="NAME", help="Only runs of this pipeline.")
@click.option("--since", metavar="AGE", help="Only those that began since then: 2d, 12h, 30min.")
@json_option
@with_options
def list_runs(
    options: Options,
    *,
    limit: int,
    wants_all: bool,
    status: str | None,
    pipeline: str | None,
    since: str | None,
) -> None:
    """List runs: first those that can go on, however old (half the list at most), then the others, the latest first."""
    after = None if since is None else time.time() - read_written(written_duration, "--since", since)
    most = None if wants_all else limit
    with Journal() as journal:
        if status is None:
            found = journal.resumable_first(limit=most, pipeline=pipeline, after=after)
        else:
            found = journal.runs(limit=most, status=cast("KeptStatus", status), pipeline=pipeline, after=after)
    if options.json:
        write_json([run_row_document(run) for run in found])
    else:
        show_runs(CliVoice(options), found)


@runs.command()
@click.argument("run", required=False, shell_complete=shell_values.runs)
@click.option("--step", metavar="STEP", help="Only this step.")
@json_option
@with_options
def show(options: Options, run: str | None, *, step: str | None) -> None:
    """Tell a run again, by default the latest: its steps, with prompts, answers and what they took."""
    with Journal() as journal:
        account = account_of(journal, run)
    if options.json:
        document = account_document(account)
        write_json(document if step is None else [each for each in document["steps"] if each["id"] == step])
        return
    if sys.stdout.isatty():
        paged(screen.account_page(account, known_step(account, step), sys.stdout))
    else:
        write_text(told(account, step))


@runs.command()
@click.argument("text")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many at most.")
@json_option
@with_options
def grep(options: Options, text: str, *, limit: int) -> int:
    """Find TEXT in what runs were asked and said; exit code 1 if it is nowhere.

    Case, accents and line breaks do not count; it begins with the beginning of a word.
    """
    with Journal() as journal:
        found = journal.grep(text, limit=limit)
    if options.json:
        write_json(
            [
                {**run_row_document(each.run), "step": each.path, "text": each.before + each.text + each.after}
                for each in found
            ]
        )
    elif found:
        CliVoice(options).table(found_rows(found), FOUND_HEADERS)
    else:
        CliVoice(options).note("no recorded run has it")
    return 0 if found else 1


@runs.command()
@click.argument("run", required=False, shell_complete=shell_values.runs)
@click.option("--json", "form", flag_value="json", default="json", help="As JSON, the default.")
@click.option("--md", "form", flag_value="md", help="As Markdown.")
@click.option("--html", "form", flag_value="html", help="As one page of HTML.")
def export(run: str | None, *, form: str) -> None:
    """Hand on a run, by default the latest: everything that is known of it, on standard output."""
    with Journal() as journal:
        account = account_of(journal, run)
    if form == "json":
        write_json(account_document(account))
    else:
        write_document(account_html(account) if form == "html" else account_markdown(account))


@runs.command(epilog=_PRUNE_EPILOG)
@click.option("--keep", type=click.IntRange(min=0), metavar="N", help="The latest N stay.")
@click.option("--older", metavar="AGE", help="Those go that began longer ago: 30d, 12h, 2w.")
@click.option("--max-bytes", metavar="SIZE", help="The oldest go until so much is in use: 500M, 2G.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask; without a terminal, nothing is asked either.")
@with_options
def prune(options: Options, *, keep: int | None, older: str | None, max_bytes: str | None, yes: bool) -> int:
    """Remove recorded runs, the oldest first; on a terminal, say which and ask before."""
    if keep is None and older is None and max_bytes is None:
        raise UsageError("nothing says which runs go", hint="write --keep N, --older 30d or --max-bytes 500M")
    before = None if older is None else time.time() - read_written(written_duration, "--older", older)
    most = None if max_bytes is None else int(read_written(written_size, "--max-bytes", max_bytes))
    bounds: dict[str, Any] = {"keep": keep, "before": before, "max_bytes": most}
    voice = CliVoice(options)
    with Journal() as journal:
        if not yes and sys.stdin.isatty() and sys.stderr.isatty() and not _agreed(journal.to_prune(**bounds)):
            voice.note("nothing was removed")
            return int(ExitCode.FAILED)
        removed = journal.prune(**bounds)
    voice.note(f"removed {plural(removed.runs, 'run')}, {size(max(0, removed.bytes))}")
    return int(ExitCode.ANSWERED)


@runs.command()
@click.argument("run", shell_complete=shell_values.runs)
@click.option("--remove", is_flag=True, help="It may go again when room is made.")
@with_options
def pin(options: Options, run: str, *, remove: bool) -> None:
    """Keep a run when room is made."""
    with Journal() as journal:
        pinned = journal.pin(run, pinned=not remove)
    CliVoice(options).note(f"{pinned.id} is {'kept' if pinned.pinned else 'pinned no longer'}")


for command in AGAIN:
    runs.add_command(command)


def _agreed(going: Sequence[KeptRun]) -> bool:
    """Say which runs would go, and ask whether they may; where none would, there is nothing to ask."""
    if not going:
        return True
    shown = going[-_SHOWN:]
    write_table(RUN_HEADERS, run_rows(shown[::-1]), sys.stderr)
    older = len(going) - len(shown)
    more = f"and {plural(older, 'older run')}; " if older else ""
    write_text(f"{more}about {size(sum(run.bytes for run in going))} in all", sys.stderr)
    return click.confirm(f"Remove {plural(len(going), 'run')}?", err=True)
