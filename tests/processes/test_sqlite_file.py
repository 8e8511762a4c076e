"""What one process has open in an SQLite file stays its own, whatever else it and other processes open and close."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from synaptic.processes import SqliteFile, is_damage

WRITES = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('INSERT INTO t VALUES (0)'); c.commit()"
READS = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('SELECT n FROM t'))"


def prepare(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS t (n)")


def another_process(code: str, path: Path) -> str:
    """What a process printed that opened the file, did that and closed it."""
    command = [sys.executable, "-c", code, str(path)]
    return subprocess.run(command, check=True, timeout=60, capture_output=True, text=True).stdout


def test_another_process_that_closes_the_file_takes_no_log_from_one_that_opened_it_twice(tmp_path: Path):
    path = tmp_path / "some.sqlite3"
    writer, reader = SqliteFile(path, prepare), SqliteFile(path, prepare)
    writer.open().execute("INSERT INTO t VALUES (1)")
    reader.open()
    reader.close()
    another_process(WRITES, path)
    writer.open().execute("INSERT INTO t VALUES (2)")
    seen = another_process(READS, path)
    writer.close()
    assert seen == "(1,) (0,) (2,)\n"


def test_only_its_owner_may_read_it_also_through_a_link(tmp_path: Path):
    (link := tmp_path / "link").symlink_to(tmp_path / "real")
    file = SqliteFile(link, prepare)
    file.open()
    file.close()
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o600


def test_a_schema_whose_words_are_no_text_is_damage(tmp_path: Path):
    path = tmp_path / "some.sqlite3"
    file = SqliteFile(path, prepare)
    file.open()
    file.close()
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE t", b"CREATE TA\xddLE t"))
    with pytest.raises(sqlite3.DatabaseError, match="schema") as damage:
        SqliteFile(path, prepare).open()
    assert is_damage(damage.value)
