"""Files of every older version become ones of this version, whole, whenever the program is killed meanwhile.

`older/` has a file of each: three runs that version recorded; the last one was killed in the middle of a call. A new
version adds the file of the one before it.
"""

import gzip
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from run_support import AGENTS, SETTINGS

from synaptic import paths
from synaptic.backends.scripted import ScriptedBackend
from synaptic.runtime import StepAsked
from synaptic.runtime.journal import Journal, Owner
from synaptic.runtime.journal.row_seal import seal_all
from synaptic.runtime.journal.tables import MIGRATIONS, VERSION, migrate
from synaptic.runtime.session import Session

DRIVER = Path(__file__).parents[2] / "support" / "journal_faults_driver.py"
SEALED = 2
"""From this version on, the rows that the fixture changes have seals."""
OLDER = {int(file.name.split(".")[0]): file for file in (Path(__file__).parent / "older").iterdir()}

IN_THE_WAY = {
    1: "ALTER TABLE open_text ADD COLUMN seal TEXT",
    2: "CREATE TABLE calls (n INTEGER)",
    3: "CREATE TABLE responses (n INTEGER)",
    4: "ALTER TABLE notes ADD COLUMN seal TEXT",
}
"""What the migration from a version is about to make itself."""


def test_there_is_a_file_of_each_older_version():
    assert sorted(OLDER) == list(range(1, VERSION))


@pytest.fixture(params=sorted(OLDER))
def older(request: pytest.FixtureRequest) -> Path:
    """A file of an older version in the place of this person's journal; what worked on its runs is gone."""
    file = paths.journal_file()
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.decompress(OLDER[request.param].read_bytes()))
    here = Owner.this()
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (request.param,)
        connection.execute("UPDATE runs SET owner = ?", (Owner(here.machine, here.pid, "gone").written(),))
        if request.param >= SEALED:
            seal_all(connection)
    connection.close()
    return file


async def test_what_an_older_version_recorded_is_all_there(older: Path):
    with Journal() as journal:
        river, failed, pumps = journal.runs()
        assert [run.status for run in (river, failed, pumps)] == ["interrupted", "failed", "succeeded"]
        assert journal.answer(pumps) == "Warmth is moved, not made."
        assert [found.run.id for found in journal.grep("moves warmth")] == [pumps.id]
        assert journal.open_texts(river)["end"].startswith("So it goes on")
        for run in (river, failed, pumps):
            assert any(isinstance(event, StepAsked) for event in journal.events(run))
            assert all(step.started for step in journal.account(run).steps)

        assert journal.usage() == []

    backend = ScriptedBackend({"end": "To the sea."})
    async with Session(SETTINGS, backend=backend, agents=AGENTS) as session:
        result = await session.resume(river.id)
    assert (result.answer, [request.tag for request in backend.requests]) == ("To the sea.", ["end"])
    with Journal() as journal:
        journal.prune(keep=0)
        assert journal.runs() == []


def test_a_kill_in_the_middle_of_the_migration_leaves_the_file_whole(older: Path, tmp_path: Path):
    (tmp_path / "journal.sqlite3").write_bytes(older.read_bytes())
    driver = [sys.executable, str(DRIVER), "migrate-older", str(tmp_path)]
    done = subprocess.run(driver, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > len([step for steps in MIGRATIONS[1:] for step in steps])


def test_a_migration_that_fails_changes_nothing(older: Path):
    with sqlite3.connect(older) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute(IN_THE_WAY[version])
    connection.close()
    before = dump(older)
    connection = sqlite3.connect(older, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match=r"duplicate column|already exists"):
        migrate(connection)
    connection.execute("ROLLBACK")
    connection.close()
    assert dump(older) == before


def dump(file: Path) -> list[object]:
    with sqlite3.connect(file) as connection:
        queries = ("PRAGMA user_version", "SELECT name, sql FROM sqlite_master", "SELECT * FROM runs")
        found = [connection.execute(query).fetchall() for query in queries]
    connection.close()
    return found
