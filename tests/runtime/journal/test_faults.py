"""What goes wrong with the journal's file fails no run, is said once, and destroys nothing."""

import asyncio
import errno
import os
import resource
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest
from run_support import AGENTS, SETTINGS, Run, pipeline

from synaptic import paths
from synaptic.backends.scripted import Failure, Reply, ScriptedBackend
from synaptic.errors import JournalError, JournalTooNew
from synaptic.messages import BackendNotice
from synaptic.pipeline.tools import Tool
from synaptic.processes import SqliteFile
from synaptic.runtime import BackendReported, Session, StepAsked, StepFinished, StepThought, TokenDelta
from synaptic.runtime.journal import Journal, file_writer, recorder
from synaptic.runtime.journal import run_ids as run_ids_module
from synaptic.runtime.journal.kept_texts import unpack
from synaptic.runtime.journal.row_seal import seal_all, sealed
from synaptic.runtime.journal.run_rows import OPEN_PIECES, EventRow, RunRows
from synaptic.runtime.journal.tables import migrate
from synaptic.settings.endpoints import NodeSettings

SUPPORT = Path(__file__).parents[2] / "support"
ONE = "  end: {agent: writer, prompt: '{{ inputs.query }}'}"
PIPELINE = pipeline(ONE)


def hearing(said: list[str]) -> Callable[[object], None]:
    """Return a listener that keeps what is said of the journal."""

    def listen(event: object) -> None:
        if isinstance(event, BackendReported) and isinstance(event.report, BackendNotice):
            said.append(event.report.message)

    return listen


async def two_runs() -> tuple[list, list[str]]:
    """Two runs of one session: how they ended, and what was said of the journal."""
    said: list[str] = []
    async with Session(SETTINGS, backend=ScriptedBackend(), agents=AGENTS, on_event=hearing(said)) as session:
        results = [await session.run("why", pipeline=PIPELINE) for _ in range(2)]
    return results, said


def damage_header(data: bytearray) -> None:
    data[:100] = b"x" * 100


def damage_pages(data: bytearray) -> None:
    for page in range(4096, len(data), 4096):
        data[page] ^= 0x40


