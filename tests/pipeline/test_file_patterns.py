"""Patterns of file names match what Python's own ``glob`` matches, and end where a folder's links do not."""

import glob
from pathlib import Path

import pytest

from synaptic.pipeline import file_patterns
from synaptic.pipeline.documents import read_files
from synaptic.pipeline.file_patterns import matching

PATTERNS = ["*", "*.txt", "a/*", "**", "**/*.txt", "a/**", "a/**/*.md", "**/b/*", "*/*/*.txt", "./a/*", ".*", "**/.h*"]
PATTERNS += ["a?/[xy].txt", "a/[[]x].txt", "no/*", "**/no", "*/../*.txt", "**/**/x.txt", "a/x.txt", "[!.]*/x.txt"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "x.txt",
        ".hid.txt",
        "a/x.txt",
        "a/y.md",
        "a/[x].txt",
        "a/b/x.txt",
        "a/.h/x.txt",
        "ab/x.txt",
        "ab/z.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    return tmp_path


@pytest.mark.parametrize("pattern", PATTERNS)
def test_it_matches_what_glob_does(tree: Path, pattern: str, monkeypatch: pytest.MonkeyPatch):
    expected = {name for name in glob.glob(pattern, root_dir=tree, recursive=True) if (tree / name).is_file()}  # noqa: PTH207
    assert {name for name in matching(pattern, tree) if (tree / name).is_file()} == expected
    absolute = {Path(name) for name in matching(f"{glob.escape(str(tree))}/{pattern}")}
    assert absolute == {tree / name for name in matching(pattern, tree)}
    monkeypatch.chdir(tree)
    assert list(matching(pattern)) == list(matching(pattern, tree))


def test_links_that_lead_back_are_no_folders_of_any_depth(tree: Path):
    for name in ("one", "two", "a/three"):
        (tree / name).symlink_to(tree)
    assert sorted(matching("**/z.txt", tree)) == ["ab/z.txt"]
    assert list(matching("**/nothing", tree)) == []
    assert list(matching("one/z*", tree)) == [] and list(matching("one/x*", tree)) == ["one/x.txt"]


def test_a_search_without_end_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(file_patterns, "MOST_FOLDERS", 500)
    for name in ("one", "two"):
        (tree / name).symlink_to(tree)
    with pytest.raises(ValueError, match="more than 500 folders"):
        read_files("*/" * 30 + "nothing.txt", folder=tree)


def test_a_folder_that_is_named_gives_no_file_that_lies_elsewhere(tree: Path, tmp_path_factory: pytest.TempPathFactory):
    (secret := tmp_path_factory.mktemp("home") / "id_ed25519").write_text("PRIVATE KEY")
    (tree / "a" / "notes.txt").symlink_to(secret)
    (tree / "a" / "same.txt").symlink_to(tree / "a" / "x.txt")
    found = read_files(str(tree / "a"))
    assert [document["name"] for document in found] == ["[x].txt", "same.txt", "x.txt", "y.md", "x.txt"]
