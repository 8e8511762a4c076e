"""Files that a question at the prompt names with ``@``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from repl_talk import make_talk, write

from synaptic.errors import ExitCode
from synaptic.ui.repl.mentions import mentions, path_being_typed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("notes.txt", "Bridges are long.")
    write("two words.md", "Two words.")
    (tmp_path / "src").mkdir()
    write("src/a.py", "a = 1")
    return tmp_path


@pytest.mark.parametrize(
    ("question", "text", "files"),
    [
        ("What does @notes.txt say?", "What does notes.txt say?", ("notes.txt",)),
        ("@notes.txt", "notes.txt", ("notes.txt",)),
        ("See @notes.txt, and (@src/).", "See notes.txt, and (@src/).", ("notes.txt",)),
        ("See @src/ and @notes.txt. Then @notes.txt", "See src/ and notes.txt. Then notes.txt", ("src/", "notes.txt")),
        ('Read @"two words.md" now', "Read two words.md now", ("two words.md",)),
        ("All of @src/*.py?", "All of src/*.py?", ("src/*.py",)),
        ("Ask @alice about a@b.example", "Ask @alice about a@b.example", ()),
        ("Is @nothing.txt there", "Is nothing.txt there", ("nothing.txt",)),
        ("What is @dataclass?", "What is @dataclass?", ()),
        ("An @ alone", "An @ alone", ()),
    ],
)
def test_a_word_with_the_mark_is_a_file_where_there_is_one(question: str, text: str, files: tuple[str, ...]) -> None:
    found = mentions(question)

    assert (found.text, found.files) == (text, files)


@pytest.mark.parametrize(
    ("text", "path"),
    [("@", ""), ("see @no", "no"), ('see @"two w', "two w"), ("a@b", None), ("@done ", None), ("no mark", None)],
)
def test_the_path_that_is_being_typed(text: str, path: str | None) -> None:
    assert path_being_typed(text) == path


async def test_the_files_go_behind_the_question_and_are_said() -> None:
    talk = make_talk()
    talk.repl.screen.live = True
    _, err = await talk.say("What does @notes.txt say, and @src/?")
    prompt = talk.backend.requests[-1].messages[-1].content
    assert "with notes.txt, src/a.py (22 characters)" in err
    assert prompt.startswith("What does notes.txt say, and src/?\n\nnotes.txt:\n\nBridges are long.")
    assert [turn.question for turn in talk.repl.conversation] == ["What does @notes.txt say, and @src/?"]
    await talk.say("/retry")
    assert talk.backend.requests[-1].messages == talk.backend.requests[-2].messages
    await talk.repl.aclose()


async def test_a_file_that_cannot_be_read_asks_nothing() -> None:
    talk = make_talk()
    talk.repl.screen.live = True
    _, err = await talk.say("What does @notes.tx say?")
    assert "names notes.tx, which is not there" in err
    assert "did you mean 'notes.txt'?" in err
    assert talk.repl.last_exit is ExitCode.USAGE
    assert not talk.backend.requests
    await talk.repl.aclose()


async def test_lines_of_a_program_name_no_files() -> None:
    talk = make_talk()
    await talk.say("What does @notes.txt say?")
    assert "Bridges" not in talk.backend.requests[-1].messages[-1].content
    await talk.repl.aclose()


async def test_run_takes_files() -> None:
    talk = make_talk()
    await talk.say("/run answer -f notes.txt What does it say?")
    assert "Bridges are long." in talk.backend.requests[-1].messages[-1].content
    _, err = await talk.say("/run answer -f")
    assert "-f needs a file" in err
    await talk.repl.aclose()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("see @no", ["see @notes.txt"]),
        ("see @s", ["see @src/"]),
        ("see @src/", ["see @src/a.py"]),
        ("see @tw", ['see @"two words.md"']),
        ("see no", []),
        ("/run answer -f no", ["/run answer -f notes.txt"]),
    ],
)
def test_a_path_is_completed(text: str, lines: list[str]) -> None:
    assert make_talk().complete(text) == lines
