"""A question is recorded at Enter: whatever ends the program from then on, it is part of the conversation."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
from cli_support import run_here
from repl_talk import Talk, make_talk
from warm_python import ROOT

from synaptic import Session, Settings, paths
from synaptic.backends.scripted import ScriptedBackend
from synaptic.errors import JournalError
from synaptic.processes import SqliteFile
from synaptic.runtime import (
    AskedQuestion,
    Descent,
    Journal,
    KeptTurn,
    find_session,
    new_run_id,
    read_run_before,
    turns_of,
)
from synaptic.runtime.journal import Owner
from synaptic.runtime.journal.row_seal import seal_all

if TYPE_CHECKING:
    from pathlib import Path

DRIVER = ROOT / "tests" / "support" / "killed_at_enter_driver.py"


def killed(line: str, *options: str) -> None:
    """Ask in a program that is killed at Enter."""
    ended = subprocess.run([sys.executable, str(DRIVER), line, *options], check=False, timeout=120)
    assert ended.returncode == -signal.SIGKILL


def kept(wanted: str | None = None) -> list[KeptTurn]:
    """Return the turns of a conversation."""
    with Journal() as journal:
        return turns_of(journal, find_session(journal, wanted))


async def resumed(script: list[str]) -> Talk:
    """Return a program that goes on with the last conversation."""
    talk = make_talk(script)
    await talk.say("/resume")
    return talk


async def test_a_question_of_a_program_that_was_killed_at_enter_can_be_asked_again() -> None:
    killed("Why?")

    (turn,) = kept()
    assert (turn.question, turn.answer, turn.status) == ("Why?", "", "interrupted")
    assert "Why?" in run_here("sessions", "list").out
    assert ": answer, interrupted" in run_here("runs", "show", turn.run_id).out
    listed = run_here("runs", "list").out
    assert "interrupted" in listed and "Why?" in listed
    assert turn.run_id in run_here("runs", "grep", "Why", "--json").out
    with pytest.raises(JournalError, match="ended before it had a pipeline"):
        _ = read_run_before(turn.run_id, to_go_on=False).pipeline

    talk = await resumed(["because"])
    assert "(interrupted)" in talk.out.getvalue()
    await talk.say("/retry")
    await talk.repl.aclose()
    assert [(turn.question, turn.answer) for turn in kept()] == [("Why?", "because")]


async def test_what_was_asked_in_a_conversation_is_asked_again_with_its_turns_and_files(tmp_path: Path) -> None:
    first = make_talk(["Hello, Ada."])
    await first.say("My name is Ada.")
    await first.repl.aclose()
    note = tmp_path / "note.txt"
    note.write_text("Ada lives in Turin.")
    killed(f"/run answer -f {note} Where do I live?", "resume")

    _, turn = kept()
    assert (turn.question, turn.status, turn.pipeline) == ("Where do I live?", "interrupted", "answer")
    backend = ScriptedBackend(["In Turin."])
    async with Session(Settings(), backend=backend) as session:
        result = await session.resume(turn.run_id)

    assert (result.run_id, result.answer) == (turn.run_id, "In Turin.")
    prompt = backend.requests[0].messages[-1].content
    assert "Person: My name is Ada." in prompt
    assert "Ada lives in Turin." in prompt
    assert [turn.answer for turn in kept()] == ["Hello, Ada.", "In Turin."]


async def test_a_run_takes_the_place_of_its_question() -> None:
    talk = make_talk(["because"])
    await talk.say("Why?")
    await talk.repl.aclose()

    with Journal() as journal:
        (run,) = journal.runs()
        assert (run.status, run.query, run.session) == ("succeeded", "Why?", talk.repl.kept_as)
        assert journal.beginning(run).is_planned
        assert [each.run.id for each in journal.grep("Why")] == [run.id]
    with sqlite3.connect(paths.journal_file()) as connection:
        kinds = [kind for (kind,) in connection.execute("SELECT kind FROM events WHERE run = 1 ORDER BY seq")]
    connection.close()
    assert (kinds[0], kinds.count("RunStarted"), kinds[-1]) == ("RunStarted", 1, "RunFinished")


@pytest.mark.parametrize("line", ["Why?", "/retry"])
async def test_an_answer_is_recorded_before_the_prompt_returns(line: str) -> None:
    talk = make_talk()
    for each in dict.fromkeys(["Why?", line]):
        await talk.say(each)
    with sqlite3.connect(paths.journal_file()) as connection:
        assert {status for (status,) in connection.execute("SELECT status FROM runs")} == {"succeeded"}
    connection.close()
    await talk.repl.aclose()


async def test_a_question_of_which_the_run_does_not_begin_is_none() -> None:
    talk = make_talk()
    _, err = await talk.say("/run nowhere Why?")
    await talk.repl.aclose()

    assert "nowhere" in err
    with Journal() as journal:
        assert journal.runs() == []


async def test_another_program_sees_that_a_question_is_being_answered() -> None:
    asked = question("Why?")
    other = Owner.of(os.getppid())
    with Journal() as journal:
        assert journal.ask(asked) == asked.descent.session
    assert "no pipeline yet, running" in run_here("runs", "show").out
    with sqlite3.connect(paths.journal_file()) as connection:
        connection.execute("UPDATE runs SET owner = ?", (other.written(),))
        seal_all(connection)
    connection.close()

    talk = await resumed([])
    assert "(still being answered)" in talk.out.getvalue()
    assert "another program waits for the answer" in (await talk.say("/retry"))[1]
    await talk.repl.aclose()


def test_what_is_secret_is_not_in_a_question() -> None:
    secret = "s3cr3t-token-of-mine"
    asked = replace(question(f"Is {secret} right?"), documents=[{"path": "a", "text": secret}])
    with Journal() as journal:
        journal.ask(asked, [secret])
        (run,) = journal.runs()
        told = journal.beginning(run)
    assert secret.encode() not in b"".join(path.read_bytes() for path in paths.journal_file().parent.iterdir())
    assert run.query is not None and run.query.startswith("Is ") and run.query == told.question


def test_a_question_comes_behind_what_another_program_asked_in_a_conversation_of_its_own() -> None:
    first = question("One?")
    behind = {"session": first.descent.session, "after": first.run_id, "last": first.run_id}
    two, three = (replace(question(text), descent=Descent(**behind)) for text in ("Two?", "Three?"))
    with Journal() as journal:
        assert [journal.ask(asked) for asked in (first, two, three)] == [behind["session"]] * 2 + [three.run_id]
    assert [turn.question for turn in kept(three.run_id)] == ["One?", "Three?"]


def question(text: str) -> AskedQuestion:
    """Return a question that begins a conversation."""
    return AskedQuestion(
        run_id=new_run_id(),
        at=1.0,
        query=text,
        pipeline=None,
        inputs={},
        documents=(),
        descent=Descent(session=new_run_id()),
    )


async def test_a_turn_that_another_program_keeps_out_of_the_record_is_said_and_recorded_once_it_can_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("synaptic.runtime.journal.recorder._TRIES", 1)
    monkeypatch.setattr("synaptic.runtime.journal.file_writer.SqliteFile", partial(SqliteFile, busy_seconds=0.05))
    talk = make_talk(["because", "indeed", "quite"])
    await talk.say("Why?")
    with sqlite3.connect(paths.journal_file(), isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        await talk.say("Really?")
        other.execute("ROLLBACK")
    other.close()
    told = talk.err.getvalue()
    await talk.say("Sure?")
    await talk.repl.aclose()

    assert [(turn.question, turn.answer) for turn in kept()] == [
        ("Why?", "because"),
        ("Really?", "indeed"),
        ("Sure?", "quite"),
    ]
    assert told.count("not recorded yet") == 1