def cut(data: bytearray) -> None:
    del data[len(data) // 2 :]


@pytest.mark.parametrize("harm", [damage_header, damage_pages, cut])
async def test_a_damaged_file_is_moved_aside_whole_and_the_run_goes_on(harm):
    await Run(ONE)()
    file = paths.journal_file()
    data = bytearray(file.read_bytes())
    harm(data)
    file.write_bytes(data)

    results, said = await two_runs()

    assert [result.status for result in results] == ["succeeded"] * 2
    (aside,) = file.parent.glob("journal.sqlite3.damaged-*")
    assert aside.read_bytes() == bytes(data)
    assert len(said) == 1 and str(aside) in said[0]
    with Journal() as journal:
        assert {run.id for run in journal.runs()} == {result.run_id for result in results}


async def test_a_file_of_a_newer_version_stays_as_it_is():
    await Run(ONE)()
    file = paths.journal_file()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = file.read_bytes()

    results, said = await two_runs()

    assert [result.status for result in results] == ["succeeded"] * 2
    assert len(said) == 1 and "newer version" in said[0]
    assert file.read_bytes() == before
    with Journal() as journal, pytest.raises(JournalTooNew):
        journal.runs()


async def test_where_nothing_can_be_written_runs_are_not_recorded(own_home: Path, monkeypatch: pytest.MonkeyPatch):
    (own_home / "state").write_text("a file where a folder should be: no user, root included, can write there")
    monkeypatch.setenv("XDG_STATE_HOME", str(own_home / "state"))

    results, said = await two_runs()

    assert [result.status for result in results] == ["succeeded"] * 2
    assert len(said) == 1 and "not recorded" in said[0] and said[0].endswith(": Not a directory")


async def test_what_another_process_keeps_from_being_written_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(file_writer, "CLOSING_SECONDS", 0.2)
    await Run(ONE)()
    with sqlite3.connect(paths.journal_file(), isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        results, said = await two_runs()
        other.execute("ROLLBACK")
    other.close()

    assert [result.status for result in results] == ["succeeded"] * 2
    assert len(said) == 1 and "another process" in said[0] and str(paths.journal_file()) in said[0]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for other processes for a moment only."""
    monkeypatch.setattr(recorder, "_TRIES", 1)
    monkeypatch.setattr(file_writer, "SqliteFile", partial(SqliteFile, busy_seconds=0.05))


@pytest.mark.usefixtures("patient")
async def test_what_another_process_keeps_out_of_the_file_is_written_when_it_is_done():
    said: list[str] = []
    backend = ScriptedBackend("so it is, and so it was", token_delay=0.05)
    async with Session(SETTINGS, backend=backend, agents=AGENTS, on_event=hearing(said)) as session:
        before = await session.run("cold", pipeline=PIPELINE)
        await session.recorded()
        with sqlite3.connect(paths.journal_file(), isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            late = await session.run("warm", pipeline=PIPELINE)
            await session.recorded()
            other.execute("ROLLBACK")
        other.close()
        after = await session.run("hot", pipeline=PIPELINE)

    assert len(said) == 1 and "not recorded yet" in said[0]
    with Journal() as journal:
        assert [run.id for run in journal.runs()] == [after.run_id, late.run_id, before.run_id]
        assert {run.status for run in journal.runs()} == {"succeeded"}


def test_of_a_text_that_had_to_wait_and_is_void_by_then_nothing_is_written():
    rows = RunRows(str)
    rows.take_all([TokenDelta("end", "so ")] * OPEN_PIECES)
    rows.take_all([StepThought("end")])
    taken = rows.taken()
    assert taken.opened == []
    assert taken.closed == ["end"]


@pytest.mark.usefixtures("patient")
async def test_what_another_process_keeps_out_of_the_file_for_long_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recorder, "_LATE_SECONDS", 0.0)
    await Run(ONE)()
    with sqlite3.connect(paths.journal_file(), isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        _, said = await two_runs()
        other.execute("ROLLBACK")
    other.close()

    assert any("is not recorded:" in line for line in said)
    with Journal() as journal:
        assert len(journal.runs()) == 1


FULL_DISK = f"""
import asyncio, os, resource, sys
sys.path.insert(0, {str(SUPPORT)!r})
from run_support import AGENTS, SETTINGS, ScriptedBackend, Session, pipeline
from synaptic import BackendReported
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
each = "{{agent: writer, prompt: x}}"
steps = "".join(f"  s{{n}}: {{each}}\\n" for n in range(60)) + f"  end: {{each}}"
said = []
def listen(event):
    if isinstance(event, BackendReported):
        said.append(event.report.message)
async def main():
    backend = ScriptedBackend(lambda request: os.urandom(8000).hex(), token_delay=0.01)
    async with Session(SETTINGS, backend=backend, agents=AGENTS, on_event=listen) as session:
        result = await session.run("why", pipeline=pipeline(steps))
    print(result.status, len(result.steps), len(said), said)
asyncio.run(main())
"""


def test_a_full_disk_ends_the_recording_and_not_the_run():
    # Its coverage is not measured: that would be written to the full disk, too.
    environ = {name: value for name, value in os.environ.items() if name != "COVERAGE_PROCESS_CONFIG"}
    done = subprocess.run([sys.executable, "-c", FULL_DISK], capture_output=True, text=True, check=True, env=environ)

    status, steps, complaints, said = done.stdout.split(" ", 3)
    assert (status, steps, complaints) == ("succeeded", "61", "1")
    assert "not recorded" in said
    assert done.stderr == ""
    with Journal() as journal:
        assert all(run.status == "interrupted" for run in journal.runs())


async def test_a_run_whose_end_could_not_be_written_is_interrupted_once_there_is_room(monkeypatch: pytest.MonkeyPatch):
    asked, full = asyncio.Event(), OSError(errno.ENOSPC, "the disk is full")

    def listen(event: object) -> None:
        if isinstance(event, StepAsked):
            asked.set()

    backend = ScriptedBackend(first_token_delay=0.2)
    async with Session(SETTINGS, backend=backend, agents=AGENTS, on_event=listen) as session:
        running = asyncio.create_task(session.run("why", pipeline=PIPELINE))
        await asked.wait()
        await session.recorded()
        with monkeypatch.context() as patched:
            patched.setattr("synaptic.runtime.journal.recorder.write", Mock(side_effect=full))
            first = await running
            await session.recorded()
        with Journal() as journal:
            assert journal.run(first.run_id).status == "running"
        await session.run("why", pipeline=PIPELINE)
        await session.recorded()
        with Journal() as journal:
            assert [run.status for run in journal.runs()] == ["succeeded", "interrupted"]
        assert (await session.resume(first.run_id)).status == "succeeded"


async def test_what_goes_wrong_again_is_said_again(monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []

    full = Mock(side_effect=OSError(errno.ENOSPC, "the disk is full"))

    def listen(event: object) -> None:
        if isinstance(event, BackendReported) and isinstance(event.report, BackendNotice):
            said.append(event.report.message)

    async with Session(SETTINGS, backend=ScriptedBackend(), agents=AGENTS, on_event=listen) as session:
        for fails, told in ((True, 1), (True, 1), (False, 1), (True, 2)):
            with monkeypatch.context() as patched:
                if fails:
                    patched.setattr("synaptic.runtime.journal.recorder.write", full)
                await session.run("why", pipeline=PIPELINE)
                await session.recorded()
            assert len(said) == told
    assert all("not recorded" in each for each in said)


async def test_a_damaged_text_is_said_and_other_runs_are_read():
    results = [await Run(ONE)(f"{word} " * 200) for word in ("cold", "warm")]
    with sqlite3.connect(paths.journal_file()) as connection:
        of = "n IN (SELECT blob FROM uses WHERE run = {})"
        flip = f"UPDATE blobs SET body = zeroblob(length(body)) WHERE {of.format(1)} AND NOT {of.format(2)}"
        assert connection.execute(flip).rowcount
    connection.close()

    with Journal() as journal:
        with pytest.raises(JournalError, match="damaged"):
            list(journal.events(journal.run(results[0].run_id)))
        assert journal.runs()[0].id == results[1].run_id


TWO = f"""
import asyncio, sys
sys.path.insert(0, {str(SUPPORT)!r})
from run_support import Run
async def main():
    for _ in range(15):
        print((await Run("  end: {{agent: writer, prompt: x}}")()).run_id)
asyncio.run(main())
"""


def test_two_programs_write_at_once():
    both = [subprocess.Popen([sys.executable, "-c", TWO], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    ids = [run_id for each in both for run_id in each.communicate()[0].split()]

    with Journal() as journal:
        runs = journal.runs()
        assert {run.id for run in runs} == set(ids) and len(ids) == 30
        assert all(run.status == "succeeded" and list(journal.events(run)) for run in runs)


async def test_a_file_that_is_taken_away_meanwhile_is_begun_anew():
    async with Session(SETTINGS, backend=ScriptedBackend(), agents=AGENTS) as session:
        await session.run("why", pipeline=PIPELINE)
        await session._recorder.settled()
        for file in paths.journal_file().parent.glob("journal.sqlite3*"):
            file.unlink()
        result = await session.run("why", pipeline=PIPELINE)

    with Journal() as journal:
        assert [run.id for run in journal.runs()] == [result.run_id]


async def test_a_run_whose_file_is_taken_away_is_said_not_to_be_recorded():
    said: list[str] = []
    script = {"end": Reply(text="a b c d", token_delay=0.2)}

    def listen(event: object) -> None:
        if isinstance(event, TokenDelta):
            for file in paths.journal_file().parent.glob("journal.sqlite3*"):
                file.unlink()
        if isinstance(event, BackendReported):
            said.append(event.report.message)

    async with Session(SETTINGS, backend=ScriptedBackend(script), agents=AGENTS, on_event=listen) as session:
        result = await session.run("why", pipeline=PIPELINE)
    assert result.status == "succeeded"
    assert len(said) == 1 and "was removed" in said[0]


async def test_a_run_that_is_removed_while_texts_are_looked_for_is_not_found():
    await Run(ONE)("cold")
    gone = await Run(ONE)("cold")
    with sqlite3.connect(paths.journal_file()) as connection:
        connection.execute("DELETE FROM runs WHERE id = ?", (gone.run_id,))  # between two of its queries
    connection.close()
    with Journal() as journal:
        assert [found.run.id for found in journal.grep("cold")] == [journal.runs()[0].id]


@pytest.mark.parametrize("work", ["migrate", "prune"])
async def test_a_kill_in_the_middle_leaves_the_file_whole(work: str, tmp_path: Path):
    for word in ("cold", "warm", "cold"):
        await Run(ONE)(f"{word} " * 50)
    with sqlite3.connect(paths.journal_file()) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    (tmp_path / "journal.sqlite3").write_bytes(paths.journal_file().read_bytes())

    driver = [sys.executable, str(SUPPORT / "journal_faults_driver.py"), work, str(tmp_path)]
    done = await asyncio.to_thread(subprocess.run, driver, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 8


def test_ids_grow_also_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch):
    times = iter([2000.0, 2000.0, 2001.0, 2001.0 - 3600, 1999.0, 2002.0])
    monkeypatch.setattr(run_ids_module.time, "time", lambda: next(times))
    made = run_ids_module.RunIds()

    ids = [made() for _ in range(6)]

    assert ids == sorted(ids) and len(set(ids)) == 6
    assert {len(run_id) for run_id in ids} == {26}


async def test_a_clock_that_is_set_back_an_hour_changes_no_order():
    before = [(await Run(ONE)(word)).run_id for word in ("cold", "warm")]
    with sqlite3.connect(paths.journal_file()) as connection:  # what was recorded until now is of an hour ahead
        connection.execute("UPDATE runs SET started = started + 3600, ended = ended + 3600")
        seal_all(connection)
    connection.close()
    later = (await Run(ONE)("hot")).run_id

    with Journal() as journal:
        assert [run.id for run in journal.runs()] == [later, *reversed(before)]
        assert all(0 <= run.seconds < 60 for run in journal.runs())
        assert journal.prune(keep=2).runs == 1
        assert [run.id for run in journal.runs()] == [later, before[1]]


async def test_a_run_of_five_thousand_steps_comes_back_whole():
    run = Run(
        "  list: {tool: count}\n"
        "  each: {agent: writer, foreach: steps.list, prompt: '{{ item }}'}\n"
        "  end: {agent: writer, prompt: 'of {{ steps.each | length }}'}",
        tools={"count": Tool.of(lambda: [str(number) for number in range(5000)], name="count")},
    )
    result = await run()

    with Journal() as journal:
        kept = journal.run(result.run_id)
        ended = [event.result for event in journal.events(kept) if isinstance(event, StepFinished)]
    assert ended == list(result.steps) and len(ended) == 5003
    assert kept.calls == 5001


async def test_a_value_of_fifty_megabytes_comes_back():
    big = os.urandom(25_000_000).hex()
    tools = {"read": Tool.of(lambda: big, name="read")}
    run = Run("  big: {tool: read}\n  end: {agent: writer, prompt: '{{ steps.big[:9] }}'}", tools=tools)

    result = await run()

    with Journal() as journal:
        events = journal.events(journal.run(result.run_id))
        outputs = [event.result.output for event in events if isinstance(event, StepFinished)]
    assert outputs[0] == big


async def test_what_the_settings_know_as_secret_is_not_in_the_file(monkeypatch: pytest.MonkeyPatch):
    secret = 'correct "horse battery" st\\aple'  # also as a reply writes it that is JSON
    monkeypatch.setenv("DESK_TOKEN", secret)
    node = NodeSettings(url="http://127.0.0.1:9", token_env="DESK_TOKEN")
    script = {
        "end": {"items": [f"{secret} of mine"]},
        "list": {"items": [f"it is {secret}"]},
        "late": Failure("stall", after_tokens=30, text="so it goes " * 5 + secret + " on" * 50),
    }
    run = Run(
        f"  list: {{agent: lister, prompt: 'say {secret}'}}\n"
        "  late: {agent: writer, prompt: 'tell {{ inputs.query }} {{ steps.list }}'}\n"
        "  end: {agent: lister, prompt: '{{ steps.late }}'}",
        script,
        settings=SETTINGS.model_copy(update={"nodes": [node]}),
        result="{{ steps.end.items[0] }}",
    )
    task = asyncio.create_task(run(f"what is {secret}?"))
    while "so it goes" not in (kept := everything()):  # the text of a call that is open
        await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task])

    for text in (kept, everything()):
        assert "[secret]" in text
        assert secret not in text and "horse battery" not in text


def everything() -> str:
    """All that is in the file, its texts unpacked."""
    connection = SqliteFile(paths.journal_file(), migrate).open()
    found = [str(connection.execute(f"SELECT * FROM {table}").fetchall()) for table in ("runs", "events", "open_text")]
    bodies = {}
    rows = connection.execute("SELECT hash, base, packed, size, body FROM blobs ORDER BY n")
    for name, base, packed, size, body in rows:
        bodies[name] = unpack(packed, size, body, lambda base=base: bodies[base])
    connection.close()
    return "\n".join([*found, *(body.decode() for body in bodies.values())])


def row_of_a_blob(connection: sqlite3.Connection, packed: int, size: int, body: bytes, base: int) -> None:
    """Make the longest text one that is packed so, against itself where ``base`` says so."""
    change = "UPDATE blobs SET packed = ?, size = ?, body = ?, base = CASE ? WHEN 1 THEN hash END WHERE n = ("
    connection.execute(f"{change} SELECT n FROM blobs ORDER BY size DESC LIMIT 1)", (packed, size, body, base))


def against_itself(connection: sqlite3.Connection) -> None:
    row_of_a_blob(connection, 2, 1000, zlib.compress(b"x" * 1000), 1)


def a_bomb(connection: sqlite3.Connection) -> None:
    row_of_a_blob(connection, 1, 1000, zlib.compress(bytes(300_000_000)), 0)


def a_bomb_that_says_so(connection: sqlite3.Connection) -> None:
    row_of_a_blob(connection, 1, 300_000_000, zlib.compress(bytes(300_000_000)), 0)


def deep_events(connection: sqlite3.Connection) -> None:
    for row in connection.execute("SELECT run, seq, at, kind, path, key, body FROM events").fetchall():
        deep = sealed(row[0], EventRow(*row[1:6], "[" * 100_000))
        connection.execute("UPDATE events SET body = ? WHERE run = ? AND seq = ?", (deep, *row[:2]))


def a_view(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE runs RENAME TO others")
    endless = "WITH RECURSIVE more(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM more) SELECT n FROM more"
    connection.execute(f"CREATE VIEW runs AS {endless}")


def a_trigger(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TRIGGER mine AFTER INSERT ON events BEGIN DELETE FROM events; END")


@pytest.mark.parametrize(
    "harm",
    [against_itself, a_bomb, a_bomb_that_says_so, deep_events, a_view, a_trigger],
    ids=lambda harm: harm.__name__,
)
async def test_a_file_that_somebody_else_wrote_is_damaged_and_takes_nothing(harm):
    await Run(ONE)("why " * 200)
    with sqlite3.connect(paths.journal_file()) as connection:
        harm(connection)
    connection.close()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with Journal() as journal, pytest.raises(JournalError, match="damaged"):
        for run in journal.runs():
            journal.account(run)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
