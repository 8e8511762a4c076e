"""Settings files: JSON with positions, broken files in plain words, writing all or nothing."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synaptic.errors import ConfigError, ExitCode
from synaptic.settings.file import MAX_BYTES, back_up, read_settings_file, write_settings_file
from synaptic.text.json_positions import MAX_DEPTH, Position, parse_json

if TYPE_CHECKING:
    from pathlib import Path

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def only_problem(text: str) -> tuple[str, int | None, int | None, str | None]:
    with pytest.raises(ConfigError) as caught:
        parse_json(text, "f.json")
    (problem,) = caught.value.problems
    assert problem.source == "f.json"
    return problem.message, problem.line, problem.column, problem.suggestion


@settings(max_examples=150)
@given(value=JSON_VALUES, indent=st.sampled_from([None, 0, 3]), ascii_only=st.booleans())
def test_reads_what_the_standard_library_writes(value: object, indent: int | None, *, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert parse_json(text, "f").value == value


@settings(max_examples=300)
@given(st.text(alphabet=" \n\t{}[]\":,truefalsnu0123456789.-+eE\\/#'x\ud83d", max_size=30))
def test_accepts_exactly_what_the_standard_library_accepts_without_its_extensions(text: str) -> None:
    def refuse(word: str) -> None:
        raise ValueError(word)

    try:
        expected = json.loads(text, parse_constant=refuse)
        json.dumps(expected, ensure_ascii=False).encode()
        known = "inf" not in repr(expected)
    except ValueError:
        known = False
    if known:
        document = parse_json(text, "f")
        assert document.problems or document.value == expected
    else:
        with pytest.raises(ConfigError):
            parse_json(text, "f")


def test_every_key_and_element_knows_its_place() -> None:
    document = parse_json('{\n  "a": 1,\r\n  "b": [true,\n {"c": null}]\n}', "f")
    assert document.positions == {
        ("a",): Position(2, 3),
        ("b",): Position(3, 3),
        ("b", 0): Position(3, 9),
        ("b", 1): Position(4, 2),
        ("b", 1, "c"): Position(4, 3),
    }
    assert document.position(("b", 1, "missing")) == Position(4, 2)
    assert document.position(("missing",)) is None


@pytest.mark.parametrize(
    ("text", "line", "column", "words", "advice"),
    [
        ('{"a": 1,\n}', 1, 8, "a comma before the closing '}'", "remove the comma"),
        ("[1, ]", 1, 3, "a comma before the closing ']'", "remove the comma"),
        ('{"a": 1\n "b": 2}', 2, 2, "a comma is missing", "write ','"),
        ('{"a": [1}', 1, 9, "'}' where ']' belongs", "write ']'"),
        ("{'a': 1}", 1, 2, "single quotes", "double quotes"),
        ("{\"a\": 'x'}", 1, 7, "single quotes", "double quotes"),
        ('{"a": \u201cx\u201d}', 1, 7, "typographic quotes", "straight double quotes"),
        ('{ // why\n"a": 1}', 1, 3, "a comment", "remove it"),
        ('{"a": 1 # why\n}', 1, 9, "a comment", "remove it"),
        ('/* why */ {"a": 1}', 1, 1, "a comment", "remove it"),
        ("{a: 1}", 1, 2, "a key without quotes", 'write "a"'),
        ('{"a" = 1}', 1, 6, "a ':' is missing", "write ':' instead"),
        ('{"a" 1}', 1, 6, "a ':' is missing", 'write "a": and its value'),
        ('{"a": True}', 1, 7, "'True' is not a word of JSON", "write true"),
        ('{"a": None}', 1, 7, "'None' is not a word of JSON", "write null"),
        ('{"a": yes}', 1, 7, "'yes' is not a word of JSON", "write true"),
        ('{"a": llama3}', 1, 7, "text without quotes", "double quotes"),
        ('{"a": NaN}', 1, 7, "a number that JSON does not have", "finite"),
        ('{"a": -Infinity}', 1, 7, "a number that JSON does not have", "finite"),
        ('{"a": 007}', 1, 7, "a number that JSON cannot read", "write digits"),
        ('{"a": .5}', 1, 7, "a number that JSON cannot read", "0.5"),
        ('{"a": +1}', 1, 7, "a number that JSON cannot read", "write digits"),
        ('{"a": 1e999}', 1, 7, "too large", "smaller"),
        ('{"a": ' + "9" * 5000 + "}", 1, 7, "too long", "fewer"),
        ('{"a": "x', 1, 7, "not closed on its line", "at its end"),
        ('{"a": "x\n"}', 1, 7, "not closed on its line", "at its end"),
        ('{"a": "C:\\models"}', 1, 10, "an unknown escape", "one backslash"),
        ('{"a": "x\ty"}', 1, 9, "a control character", "'\\t' for a tab"),
        ('{"a": "\\ud800"}', 1, 7, "half of a surrogate pair", "character itself"),
        ('{"a": 1', 1, 8, "the '{' of line 1, column 1", "write '}'"),
        ('{"a": [1,', 1, 10, "the '[' of line 1, column 7", "write ']'"),
        ("{", 1, 2, "the '{' of line 1, column 1", "write '}'"),
        ('{"a":', 1, 6, "the file ends where a value belongs", "write the rest"),
        ('{"a": , "b": 1}', 1, 7, "a comma where a value belongs", "remove the comma"),
        ('{"a": 1,, "b": 1}', 1, 9, "a comma where a key belongs", "remove the comma"),
        ('{"a": 1} {}', 1, 10, "more text after the end", "remove it"),
        ('{"a":\u00a01}', 1, 6, "(U+00A0) where a value belongs", "write a value"),
        ("{5: 1}", 1, 2, "'5' (U+0035) where a key belongs", "write a key"),
        ("[" * (MAX_DEPTH + 1), 1, MAX_DEPTH + 1, f"more than {MAX_DEPTH} levels", "use fewer"),
    ],
)
def test_broken_json_says_where_and_what_to_write(text: str, line: int, column: int, words: str, advice: str) -> None:
    message, at_line, at_column, suggestion = only_problem(text)
    assert (at_line, at_column) == (line, column)
    assert message.startswith("broken JSON: ")
    assert words in message
    assert advice in (suggestion or "")


def test_a_key_that_stands_twice_is_a_mistake_at_its_second_place() -> None:
    document = parse_json('{"a": 1,\n "b": {"c": 1, "c": 2},\n "a": 2}', "f")
    assert [(p.line, p.column, p.message) for p in document.problems] == [
        (2, 16, "the key 'c' stands here again; it is also at line 2"),
        (3, 2, "the key 'a' stands here again; it is also at line 1"),
    ]


def test_a_missing_file_is_none(tmp_path: Path) -> None:
    assert read_settings_file(tmp_path / "none.json") is None
    (tmp_path / "file").write_text("{}")
    assert read_settings_file(tmp_path / "file" / "below.json") is None


def test_the_null_device_is_a_file_without_settings(tmp_path: Path) -> None:
    document = read_settings_file(type(tmp_path)(os.devnull))
    assert document is not None
    assert document.value == {}


def test_a_byte_order_mark_is_no_character(tmp_path: Path) -> None:
    path = tmp_path / "bom.json"
    path.write_bytes(b'\xef\xbb\xbf{"model": "x"}')
    document = read_settings_file(path)
    assert document is not None
    assert document.value == {"model": "x"}
    assert document.position(("model",)) == Position(1, 2)


@pytest.mark.parametrize(
    ("data", "place", "words"),
    [
        (b"", ":1:1", "the file is empty; write {} into it, or remove it"),
        (b" \n\t", ":1:1", "the file is empty"),
        (b"[]", ":1:1", "must hold one JSON object"),
        (b'"model"', ":1:1", "must hold one JSON object"),
        (b'{"model":\n "\xff"}', ":2:1", "not UTF-8"),
        ('{"model": "x"}'.encode("utf-16"), ":1:1", "UTF-16"),
        (b" " * (MAX_BYTES + 1), "", "larger than 1 MiB"),
    ],
)
def test_a_file_that_is_no_settings_file_says_so(tmp_path: Path, data: bytes, place: str, words: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        read_settings_file(path)
    assert str(caught.value).startswith(f"{path}{place}: ")
    assert words in str(caught.value)
    assert caught.value.exit_code is ExitCode.USAGE


def test_a_directory_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a directory, where a settings file belongs"):
        read_settings_file(tmp_path)


def test_a_link_to_nothing_is_said_not_ignored(tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "gone.json")
    with pytest.raises(ConfigError, match="a link to a file that does not exist"):
        read_settings_file(link)


def test_a_link_in_a_circle_is_an_error_like_any_other(tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(link)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings_file(link)


def test_a_path_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings_file(tmp_path / "a\0b")


AS_NOBODY = """
import os, sys
from pathlib import Path
from synaptic.errors import ConfigError
from synaptic.settings import file as settings_file
import tempfile
os.chdir(sys.argv[1])
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    settings_file.%s
except ConfigError as exc:
    print(exc)
    print(sorted(os.listdir()))
