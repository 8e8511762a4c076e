"""Where tools come from: files and modules that are named, and what packages offer when they are installed."""

import importlib.util
import py_compile
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from synaptic.errors import UsageError
from synaptic.pipeline.tools import Tool, discover_tools


def search(query: str) -> str:
    """Search the archive."""
    return query


SEARCH = Tool.of(search)

MODULE = """\
from __future__ import annotations
import dataclasses
from synaptic import tool

with open("imported", "a") as log:
    log.write("x")

@dataclasses.dataclass
class Word:
    text: str

@tool
def shout(word: Word) -> str:
    '''Say it aloud.'''
    return word.text.upper()

@tool(name="whisper")
def _quietly(text: str) -> str:
    return text.lower()

def helper() -> None: ...
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a file of tools, which Python can import from as well."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    (tmp_path / "mytools.py").write_text(MODULE)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Install a distribution with these entry points, as far as Python can tell."""
    info = folder / "site" / "demo-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[synaptic.tools]", *lines, ""]))
    (folder / "site" / "demo_tools.py").write_text(MODULE)
    monkeypatch.syspath_prepend(folder / "site")


def imports(folder: Path) -> int:
    log = folder / "imported"
    return len(log.read_text()) if log.exists() else 0


async def test_a_file_is_imported_once_and_gives_what_it_marks(folder: Path):
    book = discover_tools(["mytools.py", "./mytools.py"])

    assert list(book) == ["shout", "whisper"]
    assert len(book) == 2
    assert book["shout"].description == "Say it aloud."
    assert await book["shout"].call({"word": {"text": "hi"}}) == "HI"
    assert imports(folder) == 1
    assert discover_tools(["mytools.py"])["whisper"].function is book["whisper"].function


def test_a_module_is_named_as_it_is_imported(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "pkg").mkdir()
    (folder / "pkg" / "tools.py").write_text(MODULE)
    monkeypatch.syspath_prepend(folder)

    assert set(discover_tools(["pkg.tools"])) == {"shout", "whisper"}


def test_given_ones_count_as_well(folder: Path):
    book = discover_tools(["mytools.py"], {"search": search, "find": SEARCH})

    assert [book["search"].name, book["find"].function] == ["search", search]
    assert "serch" not in book
    with pytest.raises(KeyError):
        book["serch"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mytool.py", "there is no file mytool.py to take tools from\n  did you mean 'mytools.py'?"),
        ("nowhere/x.py", "there is no folder nowhere"),
        ("mytools", "there is no module 'mytools' to take tools from\n  to use the file, write --tools ./mytools.py"),
        ("mytool", "did you mean --tools ./mytools.py?"),
        ("xyz.abc", "name an installed module as in pkg.tools, or a file as in ./tools.py"),
        ("json.nothing", "there is no module 'json.nothing'"),
        ("..", "there is no module '..'"),
        ("", "there is no module ''"),
        ("./", "name one file in it, as in ./tools.py"),
        ("./text.txt", "is no Python file"),
        ("json", "there are no tools in json\n  put @tool (from synaptic import tool) before"),
    ],
)
def test_what_is_not_there_says_what_to_write(name: str, message: str, folder: Path):
    (folder / "text.txt").touch()

    with pytest.raises(UsageError) as caught:
        discover_tools([name])

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        ("import json\n1 / 0\n", 2, "ZeroDivisionError: division by zero"),
        ("def f(:\n", 1, "SyntaxError: invalid syntax"),
        ("\nimport nothing_of_the_kind\n", 2, "ModuleNotFoundError: No module named 'nothing_of_the_kind'"),
        ("import json\n\njson.loads('{')\n", 3, "JSONDecodeError: Expecting property name"),
        ("raise SystemExit(3)\n", 1, "SystemExit: 3"),
        ("from synaptic import tool\n@tool(name='a b')\ndef f(): ...\n", 2, "'a b' is not a usable name for a tool"),
    ],
)
def test_a_file_that_raises_is_named_with_its_line(source: str, line: int, message: str, folder: Path):
    (folder / "broken.py").write_text(source)
    before = set(sys.modules)

    with pytest.raises(UsageError) as caught:
        discover_tools(["./broken.py"])

    assert str(caught.value).startswith(f"{folder / 'broken.py'}:{line}: ./broken.py cannot be imported: {message}")
    assert not [name for name in set(sys.modules) - before if name.startswith("_synaptic_tools_")]


def test_two_tools_of_one_name_are_an_error(folder: Path):
    (folder / "more.py").write_text("from synaptic import tool\n@tool\ndef shout() -> str:\n    return ''\n")

    with pytest.raises(UsageError, match=r"two tools are called 'shout': .*mytools\.py:12 and .*more\.py:2"):
        discover_tools(["mytools.py", "more.py"])


def test_an_installed_function_is_imported_when_it_is_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch):
    installed(folder, monkeypatch, "loud = demo_tools:shout", "plain = demo_tools:helper")
    book = discover_tools()

    assert list(book) == ["loud", "plain"]
    assert "loud" in book
    assert imports(folder) == 0
    assert book["loud"].name == "loud"
    assert book["plain"].name == "plain"
    assert imports(folder) == 1


def test_an_installed_module_gives_what_it_marks(folder: Path, monkeypatch: pytest.MonkeyPatch):
    installed(folder, monkeypatch, "all = demo_tools")
    book = discover_tools()

    assert imports(folder) == 0
    assert book["whisper"].name == "whisper"
    assert list(book) == ["shout", "whisper"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("loud = demo_tools:nothing", "the entry point loud = demo_tools:nothing cannot be imported: AttributeError"),
        ("loud = no_such_module:f", "cannot be imported: ModuleNotFoundError"),
        ("loud = demo_tools:tool.__name__", "is no function"),
        ("loud = json", "there are no tools in json"),
    ],
)
def test_a_broken_package_is_an_error_for_those_who_use_it(
    line: str, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    installed(folder, monkeypatch, line)
    book = discover_tools(["mytools.py"])

    assert book["shout"].name == "shout"
    with pytest.raises(UsageError) as caught:
        book["loud"]
    assert message in str(caught.value)


def test_what_is_named_goes_before_what_is_installed(folder: Path, monkeypatch: pytest.MonkeyPatch):
    installed(folder, monkeypatch, "shout = demo_tools:helper")

    assert discover_tools(["mytools.py"])["shout"].description == "Say it aloud."


def test_two_installed_tools_of_one_name_are_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch):
    installed(folder, monkeypatch, "shout = demo_tools:helper", "all = demo_tools")

    with pytest.raises(UsageError, match="two tools are called 'shout'"):
        list(discover_tools())


def test_what_lies_compiled_beside_a_file_of_tools_does_not_run(tmp_path: Path):
    own, other = tmp_path / "mine.py", tmp_path / "other.py"
    text = "from synaptic import tool\n@tool\ndef add(a: int, b: int) -> int:\n    return a + b\n"
    own.write_text(text)
    other.write_text(text.replace("a + b", "666"))
    compiled = importlib.util.cache_from_source(str(own))
    py_compile.compile(str(other), compiled, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)

    tools = discover_tools([str(own)])

    assert tools["add"].function(1, 2) == 3
