"""Kills itself in the middle of work on a journal, at each of its statements in turn; a script, since it forks.

    python journal_faults_driver.py migrate|migrate-older|prune FOLDER

The last two work on FOLDER/journal.sqlite3. Prints how often it was killed; ends with an error if the file was not
whole afterwards.
"""

import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

from synaptic.processes import SqliteFile
from synaptic.runtime.journal import Journal
from synaptic.runtime.journal.retention import prune
from synaptic.runtime.journal.tables import VERSION, migrate

folder = Path(sys.argv[2])


def killed_at(count: int, work: Callable[[sqlite3.Connection], None], path: Path) -> bool:
    """Do the work in a child that dies before its statement number ``count``; return whether it got so far."""
    child = os.fork()
    if child == 0:
        statements = 0

        def on_statement(_: str) -> None:
            nonlocal statements
            statements += 1
            if statements == count:
                os.kill(os.getpid(), signal.SIGKILL)

        connection = sqlite3.connect(path, isolation_level=None)
        connection.set_trace_callback(on_statement)
        work(connection)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def migrated(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.execute("BEGIN IMMEDIATE")
    migrate(connection)
    connection.execute("COMMIT")


def check(path: Path) -> None:
    file = SqliteFile(path, migrate)
    connection = file.open()
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    orphans = "SELECT count(*) FROM blobs WHERE NOT EXISTS (SELECT 1 FROM uses WHERE blob = blobs.n)"
    assert connection.execute(orphans).fetchone() == (0,)
    lost = "SELECT count(*) FROM uses WHERE NOT EXISTS (SELECT 1 FROM runs WHERE n = uses.run)"
    assert connection.execute(lost).fetchone() == (0,)
    file.close()


def check_runs(path: Path) -> None:
    with Journal(path) as journal:
        for run in journal.runs():
            assert run.status != "damaged"
            assert list(journal.events(run))
            journal.open_texts(run)


deaths = 0
while True:
    path = folder / f"{sys.argv[1]}-{deaths}.sqlite3"
    if sys.argv[1] != "migrate":
        shutil.copy(folder / "journal.sqlite3", path)
    dies = killed_at(deaths + 1, (lambda each: prune(each, keep=0)) if sys.argv[1] == "prune" else migrated, path)
    check(path)
    if sys.argv[1] == "migrate-older":
        check_runs(path)
    if not dies:
        break
    deaths += 1
sys.stdout.write(str(deaths))
