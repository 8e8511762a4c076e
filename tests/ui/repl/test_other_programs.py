"""Two programs in one conversation: each goes on from what stands there by now, and nothing of the other is lost."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock

import pytest
from cli_support import ECHO, node, ollama, run_here
from fault_server import json_reply, ollama_reply
from repl_talk import Talk, make_talk

from synaptic import paths
from synaptic.backends.scripted import Failure, ScriptedBackend
from synaptic.errors import JournalError
from synaptic.processes import process_mark
from synaptic.runtime.journal import Journal, Owner, new_run_id
from synaptic.runtime.journal.row_seal import seal_all
from synaptic.runtime.kept_sessions import find_session, kept_sessions, turns_of
from synaptic.runtime.session import Session
from synaptic.settings import Settings
from synaptic.ui.repl.conversation import Asked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

Open = "Callable[..., Awaitable[Talk]]"


@pytest.fixture
async def open_talk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Open]:
    """Give what opens a program in the conversation of the last one; all end with the test."""
    monkeypatch.chdir(tmp_path)
    talks: list[Talk] = []

    async def opened(script: object = None, *, fresh: bool = False) -> Talk:
        talk = make_talk(script)
        talks.append(talk)
        if not fresh:
            await settled(*talks)
            await talk.say("/resume")
        return talk

    yield opened
    for talk in talks:
        await talk.repl.aclose()


async def settled(*talks: Talk) -> None:
    """Wait until all that was said in some programs is recorded."""
    for talk in talks:
        await talk.repl.sessions.recorded()


def here(talk: Talk) -> list[str]:
    """Return the questions as a program has them."""
    return [turn.question for turn in talk.repl.conversation]


def kept(wanted: str | None = None) -> list[str]:
    """Return the questions as they are kept."""
    with Journal() as journal:
        return [turn.question for turn in turns_of(journal, find_session(journal, wanted))]


def all_kept() -> list[list[str]]:
    """Return the questions of every conversation that is kept."""
    with Journal() as journal:
        return sorted([turn.question for turn in turns_of(journal, found)] for found in kept_sessions(journal))


async def test_a_turn_of_another_terminal_is_taken_in_and_said(open_talk: Open) -> None:
    one = await open_talk(fresh=True)
    await one.say("One?")
    two = await open_talk()
    await two.say("Two?")
    await settled(two)

    _, err = await one.say("Three?")

    assert "another program added 1 turn to this conversation, the last one: Two?" in err
    prompt = one.backend.requests[-1].messages[-1].content
    assert prompt.index("Person: One?") < prompt.index("Person: Two?")
    await settled(one)
    assert here(one) == kept() == ["One?", "Two?", "Three?"]
    _, err = await two.say("/history")
    assert "added 1 turn" in err
    assert here(two) == here(one)
    assert (await two.say("/history"))[1] == ""


@pytest.mark.parametrize("line", ["/undo", "/retry", "/fork 1"])
async def test_the_last_turn_is_not_changed_before_it_was_seen(open_talk: Open, line: str) -> None:
    one = await open_talk(fresh=True)
    await one.say("One?")
    two = await open_talk()
    await two.say("Two?")
    await settled(two)

    _, err = await one.say(line)

    assert "nothing was done: the last turn is another one now" in err
    assert here(one) == kept() == ["One?", "Two?"]
    await one.say("/undo")
    _, err = await two.say("/save talk.md")
    assert "another program took 1 turn of this conversation back; it ends with: One?" in err
    await one.say("/undo")
    _, err = await two.say("/save talk.md")
    assert "none is left" in err
    assert here(one) == here(two) == kept() == []


async def test_a_question_that_is_asked_again_elsewhere_has_its_new_answer(open_talk: Open) -> None:
    one = await open_talk(fresh=True)
    await one.say("One?")
    two = await open_talk(["another answer"])
    await two.say("/retry")
    await settled(two)

    _, err = await one.say("/history")

    assert "another program asked again: One?" in err
    assert [turn.answer for turn in one.repl.conversation] == ["another answer"]


async def test_where_another_terminal_went_on_from_an_earlier_turn_there_are_two_conversations(open_talk: Open) -> None:
    one = await open_talk(fresh=True)
    await one.say("One?")
    await one.say("Two?")
    two = await open_talk()
    await two.say("/undo")
    await two.say("Other?")
    await settled(two)

    _, err = await one.say("Three?")

    assert "another program went on from an earlier turn, with: Other?" in err
    await settled(one)
    assert all_kept() == [["One?", "Other?"], ["One?", "Two?", "Three?"]]
    assert here(two) == ["One?", "Other?"]


async def test_a_turn_that_was_cut_off_and_went_on_elsewhere_has_its_answer(open_talk: Open) -> None:
    one = await open_talk([Failure("server_error"), "fine"], fresh=True)
    await one.say("One?")
    assert [turn.status for turn in one.repl.conversation] == ["failed"]
    await settled(one)
    async with Session(one.repl.settings, backend=ScriptedBackend(["because"])) as session:
        await session.resume(one.repl.conversation[0].run_id)

    _, err = await one.say("Two?")

    assert "another program" not in err
    assert "You: because" in one.backend.requests[-1].messages[-1].content
    assert [turn.answer for turn in one.repl.conversation] == ["because", "fine"]


async def test_of_two_that_ask_at_the_same_moment_one_begins_a_conversation_of_its_own(open_talk: Open) -> None:
    one = await open_talk(fresh=True)
    await one.say("One?")
    two = await open_talk()

    await one.repl.catch_up()
    await two.say("Other?")
    await settled(two)
    await one.repl.ask_here(Asked("Two?"))  # what it looked at is not so any more

    assert "another program asked in this conversation at the same moment" in one.err.getvalue()
    await settled(one)
    assert all_kept() == [["One?", "Other?"], ["One?", "Two?"]]
    for talk in (one, two):
        assert "another program" not in (await talk.say("Then?"))[1]
    assert all_kept() == [["One?", "Other?", "Then?"], ["One?", "Two?", "Then?"]] == [here(two), here(one)]
    await one.say("/name mine")
    assert kept("mine") == here(one)


async def test_of_several_that_ask_at_once_nothing_is_lost(open_talk: Open) -> None:
    one = await open_talk(fresh=True)
    await one.say("Begin?")
    talks = [one, await open_talk(), await open_talk()]

    for number in range(3):
        await asyncio.gather(*(talk.say(f"{name}{number}?") for name, talk in zip("abc", talks, strict=True)))
    await settled(*talks)

    asked = {f"{name}{number}?" for name in "abc" for number in range(3)}
    assert {question for session in all_kept() for question in session} == {"Begin?", *asked}
    for name, talk in zip("abc", talks, strict=True):
        assert [question for question in here(talk) if question[0] == name] == [f"{name}{n}?" for n in range(3)]
        assert here(talk)[0] == "Begin?"


async def test_what_was_overtaken_between_look_and_run_is_no_turn_of_the_conversation(own_home: object) -> None:
    talk, backend = new_run_id(), ScriptedBackend()
    async with Session(make_talk().repl.settings, backend=backend) as session:
        first = await session.run("One?", session=talk)
        second = await session.run("Two?", session=talk, after=first.run_id, last=first.run_id)
        late = await session.run("Other?", session=talk, after=first.run_id, last=first.run_id)
    with Journal() as journal:
        assert [journal.run(run.run_id).session for run in (second, late)] == [talk, late.run_id]
    assert kept(talk) == ["One?", "Two?"]
    assert kept(late.run_id) == ["One?", "Other?"]


async def test_what_is_gone_from_the_record_stays_here(open_talk: Open) -> None:
    one = await open_talk(fresh=True)
    await one.say("One?")
    await one.say("Two?")
    await settled(one)
    with Journal() as journal:
        journal.remove(journal.runs()[1:])
    two = await open_talk()
    await two.say("Three?")
    await settled(two)

    await one.say("/history")
    assert here(one) == ["One?", "Two?", "Three?"]
    with Journal() as journal:
        journal.remove(journal.runs())
    assert (await one.say("Four?"))[1].count("another program") == 0
    assert here(one)[-1] == "Four?"


async def test_where_every_turn_is_gone_from_the_record_two_programs_go_on_together(open_talk: Open) -> None:
    one = await open_talk(fresh=True)
    await one.say("One?")
    two = await open_talk()
    await settled(one)
    with Journal() as journal:
        journal.prune(keep=0)
    await one.say("Two?")
    await settled(one)

    _, err = await two.say("Three?")

    assert "another program added 1 turn to this conversation, the last one: Two?" in err
    await settled(two)
    assert kept() == ["Two?", "Three?"]
    assert "another program added 1 turn" in (await one.say("/history"))[1]
    assert here(one) == here(two) == ["One?", "Two?", "Three?"]


async def test_behind_a_turn_that_could_not_be_recorded_the_earlier_ones_are_still_found(open_talk: Open) -> None:
    one = await open_talk(fresh=True)
    for question in ("One?", "Two?", "Lost?"):
        await one.say(question)
    await settled(one)
    with Journal() as journal:
        journal.remove(journal.runs()[:1])  # as if the disk had been full

    await one.say("Three?")
    await settled(one)
    assert kept() == ["One?", "Two?", "Three?"]
    two = await open_talk()
    await two.say("Four?")
    await settled(two)
    await one.say("/history")
    assert here(one) == ["One?", "Two?", "Lost?", "Three?", "Four?"]
    await one.say("/undo")
    await one.say("/undo")
    await one.say("/undo")
    assert here(one) == kept() == ["One?", "Two?"]


@pytest.mark.parametrize("line", ["/undo", "/retry"])
async def test_a_turn_that_another_program_asks_again_is_left_to_it(open_talk: Open, line: str) -> None:
    one = await open_talk(fresh=True)
    await one.say("One?")
    await settled(one)
    parent = os.getppid()
    other = replace(Owner.this(), pid=parent, mark=process_mark(parent) or "")
    with sqlite3.connect(paths.journal_file()) as connection:
        connection.execute("UPDATE runs SET status = 'running', owner = ?", (other.written(),))
        seal_all(connection)
    connection.close()

    assert "another program waits for the answer to the last turn" in (await one.say(line))[1]
    assert here(one) == ["One?"]
    assert len(one.backend.requests) == 1


async def test_what_was_asked_since_the_last_look_is_not_taken_back(
    open_talk: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await open_talk(fresh=True)
    await one.say("One?")
    two = await open_talk()
    await one.repl.catch_up()
    await two.say("Two?")
    await settled(two)

    with monkeypatch.context() as patched:
        patched.setattr(one.repl, "refuse_surprise", AsyncMock())  # as if the other one came between the two
        assert "another program has just asked something" in (await one.say("/undo"))[1]
    assert here(one) == ["One?"]
    assert kept() == ["One?", "Two?"]
    await one.say("/history")
    assert here(one) == ["One?", "Two?"]


async def test_with_the_journal_off_nothing_of_another_program_is_taken_back(open_talk: Open) -> None:
    one = await open_talk(fresh=True)
    await one.say("One?")
    await one.say("Two?")
    two = await open_talk()
    await one.say("/set journal off")
    await one.say("Off?")
    await two.say("Three?")
    await settled(two)

    assert "nothing was done" in (await one.say("/undo"))[1]
    assert kept() == ["One?", "Two?", "Three?"]
    await two.say("/undo")
    assert "took 1 turn of this conversation back" in (await one.say("/undo"))[1]
    assert here(one) == ["One?", "Two?", "Off?"]
    await one.say("/undo")
    assert kept() == here(one) == ["One?", "Two?"]
    await one.say("/undo")
    assert kept() == here(one) == ["One?"]


async def test_an_answer_that_is_not_recorded_stands_for_the_one_that_it_replaced(open_talk: Open) -> None:
    one = await open_talk(["a", "first", "second", "third", "b"], fresh=True)
    for line in ("One?", "Two?", "/set journal off", "/retry", "/retry", "/set journal normal"):
        assert "another program" not in (await one.say(line))[1]

    assert "another program" not in (await one.say("Three?"))[1]
    await settled(one)
    assert [turn.answer for turn in one.repl.conversation] == ["a", "third", "b"]
    with Journal() as journal:
        turns = turns_of(journal, find_session(journal))
    assert [turn.answer for turn in turns] == ["a", "first", "b"]


async def test_what_was_taken_back_stays_so_behind_a_turn_that_is_not_recorded(open_talk: Open) -> None:
    one = await open_talk(fresh=True)
    for line in ("Wrong?", "/undo", "/set journal off", "Off?", "/set journal normal", "One?"):
        await one.say(line)
    await settled(one)

    assert kept() == ["One?"]
    assert here(one) == ["Off?", "One?"]


async def test_a_name_may_be_in_quotes(open_talk: Open) -> None:
    one = await open_talk(fresh=True)
    await one.say("One?")
    await settled(one)
    await one.say('/name "Two Words"')
    assert kept("Two Words") == ["One?"]
    two = await open_talk(fresh=True)
    await two.say("/resume 'two words'")
    assert here(two) == ["One?"]
    await two.say("Other?")
    await two.say("/clear")
    await two.say("Else?")
    await settled(two)
    await two.say('/name --force "Two Words"')
    assert kept("Two Words") == ["Else?"]


async def test_a_turn_that_cannot_be_taken_back_stays(open_talk: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    one = await open_talk(fresh=True)
    await one.say("One?")

    def full(*_: object) -> None:
        raise JournalError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "note", full)
        assert "the disk is full" in (await one.say("/undo"))[1]
    assert here(one) == kept() == ["One?"]


async def test_a_turn_that_is_not_recorded_is_taken_back_where_nothing_can_be_written(
    open_talk: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await open_talk(fresh=True)
    for line in ("One?", "/set journal off", "Lost?", "/set journal normal"):
        await one.say(line)

    def read_only(*_: object) -> None:
        raise JournalError("the disk may only be read")

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "note", read_only)
        assert "forgotten: Lost?" in (await one.say("/undo"))[1]
        assert here(one) == kept() == ["One?"]
        assert "may only be read" in (await one.say("/undo"))[1]
    assert here(one) == kept() == ["One?"]


def test_one_question_from_the_command_line_goes_behind_the_last_turn() -> None:
    run_here(*ECHO, "One?")
    run_here(*ECHO, "-c", "Two?")
    assert run_here(*ECHO, "-c", "Three?").code == 0
    assert kept() == ["One?", "Two?", "Three?"]


def test_a_question_from_the_command_line_that_was_overtaken_says_so() -> None:
    """The server that is asked what it has takes its time: meanwhile another program asks in the conversation."""
    run_here(*ECHO, "One?")
    with Journal() as journal:
        (before,) = kept_sessions(journal)
    asked: list[str] = []

    async def slow(*connection: Any) -> None:
        if not asked:
            asked.append("Other?")
            async with Session(Settings(pipeline="answer"), backend=ScriptedBackend()) as session:
                await session.run("Other?", session=before.id, after=before.last.id)
        await json_reply({"version": "0.12.6"})(*connection)

    with ollama(ollama_reply("fine"), version=slow) as server:
        outcome = run_here(*node(server), "-p", "answer", "-c", "Two?")

    assert (outcome.code, outcome.out) == (0, "fine\n")
    assert "another program asked in this conversation at the same moment" in outcome.err
    assert all_kept() == [["One?", "Other?"], ["One?", "Two?"]]


async def test_a_question_while_another_program_asks_the_last_turn_again_leaves_that_its_answer(
    open_talk: Open,
) -> None:
    one = await open_talk(["first"] * 2, fresh=True)
    await one.say("One?")
    two = await open_talk(["second"])
    await two.say("/retry")
    await settled(two)
    with asked_again_elsewhere():
        _, err = await one.say("Two?")
        await settled(one)

    assert "at the same moment" in err
    assert here(one) == ["One?", "Two?"]
    assert all_kept() == [["One?"], ["One?", "Two?"]]
    with Journal() as journal:
        assert [turn.answer for turn in turns_of(journal, kept_sessions(journal)[-1])] == ["second"]


def test_one_question_while_another_program_asks_the_last_turn_again_leaves_that_its_answer() -> None:
    run_here(*ECHO, "One?")
    run_here("chat", *ECHO, "-c", stdin="/retry\n")
    with asked_again_elsewhere():
        asked = run_here(*ECHO, "-c", "Two?")

    assert "at the same moment" in " ".join(asked.err.split())
    assert all_kept() == [["One?"], ["One?", "Two?"]]


@contextmanager
def asked_again_elsewhere() -> Iterator[None]:
    """Have the run that was begun last be one that another program is still at work on, inside the ``with``."""
    parent = os.getppid()
    other = replace(Owner.this(), pid=parent, mark=process_mark(parent) or "")
    with Journal() as journal:
        (last,) = journal.runs(limit=1)
    change_run(last.id, "running", other)
    yield
    change_run(last.id, "succeeded", other)


def change_run(run_id: str, status: str, owner: Owner) -> None:
    """Have a run stand so, as one of another program."""
    with sqlite3.connect(paths.journal_file()) as connection:
        connection.execute("UPDATE runs SET status = ?, owner = ? WHERE id = ?", (status, owner.written(), run_id))
        seal_all(connection)
    connection.close()
