"""Conversations that are kept, on a terminal and in several programs: what stays when one of them is cut off."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cli_support import ECHO, MAIN, run_here
from repl_talk import make_talk, write
from repl_terminal import CTRL_C, CTRL_D, DRIVER, ENTER, Terminal, environment, open_terminal

from synaptic import paths
from synaptic.runtime import Journal
from synaptic.runtime.journal.row_seal import seal_all

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

JOURNAL = Path(".local") / "state" / "synapticllamas" / "journal.sqlite3"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Give a home directory with nothing in it."""
    path = tmp_path / "home"
    path.mkdir()
    return path


def program(home: Path, *arguments: str) -> AbstractContextManager[Terminal]:
    """Give the program on a terminal of its own."""
    return open_terminal([str(DRIVER), *arguments], home, environment(home))


def runs(home: Path) -> list[str]:
    """Return how the recorded runs ended, the latest first."""
    with Journal(home / JOURNAL) as journal:
        return [run.status for run in journal.runs()]


def said(home: Path) -> str:
    """Return what is recorded of the answer that is being given."""
    with Journal(home / JOURNAL) as journal:
        return "".join(text for run in journal.runs(limit=1) for text in journal.open_texts(run).values())


@pytest.mark.parametrize("end", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_the_answer_that_was_there_stays_until_there_is_another(home: Path, end: str) -> None:
    with program(home) as terminal:
        terminal.ask("answer once", "\nthe only answer\n")
        terminal.wait_for_prompt()
        terminal.type("/retry", ENTER)
        terminal.wait(lambda _: len(runs(home)) == 2)
        if end == "SIGINT":
            terminal.type(CTRL_C)
            terminal.wait("the answer that was there stays")
            terminal.ask("/history", "     the only answer\n")
        else:
            terminal.program.kill(signal.Signals[end])
            terminal.wait_for_end()

    with program(home, "-c") as terminal:
        terminal.wait("1 turn", "answer once\n\nthe only answer\n")
        terminal.ask("and now?", "You: the only answer", "and now?")


def test_a_turn_that_another_terminal_is_answering_is_no_interrupted_one(home: Path) -> None:
    with program(home) as first, program(home) as second:
        first.wait_for_prompt()
        first.type("talk for ever", ENTER)
        first.wait(lambda _: "word word word" in said(home))
        second.ask("/resume", "talk for ever\n\nword word", "\n\n(still being answered)\n", "hint: /resume ")
        assert "interrupted" not in second.text
        second.ask("/history", "(still")
        first.type(CTRL_C)
        first.wait("the answer so far is part of the conversation")
        first.program.kill(signal.SIGKILL)
        first.wait_for_end()
        second.ask("/clear")
        second.ask("/resume", "\n\n(interrupted)\n", "hint: to go on with it")


def test_an_answer_that_another_terminal_is_asking_for_again_is_there(home: Path) -> None:
    with program(home) as first, program(home) as second:
        first.ask("answer once", "\nthe only answer\n")
        first.wait_for_prompt()
        first.type("/retry", ENTER)
        first.wait(lambda _: len(runs(home)) == 2)
        second.ask("/resume", "answer once\n\nthe only answer\n", "hint: it is being asked again; /resume ")


async def test_a_turn_that_waits_for_a_person_says_how_to_answer(own_home: Path) -> None:
    talk = make_talk()
    await talk.say("One?")
    await talk.repl.aclose()
    with sqlite3.connect(paths.journal_file()) as connection:
        connection.execute("UPDATE runs SET status = 'waiting', owner = ?", (f"{os.uname().nodename} {1 << 30} x",))
        seal_all(connection)
    connection.close()

    later = make_talk()
    out, err = await later.say("/resume")

    assert out.endswith("\n\n(waits for an answer)\n")
    assert "hint: what it waits for: synaptic runs answer " in err
    assert "waits for an answer" in run_here("sessions", "show").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--session", "NOSUCH"), "there is no conversation 'NOSUCH'"),
        (("-c",), "there is no earlier conversation"),
        (("-f", "nothing.txt"), "-f: names nothing.txt, which is not there"),
    ],
)
def test_what_is_not_there_is_said_before_any_greeting(home: Path, words: tuple[str, ...], said: str) -> None:
    with open_terminal([MAIN, "chat", *ECHO, *words], home, environment(home)) as terminal:
        assert terminal.wait_for_end() == 2
        assert f"error: {said}" in terminal.text
        assert "Ask anything" not in terminal.text


def test_an_answer_that_is_shown_again_looks_as_it_did(home: Path) -> None:
    arguments = [MAIN, "chat", *ECHO]
    with open_terminal(arguments, home, environment(home)) as terminal:
        terminal.ask("say **this** and `that`", "\nsay this and that\n")
        terminal.type(CTRL_D)
        terminal.wait_for_end()
    with open_terminal([*arguments, "-c"], home, environment(home)) as terminal:
        terminal.wait("going on with", "say **this** and `that`\n\nsay this and that\n")
        terminal.wait_for_prompt()
        before = terminal.text.count("say this and that")
        terminal.ask("/history 1", lambda terminal: terminal.text.count("say this and that") == before + 1)


def test_what_every_question_was_about_is_known_when_the_conversation_goes_on(tmp_path: Path) -> None:
    work, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    elsewhere.mkdir()
    write(work / "notes.txt", "Bridges are long.")
    write(work / "more.txt", "Tunnels are dark.")
    run_here("chat", *ECHO, "-f", "notes.txt", "-f", "more.txt", cwd=work, stdin="One?\n")
    write(work / "notes.txt", "Bridges are longer.")
    (work / "more.txt").unlink()

    later = run_here("chat", *ECHO, "-c", cwd=elsewhere, stdin="Two?\n/retry\n/fork\nThree?\n")
    asked = run_here(*ECHO, "-c", "Four?", cwd=elsewhere)

    assert "every question is about" in later.err and " (19 characters)" in later.err
    left_out = f"{work}/more.txt, which the conversation was about, is left out: it is not there"
    assert left_out in later.err
    assert later.out.count("\nTwo?\n\nnotes.txt:\n\nBridges are longer.") >= 2
    assert later.out.count("\nThree?\n\nnotes.txt:\n\nBridges are longer.") == 1
    assert "Bridges are longer." in asked.out
    assert left_out in " ".join(asked.err.split())
    replaced = run_here("chat", *ECHO, "-c", "-f", "../work/notes.txt", cwd=elsewhere, stdin="Five?\n")
    assert "left out" not in replaced.err and "any more" not in replaced.err


def test_files_are_those_of_the_conversation_that_is_open(tmp_path: Path) -> None:
    write(tmp_path / "notes.txt", "Bridges are long.")
    run_here(*ECHO, "Elsewhere?")
    lines = "One?\n/resume\nAnd?\n/resume\nTwo?\n/retry\n"

    talk = run_here("chat", *ECHO, "-f", "notes.txt", cwd=tmp_path, stdin=lines)

    assert "no question is about notes.txt (17 characters) any more" in talk.err
    assert talk.err.count("every question is about ") == 2
    said = talk.out.split("Elsewhere?\n", 1)[1].split("One?\n", 1)
    assert "And?" in said[0] and "Bridges" not in said[0]
    assert said[1].count("\nTwo?\n\nnotes.txt:\n\nBridges are long.") == 2
