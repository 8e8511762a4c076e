"""The content of a file is known without reading it again, until the file changes in any way."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from flipped_bytes import flip_byte, settle

from synaptic.processes import Digests, Stamp, sha256_of

CONTENT = bytes(range(256)) * 8


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (file := tmp_path / "weights").write_bytes(CONTENT)
    settle(file)
    return file


def keep_time(change: Callable[[Path], None]) -> Callable[[Path], None]:
    def changed(file: Path) -> None:
        status = file.stat()
        change(file)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))

    return changed


def write(file: Path) -> None:
    file.write_bytes(CONTENT[::-1])


def put_another_there(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(CONTENT[::-1])
    other.replace(file)


CHANGES = [write, put_another_there, keep_time(write), keep_time(put_another_there), lambda file: flip_byte(file, 1000)]


def test_a_file_that_did_not_change_is_read_once(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch):
    (register := tmp_path / "folder").mkdir()
    digests = Digests(register / "digests.json")
    assert digests.known(file) is None
    assert digests.of(file) == hashlib.sha256(CONTENT).hexdigest()
    monkeypatch.setattr("synaptic.processes.digests.sha256_of", lambda *_: pytest.fail("it was read again"))
    for again in (digests, Digests(register / "digests.json")):
        assert again.known(file) == again.of(file) == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changed_is_read_again(tmp_path: Path, file: Path, change: Callable[[Path], None]):
    digests = Digests(tmp_path / "digests.json")
    before = digests.of(file)
    change(file)
    for again in (digests, Digests(tmp_path / "digests.json")):
        assert again.known(file) is None
        assert again.of(file) == sha256_of(file) != before


def test_a_file_that_was_just_written_is_not_taken_for_known(tmp_path: Path, file: Path):
    digests = Digests(tmp_path / "digests.json")
    write(file)
    digests.of(file)
    assert digests.known(file) is None or (stamp := Stamp.of(file)) is None or stamp.settled


@pytest.mark.parametrize("place", range(5, 250, 35))
def test_a_damaged_register_costs_a_reading_and_never_gives_another_digest(tmp_path: Path, file: Path, place: int):
    register = tmp_path / "digests.json"
    right = Digests(register).of(file)
    flip_byte(register, place)
    assert Digests(register).known(file) in {None, right}
    assert Digests(register).of(file) == right


def test_a_register_that_cannot_be_written_costs_time_only(file: Path):
    digests = Digests(file / "no folder" / "digests.json")
    assert digests.of(file) == digests.known(file) == hashlib.sha256(CONTENT).hexdigest()


def test_whoever_hears_of_the_parts_may_end_the_reading(tmp_path: Path, file: Path):
    parts: list[int] = []
    Digests(tmp_path / "digests.json").afresh(file, parts.append)
    assert sum(parts) == len(CONTENT)
    with pytest.raises(InterruptedError):
        sha256_of(file, lambda _: (_ for _ in ()).throw(InterruptedError))


def test_a_missing_file_is_not_known_and_cannot_be_read(tmp_path: Path):
    digests = Digests(tmp_path / "digests.json")
    assert digests.known(tmp_path / "nothing") is None
    with pytest.raises(FileNotFoundError):
        digests.of(tmp_path / "nothing")
