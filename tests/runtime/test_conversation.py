"""The turns before a question: which calls get them, how much of them, and what is said of the rest."""

import json
import re
from typing import Any

import pytest

from synaptic import ConversationShortened, Event, Message, Pipeline, RunResult, ScriptedBackend, Session, Settings
from synaptic.backends.scripted import default_answer
from synaptic.messages import ChatRequest
from synaptic.pipeline.loader import builtin_pipelines
from synaptic.runtime.earlier_turns import LEAST_TOKENS, EarlierTurns, earlier_turns
from synaptic.runtime.policies import estimated_tokens

TURNS = [Message("user", "What is iron?"), Message("assistant", "A metal.")]
EARLIER = "Earlier in this conversation:\nPerson: What is iron?\nYou: A metal."
QUESTION = "And in which winter is its colour seen?"

HEARS = {
    "answer": "answer",
    "debate": "rounds.first rounds.second rounds.minutes verdict",
    "fact_check": "answer",
    "longform": "outline write",
    "map_reduce": "map reduce.merge answer",
    "mixture": "layers.propose aggregate",
    "parallel": "research critique draft merge",
    "research": "plan research critique refine.revise refine.judge write",
    "story": "plot tell.draft tell.critique",
    "vote": "vote.answer vote.answer.judge vote.ballots",
}
"""The steps of each built-in pipeline whose prompts have the question in them."""


def reply(request: ChatRequest) -> Any:
    """Answer so that every loop goes round, without an echo of the prompt, which would carry the turns on."""
    if not request.schema:
        return " ".join(f"word{number}" for number in range(min(request.max_tokens or 100, 100)))
    answer = json.loads(default_answer(request))
    return {**answer, "score": 0.1} if "score" in answer else answer


async def asked(
    pipeline: str | Pipeline = "answer",
    turns: Any = TURNS,
    *,
    context: int | None = None,
    query: str | None = QUESTION,
    **options: Any,
) -> tuple[ScriptedBackend, RunResult, list[Event]]:
    events: list[Event] = []
    backend = ScriptedBackend(reply, context=context)
    settings = Settings(backend="scripted", retries=0)
    async with Session(settings, backend=backend, on_event=events.append) as session:
        result = await session.run(query, pipeline=pipeline, conversation=turns, **options)
    return backend, result, events


def inline(text: str) -> Pipeline:
    return Pipeline.parse(f"version: 1\nname: own\n{text}")


def hearing(backend: ScriptedBackend) -> set[str]:
    """Return the steps whose prompts have the turns in them, each once; numbers of rounds and items left out."""
    found = set()
    for request in backend.requests:
        times = request.messages[-1].content.count(EARLIER)
        assert times <= 1, f"{request.tag} gets the conversation twice"
        if times:
            found.add(re.sub(r"\[\d+\]", "", request.tag))
    return found


@pytest.mark.parametrize("pipeline", sorted(builtin_pipelines()))
async def test_every_call_of_a_built_in_pipeline_that_asks_the_question_gets_the_turns(pipeline: str):
    documents = [{"name": "long.txt", "text": "Iron is a metal.\n\n" * 900}] if pipeline == "map_reduce" else []

    backend, result, events = await asked(pipeline, documents=documents)

    assert result.error is None
    assert hearing(backend) == set(HEARS[pipeline].split())
    assert not [event for event in events if isinstance(event, ConversationShortened)]


