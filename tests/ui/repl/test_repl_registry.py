"""The registry of slash commands, the words of a line, and completion."""

from __future__ import annotations

import os
import re
from inspect import iscoroutinefunction
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from repl_talk import Talk, make_talk, write

from synaptic.errors import UsageError
from synaptic.settings import load_settings
from synaptic.ui.repl.arguments import quoted, split_words, take_word, word_at_end
from synaptic.ui.repl.candidates import OF_COMMAND, Suggestion
from synaptic.ui.repl.commands import REGISTRY
from synaptic.ui.repl.completion import CommandCompleter
from synaptic.ui.repl.repl import Sources, handler
from synaptic.ui.repl.sessions import SessionHolder
from synaptic.ui.repl.slash_commands import Call, Command, Question

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


MANUAL = Path(__file__).parents[3] / "docs" / "reference" / "prompt.md"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a home and a working directory of its own."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    for name in [name for name in os.environ if name.startswith(("SYNAPTIC_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    return home


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    """Give a program whose backend echoes."""
    made = make_talk()
    yield made
    await made.repl.aclose()


# -- words -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("  a  b ", ["a", "b"]),
        ('"a b" c', ["a b", "c"]),
        ("'a b' c", ["a b", "c"]),
        ('key="a b" c', ["key=a b", "c"]),
        ("What's new, what's old", ["What's", "new,", "what's", "old"]),
        ('"never closed', ['"never', "closed"]),
        ('"say \\"hi\\""', ['say "hi"']),
        ("C:\\dir\\file", ["C:\\dir\\file"]),
        ('{"a": 1}', ['{"a":', "1}"]),
    ],
)
def test_words_keep_what_people_type(text: str, words: list[str]) -> None:
    """Quotes group only where they open and close a word; an apostrophe is text."""
    assert split_words(text) == words


def test_take_word_leaves_the_rest_as_it_stands() -> None:
    assert take_word(' "a b"   What\'s   up?') == ("a b", "What's   up?")


@pytest.mark.parametrize("word", ["plain", "two words", 'a "quoted" word', "it's", "'odd", "back\\slash here"])
def test_a_quoted_word_is_read_back(word: str) -> None:
    assert split_words(quoted(word)) == [word]


def test_word_at_end_tells_how_long_the_typed_word_is() -> None:
    assert word_at_end('a "b c"') == (["a"], "b c", 5)
    assert word_at_end("a ") == (["a"], "", 0)
    assert word_at_end("") == ([], "", 0)


# -- the registry ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["", "   ", "\n", "/"])
def test_an_empty_line_means_nothing(line: str) -> None:
    assert REGISTRY.read(line) is None


@pytest.mark.parametrize(
    ("line", "question"),
    [
        ("model is what?", "model is what?"),
        ("discover the causes of war", "discover the causes of war"),
        ("exit the building how?", "exit the building how?"),
        ("help", "help"),
        ("//etc/hosts is what?", "/etc/hosts is what?"),
        ("what is /model?", "what is /model?"),
    ],
)
def test_only_a_leading_slash_makes_a_command(line: str, question: str) -> None:
    assert REGISTRY.read(line) == Question(question)


@pytest.mark.parametrize("line", ["exit", "quit", " Quit ", "/exit", "/quit", "exit()", ":q", ":wq", "\\q"])
def test_a_word_that_leaves_other_prompts_leaves(line: str) -> None:
    call = REGISTRY.read(line)
    assert isinstance(call, Call)
    assert (call.command.name, call.rest) == ("exit", "")


@pytest.mark.parametrize("line", ["/model x  y", "/MODEL x  y", "  /model   x  y"])
def test_a_command_keeps_its_arguments_as_they_stand(line: str) -> None:
    call = REGISTRY.read(line)
    assert isinstance(call, Call)
    assert (call.command.name, call.rest) == ("model", "x  y")


def test_an_unknown_command_names_the_nearest_and_the_way_out() -> None:
    with pytest.raises(UsageError) as caught:
        REGISTRY.read("/modle")
    assert caught.value.message == "there is no command /modle"
    assert caught.value.hint == "did you mean /model? To ask it as a question, write //modle …"


def test_an_unknown_command_like_no_other_points_to_help() -> None:
    with pytest.raises(UsageError) as caught:
        REGISTRY.read("/zzzzzz")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("/help lists the commands.")


def test_a_name_of_the_older_program_means_the_command_of_today_and_is_not_offered() -> None:
    call = REGISTRY.read("/Health desk")
    assert isinstance(call, Call)
    assert (call.command.name, call.rest) == ("nodes", "check desk")
    assert call.notice == "/health is /nodes check here"
    assert "health" not in REGISTRY.names()
    today = REGISTRY.read("/nodes check desk")
    assert isinstance(today, Call)
    assert today.notice == ""


def test_the_commands_of_the_design_are_there() -> None:
    assert [command.name for command in REGISTRY] == [
        "help", "model", "pipeline", "agents", "plan", "run", "set", "config", "nodes", "explain", "coordinator",
        "rpc", "status", "history", "runs", "save", "undo", "retry",
        "sessions", "resume", "fork", "name", "raw", "copy", "edit", "clear", "exit",
    ]  # fmt: skip
    assert REGISTRY.find("quit") is REGISTRY.find("/exit")


