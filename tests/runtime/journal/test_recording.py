"""What was said during a run is in the journal, once, and comes back as it was."""

import asyncio
import json
import sqlite3
import zlib
from dataclasses import replace

import pytest
from run_support import AGENTS, SETTINGS, Run

from synaptic import paths
from synaptic.backends.scripted import Failure, ScriptedBackend
from synaptic.errors import JournalError
from synaptic.pipeline.loader import Pipeline
from synaptic.runtime import RunStarted, Session, TokenDelta
from synaptic.runtime.approval import Approval, ApprovalRequest
from synaptic.runtime.events import (
    Event,
    StepContinued,
    StepRepaired,
    StepRetried,
    StepSummarised,
    StepThinking,
    StepThought,
)
from synaptic.runtime.journal import Journal
from synaptic.runtime.journal.kept_texts import AGAINST_BASE, hash_of
from synaptic.runtime.journal.run_account import account_of

LONG = ("The heat pump moves warmth from the cold air outside into the house. " * 60).strip()

SHAPES = {
    "a chain": (
        "  one: {agent: writer, prompt: '{{ inputs.query }}'}\n  end: {agent: writer, prompt: '{{ steps.one }}'}",
        None,
    ),
    "a map": (
        (
            "  list: {agent: lister, prompt: x}\n"
            "  each: {agent: writer, foreach: '{{ steps.list.items }}', prompt: '{{ item }}'}\n"
            "  end: {agent: writer, prompt: '{{ steps.each }}'}"
        ),
        {"list": json.dumps({"items": ["cold", "warm", "hot"]})},
    ),
    "a retry": ("  end: {agent: writer, prompt: x}", [Failure("truncated", 3), "well now"]),
    "a repair": ("  end: {agent: judge, prompt: x}", ["no json", '{"score": 0.5}']),
    "a failure": ("  end: {agent: writer, prompt: x, retry: {attempts: 1}}", [Failure("truncated", 3)]),
    "a skip": (
        (
            "  one: {agent: writer, prompt: x, when: \"{{ inputs.query == 'no' }}\"}\n"
            "  end: {agent: writer, prompt: 'y {{ steps.one }}'}"
        ),
        None,
    ),
    "samples": ("  end: {agent: writer, prompt: x, samples: 3, select: vote}", None),
}


@pytest.mark.parametrize("name", SHAPES)
async def test_events_come_back_as_they_were(name: str):
    steps, script = SHAPES[name]
    run = Run(steps, script, settings=replace_settings(retries=1))

    result = await run()

    with Journal() as journal:
        kept = journal.run(result.run_id)
        events, answer = list(journal.events(kept)), journal.answer(kept)
    told = [event for event in run.events if not isinstance(event, RunStarted)]
    assert without_error(events) == without_error(told)
    assert (kept.status, kept.pipeline, kept.query) == (result.status, "demo", "why")
    assert answer == result.answer


def replace_settings(**changes):
    return SETTINGS.model_copy(update=changes)


def without_error(events: list) -> list:
    """The events, with an error as its type and its words: exceptions are equal to nothing but themselves."""
    *steps, last = events
    error = last.result.error
    return [*steps, replace(last.result, error=None), error and (type(error), str(error))]


async def test_two_runs_of_one_session_at_once_are_not_mixed_up():
    async with Session(SETTINGS, backend=ScriptedBackend(token_delay=0.001), agents=AGENTS) as session:
        chain = Pipeline.parse(text_of("  end: {agent: writer, prompt: '{{ inputs.query }}'}"))
        results = await asyncio.gather(*(session.run(f"{word} " * 9, pipeline=chain) for word in ("hot", "cold")))

    with Journal() as journal:
        for result, word in zip(results, ("hot", "cold"), strict=True):
            events = list(journal.events(journal.run(result.run_id)))
            assert "".join(event.text for event in events if isinstance(event, TokenDelta)).split() == [word] * 9


def text_of(steps: str) -> str:
    return f"version: 1\nname: demo\ninputs: {{query: {{}}}}\nsteps:\n{steps}\nresult: '{{{{ steps.end }}}}'\n"


async def test_what_a_run_was_begun_with_is_kept():
    run = Run("  end: {agent: writer, prompt: '{{ inputs.query }}'}")

    result = await run("why is it " + "very " * 100 + "cold")

    with Journal() as journal:
        kept = journal.run(result.run_id)
        beginning = journal.beginning(kept)
    assert beginning.pipeline.text == run.pipeline.document.text
    assert beginning.inputs == {"query": "why is it " + "very " * 100 + "cold"}
    assert beginning.route.backend == "scripted"
    assert kept.owner.is_this


@pytest.mark.parametrize("part", [slice(0, 20), slice(-8, None), slice(None)], ids=["beginning", "end", "whole"])
async def test_a_run_is_found_by_a_part_of_its_id(part: slice):
    ids = [(await Run("  end: {agent: writer, prompt: x}")()).run_id for _ in range(2)]

    with Journal() as journal:
        assert journal.run(ids[1][part].lower()).id == ids[1]


async def test_an_unknown_run_is_refused_with_the_nearest_one():
    run_id = (await Run("  end: {agent: writer, prompt: x}")()).run_id
    with Journal() as journal:
        with pytest.raises(JournalError, match="no run") as refusal:
            journal.run(run_id[:-8] + ("1" if run_id[-8] == "0" else "0") + run_id[-7:])
        assert refusal.value.hint == f"did you mean {run_id}?"


