"""What one call asks before it has its output is not asked again either: repairs of a reply, summaries of a prompt."""

import pytest
from past_support import Goes
from run_support import AGENTS, SETTINGS

from synaptic.backends.scripted import Reply, ScriptedBackend
from synaptic.runtime.events import PromptShortened, StepAsked, StepFinished, StepRepaired, StepSummarised
from synaptic.runtime.journal import Journal
from synaptic.runtime.session import Session

LIST = """\
version: 1
name: demo
inputs: {query: {}}
steps:
  end: {agent: lister, prompt: "{{ inputs.query }}", retry: {repairs: 2}}
result: "{{ steps.end.items[0] }}"
"""
LONG = """\
version: 1
name: demo
inputs: {query: {}}
steps:
  end: {agent: writer, prompt: "Say what this is: {{ inputs.query }}", overflow: summarise, max_tokens: 20}
result: "{{ steps.end }}"
"""
WORDS = " ".join(f"w{number}" for number in range(800))


def up_to(events: list, kind: type, count: int) -> list:
    """Return the events up to the last of so many of a kind."""
    numbers = [number for number, event in enumerate(events, 1) if isinstance(event, kind)]
    return events[: numbers[count - 1]]


@pytest.mark.parametrize("repaired", [1, 2])
async def test_a_reply_that_could_not_be_used_is_not_asked_for_again(repaired: int):
    bad = [Reply(text="no JSON", thinking="Hm."), Reply(text='{"items": ', finish_reason="length")]
    goes = Goes(LIST, [*bad, {"items": ["a"]}])
    whole = await goes()
    assert whole.answer == "a"
    assert goes.asked.total() == 3
    events = list(goes.events)

    goes.script = [*bad[repaired:], {"items": ["a"]}]
    again = await goes(up_to(events, StepRepaired, repaired))

    assert (again.answer, goes.asked.total()) == ("a", 3 - repaired)
    first, second = ([e.result for e in each if isinstance(e, StepFinished)][-1] for each in (events, goes.events))
    assert (second.attempts, second.usage) == (first.attempts, first.usage) == (3, first.usage)


async def test_what_was_repaired_is_known_after_two_kills():
    goes = Goes(LIST, ["no JSON", "nor here", {"items": ["a"]}])
    await goes()
    known = up_to(goes.events, StepRepaired, 1)
    goes.script = ["nor here", {"items": ["a"]}]
    await goes(known)
    known += up_to(goes.events, StepRepaired, 1)

    goes.script = [{"items": ["a"]}]
    again = await goes(known)

    assert (again.answer, goes.asked.total()) == ("a", 1)


async def test_replies_of_another_model_of_the_same_name_are_not_used():
    goes = Goes(LIST, ["no JSON", {"items": ["a"]}], digest="sha256:1")
    await goes()
    goes.digest = "sha256:2"
    await goes(up_to(goes.events, StepRepaired, 1))
    assert goes.asked.total() == 2


async def summarise(request):
    """Return a word in ten, and an answer to what is no summary."""
    head, _, text = request.messages[-1].content.partition("\n\n")
    return " ".join(text.split()[::10]) if head.startswith("Summarise") else "an answer"


async def test_a_part_of_a_prompt_is_summarised_once():
    goes = Goes(LONG, summarise, context=300)
    whole = await goes(query=WORDS)
    assert whole.answer == "an answer"
    made = [event for event in goes.events if isinstance(event, StepSummarised)]
    assert len(made) >= 3
    assert goes.asked.total() == len(made) + 1
    events, usage = list(goes.events), whole.usage

    for known in (1, len(made)):
        again = await goes(up_to(events, StepSummarised, known), query=WORDS)
        assert (again.answer, again.usage) == ("an answer", usage)
        assert goes.asked.total() == len(made) - known + 1
        assert [e for e in goes.events if isinstance(e, PromptShortened)] == [
            e for e in events if isinstance(e, PromptShortened)
        ]


async def test_summaries_of_another_prompt_are_not_used():
    goes = Goes(LONG, summarise, context=300)
    await goes(query=WORDS)
    count = goes.asked.total()
    await goes(goes.events[:-2], query=WORDS.replace("w", "v"))
    assert goes.asked.total() == count


async def test_what_a_call_asked_inside_is_in_the_journal():
    backend = ScriptedBackend(summarise, context=300)
    goes = Goes(LONG)
    async with Session(SETTINGS, backend=backend, agents=AGENTS, on_event=goes.events.append) as session:
        result = await session.run(WORDS, pipeline=goes.pipeline)
    with Journal() as journal:
        kept = list(journal.events(journal.run(result.run_id)))
    said = [event for event in goes.events if isinstance(event, (StepSummarised, StepAsked))]
    assert [event for event in kept if isinstance(event, (StepSummarised, StepAsked))] == said