@pytest.mark.parametrize("command", list(REGISTRY), ids=lambda command: command.name)
def test_every_command_explains_itself(command: Command) -> None:
    """Help is one line without a full stop; the example is a line that means this command."""
    assert iscoroutinefunction(handler(command))
    assert command.help
    assert "\n" not in command.help
    assert not command.help.endswith(".")
    call = REGISTRY.read(command.example)
    assert isinstance(call, Call)
    assert call.command is command


def test_only_commands_have_completions() -> None:
    assert set(OF_COMMAND) <= {command.name for command in REGISTRY}


def test_the_manual_lists_exactly_the_commands() -> None:
    """The table in docs/reference/prompt.md has each command's usage and help line, in order."""
    rows = re.findall(r"^\| `(/[^`]*)` \| (.*?) \|$", MANUAL.read_text(encoding="utf-8"), re.MULTILINE)
    expected = [
        (", ".join([command.usage, *(f"/{alias}" for alias in command.aliases)]), command.help) for command in REGISTRY
    ]
    assert [(usage.replace("\\|", "|"), text) for usage, text in rows] == expected


# -- completion ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("/mo", ["/model"]),
        ("/MO", ["/model"]),
        ("/s", ["/set", "/status", "/save", "/sessions"]),
        ("/q", ["/quit"]),
        ("/model", []),
        ("/help mo", ["/help model"]),
        ("/pipeline an", ["/pipeline answer"]),
        ("/run par", ["/run parallel"]),
        ("/run parallel an", []),
        ("/agents ed", ["/agents editor"]),
        ("/set temp", ["/set temperature"]),
        (
            "/set task_distribution_enabled ",
            ["/set task_distribution_enabled true", "/set task_distribution_enabled false"],
        ),
        ("/set temperature ", ["/set temperature none"]),
        ("/set pipeline res", ["/set pipeline research"]),
        ("/set nonsense ", []),
        ("/set temperature 0.2 ", []),
        ("/config ", ["/config show", "/config path", "/config set"]),
        ("/config show ", []),
        ("/config set temp", ["/config set temperature"]),
        ("/nonsense a", []),
        ("/plan th", []),
        ("mo", []),
        ("//mo", []),
        ("/mo\n/mo", []),
        ("a /mo", []),
    ],
)
async def test_completion(talk: Talk, text: str, lines: list[str]) -> None:
    assert talk.complete(text) == lines


async def test_all_commands_are_offered_after_a_slash(talk: Talk) -> None:
    assert talk.complete("/") == [f"/{name}" for name in REGISTRY.names()]


async def test_completion_of_models_knows_what_was_last_asked(talk: Talk) -> None:
    assert talk.complete("/model ") == []
    await talk.say("/model")
    assert talk.complete("/model s") == ["/model scripted"]
    assert talk.complete("/set model s") == ["/set model scripted"]


async def test_completion_of_files(talk: Talk, own_home: Path) -> None:
    for name in ("notes.md", "two words.md", "flow.yaml", ".hidden.md"):
        write(name)
    write("folder/inside.md")
    write(own_home / "there.md")
    assert talk.complete("/save no") == ["/save notes.md"]
    assert talk.complete("/save two") == ['/save "two words.md"']
    assert talk.complete("/save .h") == ["/save .hidden.md"]
    assert talk.complete("/save fo") == ["/save folder/"]
    assert talk.complete("/save ./fo") == ["/save ./folder/"]
    assert talk.complete("/save ~/th") == ["/save ~/there.md"]
    assert talk.complete("/save missing/x") == []
    assert talk.complete("/run ./") == ["/run ./flow.yaml", "/run ./folder/"]
    assert talk.complete("/pipeline fl") == ["/pipeline flow.yaml"]


async def test_a_broken_agent_file_does_not_disturb_typing(talk: Talk) -> None:
    write("agents/broken.md", "---\nname: [\n---\nx\n")
    assert talk.complete("/agents ed") == []
    assert "broken.md" in (await talk.say("/agents"))[1]


async def test_a_candidate_says_what_it_is(talk: Talk) -> None:
    completions = CommandCompleter(talk.repl).get_completions(Document("/mod"), CompleteEvent())
    assert [entry.display_meta_text for entry in completions] == ["Show the models, or choose one"]
    assert Suggestion("x").about == ""


# -- the session behind the prompt -----------------------------------------------------------------------------


async def test_warming_finds_the_route_and_the_models() -> None:
    talk = make_talk()
    talk.repl.sessions.warm(talk.repl.settings)
    talk.repl.sessions.warm(talk.repl.settings)
    await talk.repl.session()
    assert talk.repl.sessions.route is not None
    assert talk.complete("/model s") == ["/model scripted"]
    assert len(talk.sessions_made) == 1
    await talk.repl.aclose()


async def test_warming_is_silent_about_errors_and_can_be_cut_short() -> None:
    talk = make_talk(overrides=("pipeline=answer", "nodes=http://127.0.0.1:9"))
    talk.repl.sessions = SessionHolder()
    talk.repl.sessions.warm(talk.repl.settings)
    await talk.repl.session()
    assert talk.repl.sessions.route is None
    await talk.repl.aclose()
    other = make_talk()
    other.repl.sessions.warm(other.repl.settings)
    await other.repl.aclose()
    assert (talk.err.getvalue(), other.err.getvalue()) == ("", "")


def test_settings_are_loaded_without_a_change() -> None:
    assert (
        load_settings(overrides=["pipeline=answer"]).settings
        == Sources(None, ("pipeline=answer",), {}, {}).load().settings
    )
