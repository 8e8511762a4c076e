"""Folders of ours: no other user writes in them, whatever the umask allows, and whoever made them before."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from synaptic.processes import own_folder, private_folder

OTHERS_WRITE = 0o022
OF_OURS = """
import asyncio, os, sys
from pathlib import Path
os.umask(0)
from synaptic import Session, Settings
from synaptic.settings.trusted import trust_folder
async def main():
    async with Session(Settings(backend="scripted")) as session:
        await session.run("hello", pipeline="answer")
trust_folder(Path.home() / "project", {})
asyncio.run(main())
"""


def open_folders(root: Path) -> list[str]:
    return [str(each) for each in root.rglob("*") if each.is_dir() and each.stat().st_mode & OTHERS_WRITE]


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("no_umask")
@pytest.mark.parametrize("make", [own_folder, private_folder])
def test_every_folder_that_is_made_on_the_way_is_closed_to_others(make, tmp_path: Path):
    make(tmp_path / "local" / "state" / "synapticllamas" / "logs")
    assert open_folders(tmp_path) == []
    assert len(list(tmp_path.rglob("*"))) == 4


@pytest.mark.usefixtures("no_umask")
def test_folders_of_ours_that_are_open_are_closed_and_those_above_them_are_left(tmp_path: Path):
    (tmp_path / "state" / "synapticllamas" / "logs").mkdir(parents=True)
    own_folder(tmp_path / "state" / "synapticllamas" / "logs")
    assert open_folders(tmp_path) == [str(tmp_path / "state")]
    own_folder(tmp_path / "state")
    assert open_folders(tmp_path) == [str(tmp_path / "state")]


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path: Path):
    (tmp_path / "x").write_text("")
    for path in (tmp_path / "x", tmp_path / "x" / "y"):
        with pytest.raises(OSError, match="x"):
            own_folder(path)


def test_a_program_without_a_umask_leaves_no_folder_open(own_home: Path):
    environ = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")} | {"HOME": str(own_home)}
    subprocess.run([sys.executable, "-c", OF_OURS], env=environ, check=True, timeout=120, capture_output=True)
    assert (own_home / ".local/state/synapticllamas/trusted.json").exists()
    assert (own_home / ".local/state/synapticllamas/journal.sqlite3").exists()
    assert open_folders(own_home) == []
