"""The usage ledger: what is written of calls, how it is added up, and what happens where the file cannot be written."""

import asyncio
import sqlite3
import time

import pytest
from run_support import AGENTS, SETTINGS, pipeline

from synaptic import paths
from synaptic.backends.scripted import ScriptedBackend
from synaptic.errors import JournalError
from synaptic.messages import BackendNotice
from synaptic.runtime import Journal, Session, UsageLedger, UsedCall
from synaptic.runtime.journal.usage_rows import KEPT_SECONDS

DAY = 86400.0
NOW = 1_800_000_000.0  # in January 2027


def call(key: str | None = "phone", model: str = "m", *, at: float = NOW, tokens: int = 10, **more) -> UsedCall:
    known = {"dialect": "ollama", "node": "a", "status": "succeeded", "seconds": 0.5, "estimated_tokens": 0}
    return UsedCall(
        **{**known, **more}, at=at, key=key, model=model, prompt_tokens=tokens, completion_tokens=2 * tokens
    )


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def ledger(said: list[str]) -> UsageLedger:
    def report(notice: object) -> None:
        assert isinstance(notice, BackendNotice)
        said.append(notice.message)

    return UsageLedger(paths.journal_file(), report=report)


async def test_calls_are_written_together_and_added_up(ledger: UsageLedger, said: list[str]):
    with Journal() as journal:
        assert journal.usage("key") == []  # there is no file
    for made in (call(), call(at=NOW + DAY, tokens=1), call("desk", "n", tokens=100), call(None, estimated_tokens=7)):
        ledger.add(made)
    await ledger.settled()
    with Journal() as journal:
        (total,) = journal.usage()
        assert (total.calls, total.prompt_tokens, total.completion_tokens, total.estimated_tokens) == (4, 121, 242, 7)
        assert (total.tokens, total.seconds) == (370, 2.0)
        by_key = {used.group["key"]: used.tokens for used in journal.usage("key")}
        assert by_key == {"desk": 300, "phone": 33, None: 37}
        by_day = journal.usage("day", "model", key="phone")
        assert [(used.group, used.tokens) for used in by_day] == [
            ({"day": "2027-01-15", "model": "m"}, 30),
            ({"day": "2027-01-16", "model": "m"}, 3),
        ]
        assert [used.calls for used in journal.usage(after=NOW + 1)] == [1]
        assert journal.usage(after=NOW + 2 * DAY) == []
    await ledger.aclose()
    assert said == []


async def test_the_ledger_and_runs_share_the_file(ledger: UsageLedger):
    async with Session(SETTINGS, backend=ScriptedBackend(), agents=AGENTS) as session:

        async def run() -> None:
            for _ in range(5):
                await session.run("why", pipeline=pipeline("  end: {agent: writer, prompt: '{{ inputs.query }}'}"))
                ledger.add(call())

        await asyncio.gather(run(), run())
    await ledger.aclose()
    with Journal() as journal:
        assert len(journal.runs()) == 10
        assert [used.calls for used in journal.usage()] == [10]


async def test_rows_are_kept_for_a_year_and_a_bit(ledger: UsageLedger):
    ledger.add(call(at=time.time() - KEPT_SECONDS - 10))
    ledger.add(call(at=time.time()))
    await ledger.aclose()
    with Journal() as journal:
        assert [used.calls for used in journal.usage()] == [1]


async def test_a_damaged_file_is_moved_aside_and_one_that_was_removed_begun_again(ledger: UsageLedger, said: list[str]):
    file = paths.journal_file()
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x" * 8192)
    ledger.add(call())
    await ledger.settled()
    (aside,) = file.parent.glob("journal.sqlite3.damaged-*")
    assert len(said) == 1
    assert str(aside) in said[0]
    for one in file.parent.glob("journal.sqlite3*"):
        one.unlink()
    ledger.add(call())
    await ledger.aclose()
    with Journal() as journal:
        assert [used.calls for used in journal.usage()] == [1]


async def test_calls_wait_for_a_file_that_cannot_be_written_and_that_is_said_once(ledger: UsageLedger, said: list[str]):
    file = paths.journal_file()
    file.mkdir(parents=True)
    for _ in range(2):
        ledger.add(call())
        await ledger.settled()
    assert len(said) == 1
    assert "not written" in said[0]
    file.rmdir()
    ledger.add(call())
    await ledger.settled()
    with Journal() as journal:
        assert [used.calls for used in journal.usage()] == [3]
    await ledger.aclose()


async def test_a_newer_file_is_left_as_it_is(ledger: UsageLedger, said: list[str]):
    ledger.add(call())
    await ledger.aclose()
    file = paths.journal_file()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    ledger.add(call())
    await ledger.aclose()
    assert "newer version" in said[0]
    with Journal() as journal, pytest.raises(JournalError, match="newer version"):
        journal.usage()
