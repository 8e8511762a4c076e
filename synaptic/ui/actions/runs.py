"""Runs of the journal, for the command line and for the prompt alike."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from synaptic.backends import Finding
from synaptic.errors import JournalError
from synaptic.runtime import Journal
from synaptic.text import did_you_mean, plural, size, when
from synaptic.ui.screen import RUN_HEADERS, account_lines, run_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.runtime import KeptRun, RunAccount, RunResult
    from synaptic.settings import Settings
    from synaptic.ui.actions.voice import Voice

AT_ONCE = (
    "another program asked in this conversation at the same moment: "
    "the last question begins a conversation of its own, with the turns before it"
)
NONE_YET = "no runs are recorded yet"


def show_runs(voice: Voice, runs: Sequence[KeptRun]) -> None:
    """Print a list of runs."""
    if not runs:
        voice.note(NONE_YET)
        return
    voice.table(run_rows(runs), RUN_HEADERS)


def how_to_go_on(result: RunResult, settings: Settings) -> str:
    """Return how a run goes on that has not come to its end; "" for one that has, or that is not recorded."""
    if result.status == "succeeded" or settings.journal == "off":
        return ""
    with suppress(JournalError), Journal() as journal:  # a disk that is full has kept nothing of it
        journal.run(result.run_id)
        return going_on(result.run_id)
    return ""


def going_on(run_id: str) -> str:
    """Return the line that goes on with a run."""
    return f"to go on with it: synaptic runs resume {run_id}"


def account_of(journal: Journal, run_id: str | None) -> RunAccount:
    """Return the account of a run, of the latest where none is named.

    Raises:
        JournalError: If there is none.
    """
    if run_id is not None:
        return journal.account(journal.run(run_id))
    latest = journal.runs(limit=1)
    if not latest:
        raise JournalError(NONE_YET)
    return journal.account(latest[0])


def journal_finding(settings: Settings) -> Finding:
    """Return what there is to say of the record of runs."""
    if settings.journal == "off":
        return Finding("journal", "note", "runs are not recorded: the setting journal is off")
    with Journal() as journal:
        if not journal.path.exists():
            return Finding("journal", "ok", f"{journal.path} (not there yet)")
        try:
            runs, pruned = journal.runs(), journal.last_pruned()
        except JournalError as exc:
            return Finding("journal", "problem", exc.message, exc.hint)
        told = f"{journal.path}: {plural(len(runs), 'run')}, {size(journal.path.stat().st_size)}"
    if damaged := sum(run.status == "damaged" for run in runs):
        hint = "'synaptic runs list --status damaged' shows them; is the disk well?"
        return Finding("journal", "problem", f"{told}; of {plural(damaged, 'run')} the row is damaged", hint)
    if pruned is not None:
        told += f"; {plural(pruned.runs, 'run')} made room {when(pruned.at)} (journal_max_bytes)"
    return Finding("journal", "ok", told)


def known_step(account: RunAccount, step: str | None) -> str | None:
    """Return the path of a step that a person named, if any.

    Raises:
        JournalError: If the run has no such step.
    """
    paths = [each.path for each in account.steps]
    if step is not None and step not in paths:
        raise JournalError(f"the run {account.run.id} has no step {step!r}", hint=did_you_mean(step, paths))
    return step


def told(account: RunAccount, step: str | None = None) -> str:
    """Return a run in full, or one step of it.

    Raises:
        JournalError: If it has no such step.
    """
    return "\n".join(account_lines(account, known_step(account, step))).strip("\n")
