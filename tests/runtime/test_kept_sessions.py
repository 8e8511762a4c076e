"""Conversations that are kept: found again, gone on with, taken back and forked; all of it from the record of runs."""

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest

from synaptic import Message, ScriptedBackend, Session, Settings, UsageError, paths
from synaptic.backends.scripted import Failure
from synaptic.runtime.journal import Journal, new_run_id
from synaptic.runtime.journal.row_seal import seal_all
from synaptic.runtime.kept_sessions import (
    INTERRUPTED_MARK,
    KeptTurn,
    conversation_of,
    find_session,
    kept_sessions,
    name_session,
    remove_session,
    take_back,
    turns_of,
)

GONE = f"{os.uname().nodename} {1 << 30} x"
"""A process of this machine that is not there."""
SETTINGS = Settings(backend="scripted", pipeline="answer", retries=0)


class Talk:
    """A conversation as a program has it: each run is told which one was before."""

    def __init__(self) -> None:
        self.id = new_run_id()
        self.runs: list[str] = []

    async def ask(self, question: str, *, after: str | None = None, backend: ScriptedBackend | None = None) -> str:
        """Ask, and return the id of the run."""
        async with Session(SETTINGS, backend=backend or ScriptedBackend(["answer to " + question])) as session:
            before = after or (self.runs[-1] if self.runs else None)
            result = await session.run(question, session=self.id, after=before)
        self.runs.append(result.run_id)
        return result.run_id


def questions(wanted: str | None = None) -> list[str]:
    with Journal() as journal:
        return [turn.question for turn in turns_of(journal, find_session(journal, wanted))]


async def test_a_conversation_is_found_again_with_every_turn():
    talk, other = Talk(), Talk()
    await talk.ask("One?")
    await other.ask("Elsewhere?")
    await talk.ask("Two?")

    with Journal() as journal:
        found = kept_sessions(journal)
        turns = turns_of(journal, found[0])

    assert [(session.id, len(session.runs)) for session in found] == [(talk.id, 2), (other.id, 1)]
    assert [(turn.question, turn.answer, turn.status) for turn in turns] == [
        ("One?", "answer to One?", "succeeded"),
        ("Two?", "answer to Two?", "succeeded"),
    ]
    assert conversation_of(turns)[2:] == (Message("user", "Two?"), Message("assistant", "answer to Two?"))
    assert (turns[0].pipeline, turns[0].inputs, turns[0].run_id) == ("answer", {}, talk.runs[0])


async def test_a_turn_that_was_taken_back_is_no_part_of_it():
    talk = Talk()
    first = await talk.ask("One?")
    await talk.ask("Wrong?")
    await talk.ask("Two?", after=first)

    assert questions() == ["One?", "Two?"]


async def test_turns_that_were_taken_back_stay_so_until_something_is_asked_again():
    talk = Talk()
    first = await talk.ask("One?")
    second = await talk.ask("Two?")
    with Journal() as journal:
        assert take_back(journal, talk.id, second, first)
        assert questions() == ["One?"]
        assert take_back(journal, talk.id, second, None)
        assert questions() == []
        assert not take_back(journal, talk.id, first, None)  # the last one was not seen
        assert questions() == ["One?", "Two?"]
    await talk.ask("Three?", after=first)

    assert questions() == ["One?", "Three?"]


async def test_turns_before_one_that_was_removed_stay_but_those_that_were_taken_back():
    talk = Talk()
    first = await talk.ask("One?")
    second = await talk.ask("Two?")
    await talk.ask("Wrong?")
    await talk.ask("So wrong?")
    await talk.ask("Three?", after=second)
    with Journal() as journal:
        assert journal.pin(first)
        journal.remove([journal.run(second)])

    assert questions() == ["One?", "Three?"]


@pytest.mark.parametrize("kind", ["RunStarted", "RunFinished"])
async def test_a_turn_that_is_damaged_is_told_as_that_among_the_others(kind: str):
    talk = Talk()
    for question in ("One?", "Two?", "Three?"):
        await talk.ask(question)
    damage_event(talk.runs[1], kind)

    with Journal() as journal:
        turns = turns_of(journal, find_session(journal))
    assert [(turn.question, turn.status) for turn in turns] == [
        ("One?", "succeeded"),
        ("Two?", "damaged"),
        ("Three?", "succeeded"),
    ]
    assert "is damaged" in turns[1].error
    assert [message.content for message in conversation_of(turns)][::2] == ["One?", "Three?"]


def damage_event(run_id: str, kind: str) -> None:
    with sqlite3.connect(paths.journal_file()) as connection:
        told = "UPDATE events SET body = 'x' || body WHERE kind = ? AND run = (SELECT n FROM runs WHERE id = ?)"
        assert connection.execute(told, (kind, run_id)).rowcount == 1
    connection.close()


