"""A bit that changes in what the journal keeps of a gateway's clients, or in a note, is found."""

import json
import sqlite3
import time
from pathlib import Path

import pytest
from flipped_bytes import flip_byte, flip_through

from synaptic.processes import SqliteFile
from synaptic.runtime import KeptResponse, KeptResponses
from synaptic.runtime.journal import Journal
from synaptic.runtime.journal.tables import MIGRATIONS, migrate
from synaptic.runtime.journal.usage_rows import USAGE_COLUMNS, UsedCall, insert_calls

CALL = UsedCall(
    at=time.time(),
    key="phone",
    dialect="openai",
    model="llama3.1:8b",
    node="http://desk:11434",
    status="succeeded",
    prompt_tokens=70_000,
    completion_tokens=33_000,
    estimated_tokens=123_456_789,
    seconds=1.5,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "journal.sqlite3"
    opened = SqliteFile(path, migrate)
    insert_calls(opened.open(), [CALL])
    opened.close()
    kept = KeptResponse(id="resp_one", previous="resp_two", given=[{"text": "the question"}], told={"a": 1})
    KeptResponses(path).keep(kept, "mine")
    with Journal(path) as journal:
        journal.note("taken back S", "RUN1 RUN0")
        journal.note("pruned", json.dumps({"runs": 12345, "bytes": 99, "at": 1.0}))
    return path


def told(file: Path) -> set[tuple[str, str]]:
    """All that is told of the file: a place that is damaged tells nothing."""
    with Journal(file) as journal:
        facts = {("usage", repr(used)) for used in journal.usage(*USAGE_COLUMNS)}
        facts |= {("note", repr(journal.noted("taken back S"))), ("pruned", repr(journal.last_pruned()))}
    found = [(whose, KeptResponses(file).find("resp_one", whose)) for whose in ("mine", "oine", "line")]
    return {fact for fact in (*facts, *((whose, repr(kept)) for whose, kept in found)) if fact[1] != "None"}


def test_every_byte_of_the_rows_counts(file: Path) -> None:
    assert len(told(file)) == 4
    starts = [file.read_bytes().index(word) for word in (b"llama3.1:8b", b"resp_two", b"RUN1 RUN0", b"12345")]
    found, wrong = flip_through(file, (place for start in starts for place in range(start - 50, start + 80)), told)
    assert wrong == []
    assert found > 250


def test_calls_that_are_damaged_are_counted_apart(file: Path) -> None:
    flip_byte(file, file.read_bytes().index((70_000).to_bytes(3)))
    with Journal(file) as journal:
        assert (journal.usage(), journal.damaged_calls()) == ([], 1)
        assert journal.usage("key") == []


def test_rows_of_an_older_version_are_sealed_as_they_are(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        for table in ("calls", "responses", "notes"):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN seal")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) - 1}")
    connection.close()
    assert len(told(file)) == 4
    with Journal(file) as journal:
        assert (journal.damaged_calls(), journal.noted("taken back S")) == (0, "RUN1 RUN0")
