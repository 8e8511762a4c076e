"""Documents from files: paths, patterns, and everything that a file can be instead of text."""

import os
from pathlib import Path

import pytest

from synaptic.pipeline import documents
from synaptic.pipeline.documents import Repeated, read_file, read_files


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("notes/a.txt", "notes/b.md", "notes/deep/c.txt", "notes/.hidden.txt", "one,two.txt", "odd[1].txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"text of {name}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ("notes/a.txt", ["notes/a.txt"]),
        ("notes/*", ["notes/a.txt", "notes/b.md"]),
        ("notes/*.txt", ["notes/a.txt"]),
        ("notes/**/*.txt", ["notes/a.txt", "notes/deep/c.txt"]),
        ("notes/[b]*", ["notes/b.md"]),
        ("notes/b.md, notes/a.txt", ["notes/b.md", "notes/a.txt"]),
        ("notes/*.md,notes/*", ["notes/b.md", "notes/a.txt"]),
        (Repeated(("notes/b.md", "notes/a.txt")), ["notes/b.md", "notes/a.txt"]),
        (["notes/b.md", Path("notes/a.txt")], ["notes/b.md", "notes/a.txt"]),
        (Path("notes/b.md"), ["notes/b.md"]),
        ("one,two.txt", ["one,two.txt"]),
        ("odd[1].txt", ["odd[1].txt"]),
        ("odd[1].txt,notes/a.txt", ["odd[1].txt", "notes/a.txt"]),
    ],
)
def test_a_value_names_files(value: object, paths: list[str]):
    found = read_files(value)

    assert [document["path"] for document in found] == paths
    assert [document["name"] for document in found] == [Path(path).name for path in paths]
    assert [document["text"] for document in found] == [f"text of {path}" for path in paths]


def test_documents_may_be_given_as_they_are():
    assert read_files([{"text": "t"}, "notes/a.txt"])[0] == {"name": "", "path": "", "text": "t"}
    assert read_file({"name": "n", "text": "t"}) == {"name": "n", "path": "", "text": "t"}


def test_home_is_where_a_tilde_leads(own_home: Path):
    (own_home / "mine.txt").write_text("mine")

    assert [read_file("~/mine.txt")["text"], read_files("~/*.txt")[0]["text"]] == ["mine", "mine"]


def test_the_path_of_one_file_is_literal():
    assert read_file("one,two.txt")["text"] == "text of one,two.txt"
    with pytest.raises(ValueError, match=r"names notes/\*, which is not there"):
        read_file("notes/*")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("notes/a.tx", "names notes/a.tx, which is not there; did you mean 'a.txt'?"),
        ("notes/zzzzzz", "names notes/zzzzzz, which is not there; there is no such file in notes"),
        ("nowhere/a.txt", "names nowhere/a.txt, which is not there; there is no folder nowhere"),
        ("notes", "names the folder notes; write notes/* for the files in it"),
        ("notes/", "names the folder notes/; write notes/* for the files in it"),
        ("*.pdf", "names *.pdf, which matches no file"),
        ("not*", "names not*, which matches no file"),
        (3, "must be paths of files, not 3"),
    ],
)
def test_what_names_no_file_says_so(value: object, message: str):
    with pytest.raises(ValueError) as caught:
        read_files(value)

    assert caught.value.args == (message,)


@pytest.mark.parametrize("value", [3, ["notes/a.txt"], None])
def test_one_file_is_one_path(value: object):
    with pytest.raises(ValueError, match="must be the path of a file"):
        read_file(value)


def test_every_file_is_looked_at_before_anything_is_said():
    with pytest.raises(ValueError) as caught:
        read_files("x.txt,notes/a.txt,notes,*.pdf")

    assert len(caught.value.args) == 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"first\nsecond \xff\n", "names new.txt, which is not UTF-8 text (line 2)"),
        ("text".encode("utf-16"), "not UTF-8"),
        (b"a\0b", "names new.txt, which is no text: it holds NUL characters"),
    ],
)
def test_what_is_no_text_is_refused(data: bytes, message: str, folder: Path):
    (folder / "new.txt").write_bytes(data)

    with pytest.raises(ValueError) as caught:
        read_file("new.txt")

    assert message in caught.value.args[0]


def test_marks_and_line_ends_of_other_systems_are_no_text(folder: Path):
    (folder / "new.txt").write_bytes(b"\xef\xbb\xbfa\r\nb")

    assert read_file("new.txt")["text"] == "a\nb"


def test_an_empty_file_is_an_empty_document(folder: Path):
    (folder / "new.txt").touch()

    assert read_file("new.txt")["text"] == ""


def test_a_pipe_is_not_waited_for(folder: Path):
    os.mkfifo(folder / "pipe")

    with pytest.raises(ValueError, match="is no ordinary file"):
        read_file("pipe")


def test_what_may_not_be_read_says_why(folder: Path):
    (folder / "loop").symlink_to("loop")

    with pytest.raises(ValueError, match="names loop, which cannot be read: Too many levels of symbolic links"):
        read_file("loop")


def test_a_file_is_bounded(folder: Path):
    with (folder / "large.txt").open("wb") as file:
        file.truncate(documents.MAX_FILE_BYTES + 1)

    with pytest.raises(ValueError, match=r"names large\.txt, which is longer than 8 MiB"):
        read_file("large.txt")


def test_all_files_together_are_bounded(folder: Path):
    count = documents.MAX_ALL_BYTES // documents.MAX_FILE_BYTES + 1
    for number in range(count):
        (folder / f"large{number}.txt").write_bytes(b"x" * documents.MAX_FILE_BYTES)

    with pytest.raises(ValueError, match=f"with large{count - 1}.txt, the files hold more than 64 MiB"):
        read_files("large*.txt")


def test_the_number_of_files_is_bounded(folder: Path):
    (folder / "many").mkdir()
    for number in range(documents.MAX_FILES + 1):
        (folder / "many" / str(number)).touch()

    with pytest.raises(ValueError, match="names 1001 files; at most 1000 are read"):
        read_files("many/*")