async def half_said() -> str:
    """Have a conversation whose second turn was killed in the middle of its answer; return the run of that."""
    talk = Talk()
    await talk.ask("One?")
    run_id = await talk.ask("Two?")
    with sqlite3.connect(paths.journal_file()) as connection:
        (number,) = connection.execute("SELECT n FROM runs WHERE id = ?", (run_id,)).fetchone()
        connection.execute(
            "DELETE FROM events WHERE run = ? AND kind IN ('RunFinished', 'StepFinished', 'Spoken')", (number,)
        )
        connection.execute("INSERT INTO open_text VALUES (?, 'answer', 0, ?, '')", (number, b"half an ans"))
        connection.execute("UPDATE runs SET status = 'running', ended = NULL, owner = ? WHERE n = ?", (GONE, number))
        seal_all(connection)
    connection.close()
    return run_id


def last_turn() -> KeptTurn:
    with Journal() as journal:
        return turns_of(journal, find_session(journal))[-1]


async def test_a_turn_whose_process_was_killed_has_what_it_had_said():
    await half_said()
    with Journal() as journal:
        turns = turns_of(journal, find_session(journal))

    assert (turns[-1].question, turns[-1].answer, turns[-1].status) == ("Two?", "half an ans", "interrupted")
    assert conversation_of(turns)[-1].content == f"half an ans\n\n{INTERRUPTED_MARK}"


async def test_what_a_turn_had_said_stays_while_and_after_going_on_with_it_says_nothing():
    run_id = await half_said()
    for _ in range(2):
        backend = ScriptedBackend([Failure("stall")])
        async with Session(SETTINGS, backend=backend) as session:
            going_on = asyncio.create_task(session.resume(run_id))
            while not backend.requests:
                await asyncio.sleep(0.01)
            assert last_turn().answer == "half an ans"
            going_on.cancel()
            await asyncio.gather(going_on, return_exceptions=True)
        assert (last_turn().answer, last_turn().status) == ("half an ans", "cancelled")


async def test_a_fork_has_the_turns_that_it_goes_on_from():
    talk, fork = Talk(), Talk()
    first = await talk.ask("One?")
    await talk.ask("Two?")
    await fork.ask("Other?", after=first)

    assert questions(fork.id) == ["One?", "Other?"]
    assert questions(talk.id) == ["One?", "Two?"]


async def test_a_run_that_begins_with_a_turn_is_no_turn():
    """Of an earlier turn, run again or forked, nothing of the conversation changes; the run knows what came before."""
    talk = Talk()
    await talk.ask("One?")
    second = await talk.ask("Two?")
    await talk.ask("Three?")

    async with Session(SETTINGS, backend=ScriptedBackend(["other", "another"])) as session:
        again = await session.rerun(second, inputs={"query": "Four?"})
        fork = await session.fork(second, at="answer", inputs={"query": "Five?"})

    assert questions() == ["One?", "Two?", "Three?"]
    with Journal() as journal:
        (found,) = kept_sessions(journal)
        assert [run.id for run in found.runs] == talk.runs
        assert [journal.run(run.run_id).session for run in (again, fork)] == [None, None]


async def test_a_fork_keeps_the_answer_that_it_tried_in_vain_to_replace_when_the_other_is_removed():
    talk, fork = Talk(), new_run_id()
    for question in ("One?", "Two?"):
        await talk.ask(question)
    async with Session(SETTINGS, backend=ScriptedBackend([Failure("rejected")])) as session:
        await session.run("Two?", session=fork, after=talk.runs[0], instead=talk.runs[1])
    assert questions(fork) == ["One?", "Two?"]
    with Journal() as journal:
        remove_session(journal, find_session(journal, talk.id))

        turns = turns_of(journal, find_session(journal, fork))

    assert [turn.answer for turn in turns] == ["answer to One?", "answer to Two?"]


async def test_a_fork_keeps_the_turns_that_it_goes_on_from_when_the_other_is_removed():
    talk, fork, later = Talk(), Talk(), Talk()
    for question in ("One?", "Two?", "Three?"):
        await talk.ask(question)
    await fork.ask("Other?", after=talk.runs[1])
    await later.ask("Third?", after=talk.runs[0])
    with Journal() as journal:
        name_session(journal, talk.id, "heat")
        left = remove_session(journal, find_session(journal, "heat"))

        assert {session: [run.id for run in runs] for session, runs in left.items()} == {
            fork.id: [talk.runs[1], talk.runs[0]]
        }
        assert questions(fork.id) == ["One?", "Two?", "Other?"]
        assert questions(later.id) == ["One?", "Third?"]
        assert [session.id for session in kept_sessions(journal)] == [later.id, fork.id]
        assert len(journal.runs()) == 4
        name_session(journal, later.id, "heat")

        remove_session(journal, find_session(journal, fork.id))

        assert questions(later.id) == ["One?", "Third?"]
        assert [len(session.runs) for session in kept_sessions(journal)] == [2]
        assert all(run.status == "succeeded" for run in journal.runs())


