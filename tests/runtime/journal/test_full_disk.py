"""Recorded runs on a disk that is full, or may only be read: they can be looked at, and removed where that can be."""

import contextlib
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import run_here
from run_support import Run

from synaptic import paths
from synaptic.errors import JournalError
from synaptic.runtime.journal import Journal

ONE = "  end: {agent: writer, prompt: '{{ inputs.query }}'}"


def mounted(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk() -> Iterator[Path]:
    """A disk of 4 MB that has nothing but the record of runs."""
    folder = paths.journal_file().parent
    folder.mkdir(parents=True, exist_ok=True)
    try:
        mounted("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder))
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Take all the room that there is."""
    with (disk / "other").open("wb", buffering=0) as other, contextlib.suppress(OSError):
        while True:
            other.write(bytes(4096))
    assert os.statvfs(disk).f_bavail == 0


async def record(runs: int) -> None:
    for number in range(runs):
        await Run(ONE)(f"{number} {os.urandom(20_000).hex()}")


async def test_runs_are_removed_on_a_full_disk_and_those_that_stay_are_whole(disk: Path):
    await record(12)
    fill(disk)

    done = run_here("runs", "prune", "--keep", "3", "--yes")

    assert done.code == 0 and "removed 9 runs" in done.err
    assert os.statvfs(disk).f_bavail > 0
    with Journal() as journal:
        kept = journal.runs()
        assert [journal.beginning(run).inputs["query"].split()[0] for run in kept] == ["11", "10", "9"]
        assert [run.status for run in kept] == ["succeeded"] * 3
    with contextlib.closing(sqlite3.connect(paths.journal_file())) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    await record(1)  # there is room again
    with Journal() as journal:
        assert journal.count() == 4


async def test_runs_are_listed_and_shown_on_a_full_disk(disk: Path):
    await record(2)
    fill(disk)

    with Journal() as journal:
        [latest, _] = journal.runs()
        assert journal.beginning(latest).inputs["query"].startswith("1 ")


async def test_where_another_program_has_the_full_file_open_nothing_is_changed_in_place(disk: Path):
    await record(12)
    with contextlib.closing(sqlite3.connect(paths.journal_file())) as other:
        assert other.execute("SELECT count(*) FROM runs").fetchone() == (12,)
        fill(disk)
        with Journal() as journal, pytest.raises(JournalError, match="full") as error:
            journal.prune(keep=3)
        assert "room" in error.value.hint
        assert other.execute("SELECT count(*) FROM runs").fetchone() == (12,)


async def test_a_disk_that_may_only_be_read_is_read(disk: Path):
    await record(2)
    mounted("-o", "remount,ro", str(disk))

    listed, pruned = run_here("runs", "list"), run_here("runs", "prune", "--keep", "0", "--yes")

    assert listed.code == 0 and listed.out.count("succeeded") == 2, listed
    assert pruned.code == 2 and "cannot be written" in pruned.err and "Traceback" not in pruned.err, pruned