async def test_without_the_journal_nothing_is_written():
    await Run("  end: {agent: writer, prompt: x}", settings=replace_settings(journal="off"))()

    assert not paths.journal_file().exists()
    with Journal() as journal:
        assert journal.runs() == []
    assert not paths.journal_file().exists()


async def test_only_its_owner_may_read_it():
    await Run("  end: {agent: writer, prompt: x}")()

    assert paths.journal_file().stat().st_mode & 0o777 == 0o600
    assert paths.journal_file().parent.stat().st_mode & 0o777 == 0o700


async def test_a_text_is_kept_once_however_many_steps_have_it():
    steps = "  s0: {agent: writer, prompt: '{{ inputs.query }}'}\n" + "".join(
        f"  s{number}: {{agent: writer, prompt: 'Go on: {{{{ steps.s{number - 1} }}}}'}}\n" for number in range(1, 10)
    )
    answers = [LONG + str(number) for number in range(9)]

    await Run(steps + "  end: {agent: writer, prompt: '{{ steps.s9 }}'}", [*answers, LONG, LONG])(LONG)

    with sqlite3.connect(paths.journal_file()) as connection:
        (count,) = connection.execute("SELECT count(*) FROM blobs WHERE size > 1000").fetchone()
    connection.close()
    assert count == 10


ECHO = "  end: {agent: writer, prompt: '{{ inputs.query }}'}"


async def test_what_a_text_is_packed_against_is_packed_against_nothing_also_where_an_earlier_run_has_it():
    first = await Run(ECHO, [f"You say: {LONG}"])(LONG)
    second = await Run(ECHO, [f"You say: {first.answer} Well."])(first.answer)

    chains = "SELECT count(*) FROM blobs JOIN blobs base ON base.hash = blobs.base WHERE base.base IS NOT NULL"
    with sqlite3.connect(paths.journal_file()) as connection:
        (count,) = connection.execute(chains).fetchone()
    connection.close()
    with Journal() as journal:
        answers = [journal.answer(journal.run(result.run_id)) for result in (first, second)]
    assert (count, answers) == (0, [first.answer, second.answer])


async def test_a_text_is_read_that_an_older_version_packed_against_one_that_was_packed_itself():
    first = await Run(ECHO, [f"You say: {LONG}"])(LONG)
    second = await Run(ECHO, [f"You say: {first.answer} Well."])(first.answer)
    pack_against(first.answer, LONG)

    with Journal() as journal:
        journal.prune(keep=1)
        assert journal.answer(journal.run(second.run_id)) == second.answer


def pack_against(text: str, base: str) -> None:
    """Have a text in the file be packed against another one that is there."""
    packer = zlib.compressobj(6, zdict=base.encode())
    body = packer.compress(text.encode()) + packer.flush()
    names = {"text": hash_of(text.encode()), "base": hash_of(base.encode())}
    uses = "SELECT base.n, run FROM blobs base, uses JOIN blobs ON uses.blob = blobs.n"
    with sqlite3.connect(paths.journal_file()) as connection:
        connection.execute(f"INSERT OR IGNORE INTO uses {uses} WHERE base.hash = :base AND blobs.hash = :text", names)
        change = "UPDATE blobs SET base = :base, packed = :packed, body = :body WHERE hash = :text"
        connection.execute(change, {**names, "packed": AGAINST_BASE, "body": body})
    connection.close()


async def test_a_run_that_asks_a_person_waits_meanwhile():
    seen = []

    async def person(request: ApprovalRequest) -> Approval:
        while not seen:
            await asyncio.sleep(0.01)
            with Journal() as journal:
                seen.extend(run.status for run in journal.runs() if run.status == "waiting")
        return Approval("edited", "Bern")

    result = await Run("  end: {ask: 'Which city?'}", approver=person)()

    with Journal() as journal:
        assert (seen, journal.run(result.run_id).status) == (["waiting"], "succeeded")


async def test_an_account_tells_of_each_step_what_became_of_it():
    run = Run(
        "  end: {agent: writer, prompt: x}", [Failure("truncated", 3), "well now"], settings=replace_settings(retries=1)
    )
    result = await run()
    with Journal() as journal:
        kept = journal.run(result.run_id)
        whole, beginning = journal.account(kept), journal.beginning(kept)
    (end,) = whole.steps
    assert end.result is not None
    assert (end.result.output, end.said) == ("well now", "")
    assert end.troubles[0].startswith("tried again: ")
    assert [message.role for message in end.messages][-1] == "user"

    events: list[Event] = [
        next(event for event in run.events if isinstance(event, RunStarted)),
        StepSummarised("a", "key", "what documents say"),
        TokenDelta("a", "so"),
        StepThought("a"),
        StepThinking("a", " then"),
        TokenDelta("a", "yes"),
        StepContinued("a", "it went away", None),
        TokenDelta("b", "no json"),
        StepRepaired("b", "no JSON"),
        TokenDelta("c", "lost"),
        StepRetried("c", 1, "busy", 0.0),
    ]
    told = account_of(kept, beginning, events, {"c": "open", "unheard": "of"})
    steps = {step.path: (step.thought, step.said, step.troubles) for step in told.steps}
    assert steps["a"] == ("so then", "yes", ["went on at another node: it went away"])
    assert steps["b"] == ("", "", ["asked again: no JSON"])
    assert steps["c"] == ("", "open", ["tried again: busy"])
    assert told.result is None
    assert told.steps[0].messages == ()