"""


def as_nobody(directory: Path, call: str) -> str:
    """Run a call in a process that has no more rights than any user, and return what it says."""
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY % call, str(directory)], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_no_permission_to_read(tmp_path: Path) -> None:
    path = tmp_path / "secret.json"
    path.write_text("{}")
    path.chmod(0)
    tmp_path.chmod(0o755)
    said = as_nobody(tmp_path, "read_settings_file(Path('secret.json'))")
    assert "secret.json: the file cannot be read: Permission denied; check its permissions and its owner" in said


def test_no_permission_to_write_leaves_everything_as_it_was(tmp_path: Path) -> None:
    directory = tmp_path / "closed"
    directory.mkdir()
    (directory / "s.json").write_text('{"model": "x"}')
    directory.chmod(0o555)
    said = as_nobody(directory, "write_settings_file(Path('s.json'), {})")
    assert "s.json: the file cannot be written: Permission denied" in said
    assert "['s.json']" in said
    assert (directory / "s.json").read_text() == '{"model": "x"}'
    assert "cannot be backed up" in as_nobody(directory, "back_up(Path('s.json'))")


def test_writing_replaces_the_file_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text("old")
    path.chmod(0o640)
    inode = path.stat().st_ino
    write_settings_file(path, {"model": "m\u00f6del", "nodes": []})
    assert path.read_text(encoding="utf-8") == '{\n  "model": "m\u00f6del",\n  "nodes": []\n}\n'
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.stat().st_ino != inode
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.json"]


def test_a_new_file_is_the_users_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    write_settings_file(path, {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_is_written_through(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles"
    real.mkdir()
    (real / "s.json").write_text("{}")
    link = tmp_path / "s.json"
    link.symlink_to(real / "s.json")
    write_settings_file(link, {"model": "x"})
    assert link.is_symlink()
    assert json.loads((real / "s.json").read_text()) == {"model": "x"}


def test_the_owner_of_a_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text("{}")
    owner = 65534 if os.geteuid() == 0 else os.geteuid()
    os.chown(path, owner, -1)
    write_settings_file(path, {"model": "x"})
    assert path.stat().st_uid == owner


def test_only_a_regular_file_is_replaced(tmp_path: Path) -> None:
    """A pipe stands for every special file: putting a file in the place of /dev/null would harm the machine."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="cannot be written: not a regular file"):
        write_settings_file(tmp_path / "pipe", {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["pipe"]


def test_a_file_that_cannot_be_replaced_leaves_no_temporary_file(tmp_path: Path) -> None:
    target = tmp_path / "s.json"
    (target / "inside").mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be written"):
        write_settings_file(target, {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.json"]
    with pytest.raises(ConfigError, match="cannot be written"):
        write_settings_file(tmp_path / "no" / "such" / "s.json", {})


def test_no_backup_is_ever_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    for content in ("one", "two", "three"):
        path.write_text(content)
        back_up(path)
    kept = {entry.name: entry.read_text() for entry in tmp_path.iterdir()}
    assert kept == {"s.json": "three", "s.json.bak": "one", "s.json.bak.1": "two", "s.json.bak.2": "three"}
