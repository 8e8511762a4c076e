"""A bit that changes in a row of runs, or in the text of an open call, is found: nothing is told that none wrote."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from flipped_bytes import flip_byte, flip_through
from run_support import Run

from synaptic import paths
from synaptic.backends.scripted import Failure
from synaptic.runtime.journal import Journal
from synaptic.runtime.journal.run_ids import began, new_run_id

SAYS = "Once upon a time there was a heat pump in the cold. " * 4


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    """A copy of a record with a run that ended, and one whose call is open."""
    await Run("  end: {agent: writer, prompt: '{{ inputs.query }}'}")("What is warm?")
    script = {"end": Failure("stall", after_tokens=30, text=SAYS)}
    task = asyncio.create_task(Run("  end: {agent: writer, prompt: x}", script)("What is cold?"))
    copy = tmp_path / "copy.sqlite3"
    while b"Once upon" not in (copy.read_bytes() if copy.exists() else b""):
        await asyncio.sleep(0.05)
        copy.unlink(missing_ok=True)
        connection = sqlite3.connect(paths.journal_file())
        connection.execute("VACUUM INTO ?", (str(copy),))
        connection.close()
    task.cancel()
    await asyncio.wait([task])
    return copy


def told(file: Path) -> set[tuple[int, str]]:
    """What is told of each run, but of one whose row is damaged; and what its open calls had said."""
    with Journal(file) as journal:
        runs = journal.runs()
        texts = {(run.number, text) for run in runs for text in journal.open_texts(run).items()}
        return texts | {(run.number, repr(run)) for run in runs if run.status != "damaged"}


def test_every_byte_of_the_rows_counts(file: Path):
    assert len(told(file)) == 3
    content, places = file.read_bytes(), []
    for word, before, after in ((b"What is warm?", 90, 180), (b"What is cold?", 90, 180), (b"Once upon", 20, 120)):
        start = content.index(word)
        places += range(start - before, start + after)
    found, wrong = flip_through(file, places, told)
    assert wrong == []
    assert found > 400


def flip_in_row(file: Path, word: bytes) -> None:
    flip_byte(file, file.read_bytes().index(word), 0x02)


def test_a_damaged_row_is_listed_as_that_and_the_others_as_they_were(file: Path):
    with Journal(file) as journal:
        cold, warm = journal.runs()
    flip_in_row(file, b"What is warm?")
    with Journal(file) as journal:
        again, damaged = journal.runs()
        assert again == cold
        assert (damaged.id, damaged.status, damaged.query, damaged.can_go_on) == (warm.id, "damaged", None, False)
        assert abs(damaged.started - warm.started) < 1
        assert journal.runs(status="damaged") == [damaged]
        assert len(journal.account(damaged).steps) == 1  # events have seals of their own
        assert journal.pin(warm.id[-8:]).pinned
        assert journal.run(warm.id).status == "damaged"  # writing makes nothing whole again
        journal.prune(keep=1)
        assert journal.runs() == [cold]


def test_a_pin_is_sealed_as_well(file: Path):
    with Journal(file) as journal:
        pinned = journal.pin(journal.runs()[1].id)
        assert journal.run(pinned.id) == pinned


def test_a_record_of_an_older_version_has_no_seals_and_is_read(file: Path):
    with sqlite3.connect(file) as connection:
        for table in ("runs", "open_text", "notes"):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN seal")
        for table in ("calls", "responses"):  # those of later versions
            connection.execute(f"DROP TABLE {table}")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    with Journal(file) as journal:
        cold, warm = journal.runs()
        assert (warm.query, warm.status) == ("What is warm?", "succeeded")
        assert "Once upon" in journal.open_texts(cold)["end"]


def test_the_name_of_a_run_tells_when_it_was_begun():
    name = new_run_id()
    assert began(name) * 1000 == int(began(name) * 1000) > 1_700_000_000_000
    assert began(name[:-1]) == began("U" * 26) == 0.0