OWN = """
inputs: {query: {required: true}, tone: {}}
steps:
  plan: {agent: planner, prompt: "{{ inputs.query }}"}
  look: {agent: researcher, foreach: steps.plan.questions, prompt: "{{ item }}"}
  words: {agent: editor, foreach: "[inputs.query | upper]", as: word, prompt: "{{ word }}"}
  placed: {agent: editor, prompt: "{{ inputs.query }} after {{ run.conversation }}"}
  which: {choose: {prompt: "{{ inputs.query }}", options: {a: "", b: ""}}}
  all: {agent: editor, prompt: "{{ inputs }}"}
  tone: {agent: editor, prompt: "Say it {{ inputs.tone or 'well' }}: {{ steps.placed }}"}
result: "{{ steps.tone }}{{ steps.all }}{{ steps.which }}{{ steps.words }}{{ steps.look }}"
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {"plan", "words", "placed", "which", "all"}),
        ("conversation: true\n", {"plan", "words", "placed", "which", "all"}),
        ("conversation: false\n", {"placed"}),
    ],
)
async def test_a_pipeline_of_ones_own_gets_the_turns_without_asking_for_them(line: str, expected: set[str]):
    backend, _, _ = await asked(inline(line + OWN))

    assert hearing(backend) == expected


@pytest.mark.parametrize(("line", "expected"), [("", {"go.answer"}), ("conversation: false\n", set())])
async def test_a_used_pipeline_hears_what_the_one_around_it_lets_through(line: str, expected: set[str]):
    text = (
        'inputs: {query: {}}\nsteps: {go: {use: answer, with: {query: "{{ inputs.query }}"}}}\nresult: "{{ steps.go }}"'
    )

    backend, _, _ = await asked(inline(line + text))

    assert hearing(backend) == expected


async def test_without_a_question_nothing_is_added():
    document = {"name": "a.txt", "text": "Iron is a metal."}

    backend, _, _ = await asked("map_reduce", query=None, documents=[document])

    assert hearing(backend) == set()


def talk(turns: int, words: int = 60) -> list[Message]:
    """Return a long conversation; each answer names its number."""
    return [
        message
        for number in range(1, turns + 1)
        for message in (
            Message("user", f"Question {number}?"),
            Message("assistant", f"Answer {number}: " + "some more words " * (words // 3)),
        )
    ]


@pytest.mark.parametrize(
    ("context", "query", "kept"),
    [
        (None, QUESTION, range(10, 60)),
        (2000, QUESTION, range(3, 12)),
        (800, QUESTION, range(1, 4)),
        (800, "iron " * 560, range(1, 3)),
        (800, "iron " * 300, range(1)),
    ],
)
async def test_the_older_turns_go_where_the_context_is_small(context: int | None, query: str, kept: range):
    turns = talk(60)

    backend, result, events = await asked("answer", turns, context=context, query=query)

    assert result.status == "succeeded", result.error
    (shortened,) = [event for event in events if isinstance(event, ConversationShortened)]
    assert shortened.turns == 60
    assert shortened.kept in kept
    prompt = backend.requests[-1].messages[-1].content
    assert ("Question 60?" in prompt) == (shortened.kept > 0)
    assert f"Question {60 - shortened.kept}?" not in prompt
    assert (f"the first {60 - shortened.kept} turns are left out" in prompt) == (shortened.kept > 0)


async def test_nothing_is_said_of_turns_that_no_prompt_gets():
    text = "conversation: false\nsteps: {one: {agent: editor, prompt: hello}}\nresult: '{{ steps.one }}'"

    _, _, events = await asked(inline(text), talk(60), query=None)

    assert not [event for event in events if isinstance(event, ConversationShortened)]


@pytest.mark.parametrize("words", [200, 300, 340, 360, 380, 500])
async def test_a_plan_reads_no_question_in_parts_because_of_the_turns(words: int):
    """The longer the question, the fewer turns; only a question that is too long by itself is divided."""
    async with Session(Settings(backend="scripted"), backend=ScriptedBackend(context=1200)) as session:
        alone = await session.plan("iron " * words, pipeline="answer")
        beside = await session.plan("iron " * words, pipeline="answer", conversation=talk(20, 30))

    assert [long.name for long in beside.long_inputs] == [long.name for long in alone.long_inputs]


async def test_a_long_text_is_read_with_the_turns_that_its_question_goes_on_from():
    document = {"name": "bridges.txt", "text": "\n\n".join(f"Bridge {n} is long and old." * 4 for n in range(400))}

    backend, result, _ = await asked("answer", context=1500, documents=[document])

    assert result.error is None
    assert {"inputs.query", "answer"} <= hearing(backend)


def test_a_conversation_that_fits_is_whole():
    found = earlier_turns(TURNS)

    assert found == EarlierTurns(EARLIER, turns=1, kept=1, cut=0)
    assert found.shortened is None
    assert earlier_turns([]).text == ""


@pytest.mark.parametrize("most", [0, LEAST_TOKENS - 1, LEAST_TOKENS, 150, 300, 700, 2000])
def test_the_text_never_takes_more_than_its_room(most: int):
    found = earlier_turns(talk(30, words=300), most)

    assert estimated_tokens(found.text) <= most
    assert found.shortened
    assert (found.kept > 0) == (most > LEAST_TOKENS)
    assert not re.search(r"\bwor …", found.text), "words are not cut"


def test_the_latest_answer_keeps_most_of_its_text():
    found = earlier_turns(talk(5, words=900), 600)

    lengths = [len(line) for line in found.text.splitlines() if line.startswith("You:")]
    assert lengths == sorted(lengths)
    assert lengths[-1] > 500
    assert found.cut == found.kept
