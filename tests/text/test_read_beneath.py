"""A file inside a folder: links may lead within it, and none leads out, whenever it was put there."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from synaptic.text.regular_file import LeadsOut, NotRegularFile, read_beneath

if TYPE_CHECKING:
    from pathlib import Path

READS = 3000
SWAPPER = """
import os, sys
inner, outer, place = sys.argv[1:]
print(flush=True)
while os.getppid() != 1:
    for target in (inner, outer):
        os.symlink(target, place + ".new")
        os.replace(place + ".new", place)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("folder/in/x", "out/x"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(name)
    return tmp_path / "folder"


def test_a_link_that_stays_inside_is_followed(folder: Path):
    (folder / "link").symlink_to("in")
    (folder / "in" / "y").symlink_to("x")

    assert read_beneath(folder, folder / "link" / "y", 100) == b"folder/in/x"


def test_a_folder_that_is_itself_a_link_is_the_one_that_it_leads_to(folder: Path, tmp_path: Path):
    (tmp_path / "named").symlink_to(folder)

    assert read_beneath(tmp_path / "named", tmp_path / "named" / "in" / "x", 100) == b"folder/in/x"


@pytest.mark.parametrize("target", ["../out/x", "/etc/passwd"])
def test_a_link_that_leads_out_is_refused(folder: Path, target: str):
    (folder / "link").symlink_to(target)

    with pytest.raises(LeadsOut):
        read_beneath(folder, folder / "link", 100)


def test_what_is_no_file_is_refused_as_elsewhere(folder: Path):
    os.mkfifo(folder / "pipe")

    with pytest.raises(NotRegularFile):
        read_beneath(folder, folder / "pipe", 100)
    with pytest.raises(IsADirectoryError):
        read_beneath(folder, folder / "in", 100)
    with pytest.raises(FileNotFoundError):
        read_beneath(folder, folder / "none", 100)


@pytest.mark.skipif(os.open not in os.supports_dir_fd, reason="needs openat")
@pytest.mark.parametrize(("inner", "outer", "name"), [("in", "../out", "link/x"), ("in/x", "../out/x", "link")])
def test_a_link_that_is_swapped_meanwhile_never_leads_out(folder: Path, inner: str, outer: str, name: str):
    (folder / "link").symlink_to(inner)
    swapper = subprocess.Popen([sys.executable, "-c", SWAPPER, inner, outer, folder / "link"], stdout=subprocess.PIPE)
    assert swapper.stdout is not None
    seen = set()
    try:
        swapper.stdout.readline()
        for _ in range(READS):
            try:
                seen.add(read_beneath(folder, folder / name, 100))
            except LeadsOut:
                seen.add(b"refused")
    finally:
        swapper.kill()
        swapper.communicate()

    assert seen == {b"folder/in/x", b"refused"}