async def test_a_conversation_is_removed_beside_a_run_that_is_damaged():
    talk, other = Talk(), Talk()
    await talk.ask("One?")
    run_id = await other.ask("Elsewhere?")
    damage_event(run_id, "RunStarted")
    with Journal() as journal:
        assert remove_session(journal, find_session(journal, talk.id)) == {}
        assert [run.id for run in journal.runs()] == [run_id]


async def test_a_failed_turn_is_kept_and_not_passed_on():
    talk = Talk()
    await talk.ask("One?")
    await talk.ask("Two?", backend=ScriptedBackend([Failure("server_error")]))

    with Journal() as journal:
        turns = turns_of(journal, find_session(journal))

    assert [turn.status for turn in turns] == ["succeeded", "failed"]
    assert "scripted" in str(turns[1].error)
    assert len(conversation_of(turns)) == 2


def test_an_answer_that_was_cut_off_says_so():
    turn = KeptTurn(
        run_id="r",
        question="Why?",
        answer="Half",
        status="interrupted",
        error=None,
        pipeline="answer",
        inputs={},
        documents=(),
        at=0.0,
    )

    assert conversation_of([turn])[1].content == f"Half\n\n{INTERRUPTED_MARK}"


async def test_a_conversation_is_found_by_its_name_and_by_a_part_of_its_id():
    talk, other = Talk(), Talk()
    await talk.ask("One?")
    await other.ask("Elsewhere?")
    with Journal() as journal:
        name_session(journal, talk.id, "heat")
        name_session(journal, other.id, "cold")

    assert questions("heat") == ["One?"]
    assert questions("cold") == ["Elsewhere?"]
    assert questions(other.id[-8:].lower()) == ["Elsewhere?"]
    with Journal() as journal:
        assert find_session(journal).id == other.id
        assert find_session(journal, but=other.id).id == talk.id


async def test_a_name_is_one_conversations_and_is_taken_from_it_only_on_purpose():
    talk, other = Talk(), Talk()
    await talk.ask("One?")
    await other.ask("Elsewhere?")
    with Journal() as journal:
        name_session(journal, other.id, "heat")
        name_session(journal, other.id, "Heat")  # it has it already
        with pytest.raises(UsageError, match=rf"called Heat: {other.id[-8:]}, 1 run, begins with 'Elsewhere\?'"):
            name_session(journal, talk.id, "HEAT")
        with pytest.raises(UsageError, match="is the id of another conversation"):
            name_session(journal, talk.id, other.id[-8:].lower())
        assert find_session(journal, "heat").id == other.id

        name_session(journal, talk.id, "heat", take=True)

        assert [(each.id, each.name) for each in kept_sessions(journal)] == [(other.id, ""), (talk.id, "heat")]


async def test_the_name_of_a_conversation_that_is_gone_is_free():
    talk, gone = Talk(), Talk()
    await talk.ask("One?")
    await gone.ask("Elsewhere?")
    with Journal() as journal:
        name_session(journal, gone.id, "heat")
        journal.remove(find_session(journal, "heat").runs)

        name_session(journal, talk.id, "heat")

        assert find_session(journal, "heat").id == talk.id


@pytest.mark.parametrize(
    ("wanted", "what", "hint"),
    [
        ("heet", "there is no conversation 'heet'", "did you mean 'heat'?"),
        ("ZZ", "there is no conversation 'ZZ'", "sessions list"),
        (None, "several conversations match", "more of it"),
    ],
)
async def test_one_that_is_not_there_is_refused(wanted: str | None, what: str, hint: str):
    talk, other = Talk(), Talk()
    await talk.ask("One?")
    await other.ask("Two?")
    with Journal() as journal:
        name_session(journal, talk.id, "heat")

    with Journal() as journal, pytest.raises(UsageError) as raised:
        find_session(journal, wanted or talk.id[:6])

    assert what in raised.value.message
    assert hint in str(raised.value.hint)


def test_without_any_there_is_none_to_go_on_with():
    with Journal() as journal, pytest.raises(UsageError, match="no earlier conversation"):
        find_session(journal)


async def test_names_that_cannot_be_read_are_said_and_left_alone(own_home: Path):
    talk = Talk()
    await talk.ask("One?")
    file = own_home / ".local" / "state" / "synapticllamas" / "sessions.json"
    file.write_text("{")

    with Journal() as journal, pytest.raises(UsageError, match=r"sessions\.json"):
        name_session(journal, talk.id, "heat")

    assert file.read_text() == "{"
