"""Input longer than the context: read in parts before the first step, by every pipeline; or refused before any call."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synaptic import (
    ContextOverflow,
    Event,
    Failure,
    FirstTokenTimeout,
    InputDivided,
    Pipeline,
    Plan,
    PromptShortened,
    RunResult,
    ScriptedBackend,
    Session,
    Settings,
    StepStarted,
)
from synaptic.backends.scripted import default_answer
from synaptic.errors import UsageError
from synaptic.messages import ChatRequest
from synaptic.pipeline import LongInput
from synaptic.pipeline.loader import builtin_pipelines
from synaptic.pipeline.templates.chunks import split_text
from synaptic.runtime.given import read_documents
from synaptic.runtime.long_input.division import Division, shares, wanted_parts
from synaptic.runtime.long_input.reading import grouped
from synaptic.runtime.long_input.text_parts import TextPart, joined, parts_of, split_question
from synaptic.runtime.policies.prompt_size import TokenCounter, divide

PARAGRAPHS = [f"Bridge {n} was built in {1800 + n}. " + "It is long and wide and old. " * 6 for n in range(400)]
TEXT = "\n\n".join(PARAGRAPHS)
"""About 20,000 words, which are the tokens of the scripted backend."""
CONTEXT = 1500
DOCUMENT = {"name": "bridges.txt", "text": TEXT}


def reply(request: ChatRequest) -> str:
    """Answer as a model does that keeps to its limit."""
    if request.schema:
        return default_answer(request)
    return " ".join(f"word{number}" for number in range(min(request.max_tokens or 100, 120)))


class Asked:
    """A question with everything that came of it."""

    def __init__(self, script: Any = reply, context: int | None = CONTEXT, **settings: Any) -> None:
        self.backend = ScriptedBackend(script, context=context)
        self.settings = Settings(retries=0, **settings)
        self.events: list[Event] = []

    async def __call__(self, query: str | None, pipeline: str | Pipeline = "answer", **options: Any) -> RunResult:
        async with Session(self.settings, backend=self.backend) as session:
            return await session.run(query, pipeline=pipeline, on_event=self.events.append, **options)

    async def plan(self, query: str | None, pipeline: str | Pipeline = "answer", **options: Any) -> Plan:
        async with Session(self.settings, backend=self.backend) as session:
            return await session.plan(query, pipeline=pipeline, **options)

    @property
    def divided(self) -> list[InputDivided]:
        return [event for event in self.events if isinstance(event, InputDivided)]

    def prompts(self, beginning: str) -> list[str]:
        found = [request for request in self.backend.requests if request.tag.startswith(beginning)]
        return [request.messages[-1].content for request in found]


def pipeline(steps: str, inputs: str = "{query: {required: true}}", head: str = "") -> Pipeline:
    text = f"version: 1\nname: demo\n{head}\ninputs: {inputs}\nsteps:\n{steps}\nresult: '{{{{ steps.end }}}}'\n"
    return Pipeline.parse(text)


# -- every built-in pipeline ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [600, CONTEXT, 4096])
@pytest.mark.parametrize("name", sorted(builtin_pipelines()))
async def test_every_pipeline_takes_a_file_that_is_longer_than_the_context(name: str, context: int):
    asked = Asked(context=context)
    result = await asked("What is said of the bridges?", name, documents=[DOCUMENT])

    assert result.status == "succeeded", result.error  # the backend refuses every prompt that does not fit
    assert result.answer
    assert len(asked.divided) == (0 if name == "map_reduce" else 1)  # which divides files itself


@pytest.mark.parametrize("name", sorted(set(builtin_pipelines()) - {"map_reduce"}))
async def test_every_pipeline_takes_a_question_that_is_longer_than_the_context(name: str):
    asked = Asked()
    result = await asked(f"What is said of the bridges?\n\n{TEXT}", name)

    assert result.status == "succeeded", result.error
    assert [event.input.name for event in asked.divided] == ["query"]


async def test_the_whole_text_is_read_once_all_parts_at_once_and_the_answer_is_from_notes():
    asked = Asked()
    await asked("What is said of the bridges?", documents=[DOCUMENT])

    read = asked.prompts("inputs.query[")
    (event,) = asked.divided
    assert event.input.parts == len(read) > 10
    assert all(sum(f"Bridge {n} " in prompt for prompt in read) == 1 for n in range(400))
    assert all("The text is read for this: What is said of the bridges?" in prompt for prompt in read)
    started = [event.path for event in asked.events if isinstance(event, StepStarted)]
    assert started[: len(read) + 2] == ["inputs", "inputs.query", *(f"inputs.query[{n}]" for n in range(len(read)))]
    (prompt,) = asked.prompts("answer")
    assert prompt.startswith("What is said of the bridges?\n\nThe text is long. These are notes of its ")
    assert "[bridges.txt, part 1, lines 1-" in prompt or "[bridges.txt, parts 1-" in prompt
    assert "Bridge 0 " not in prompt


async def test_a_text_that_fits_is_sent_whole():
    asked = Asked(context=40_000)
    await asked("What is said of the bridges?", documents=[DOCUMENT])

    assert asked.divided == []
    assert [request.tag for request in asked.backend.requests] == ["answer"]
    assert TEXT.strip() in asked.prompts("answer")[0]


async def test_without_a_known_context_nothing_is_divided():
    asked = Asked(context=None)
    await asked(TEXT)

    assert [request.tag for request in asked.backend.requests] == ["answer"]


async def test_what_steps_write_gets_its_share_of_the_context():
    """A text may be half of a prompt whose other half is not known yet."""
    text = " ".join(f"w{n}" for n in range(800))
    steps = (
        "  first: {agent: editor, max_tokens: 100, prompt: 'Write.'}\n  end: {agent: editor, max_tokens: 100, prompt: "
    )
    alone, beside = Asked(context=1200), Asked(context=1200)
    await alone(text, pipeline(steps + "'{{ inputs.query }}', needs: [first]}"))
    await beside(text, pipeline(steps + "'{{ inputs.query }} {{ steps.first }}'}"))

    assert (len(alone.divided), len(beside.divided)) == (0, 1)


async def test_a_part_that_cannot_be_read_is_left_out_and_shown():
    asked = Asked(lambda request: Failure("rejected") if request.tag == "inputs.query[0]" else reply(request))
    result = await asked("What?", documents=[DOCUMENT])

    assert result.status == "succeeded"
    assert "skipped" in [step.status for step in result.steps if step.id == "inputs.query[0]"]
    assert {step.id: step.stop_reason for step in result.steps}["inputs"] == "1 of 31 parts of query could not be read"
    assert asked.prompts("answer")[0].startswith("What?\n\nThe text is long. These are notes of some of its parts;")


@pytest.mark.parametrize(
    ("chosen", "part"), [("answer", "inputs.query[0]"), ("map_reduce", "map[0]"), ("fact_check", "check[0]")]
)
async def test_a_part_whose_first_token_is_late_is_asked_for_again(chosen: str, part: str):
    late = [FirstTokenTimeout("no token came within 300 s", backend="scripted")]
    asked = Asked(lambda request: late.pop() if request.tag == part and late else reply(request))
    asked.settings = Settings(retries=1)
    result = await asked("What?", chosen, documents=[DOCUMENT])

    (read,) = [step for step in result.steps if step.id == part]
    assert (read.status, read.attempts) == ("succeeded", 2)


async def test_a_text_of_which_nothing_could_be_read_fails_the_run():
    asked = Asked(lambda request: Failure("rejected") if request.tag.startswith("inputs") else reply(request))
    result = await asked("What?", documents=[DOCUMENT])

    assert result.status == "failed"
    assert {step.id: step.status for step in result.steps}["inputs"] == "failed"
    assert asked.prompts("answer") == []


async def test_reading_counts_in_the_budget_of_the_run():
    head = "budget: {calls: 3}"
    asked = Asked()
    result = await asked(TEXT, pipeline("  end: {agent: editor, prompt: '{{ inputs.query }}'}", head=head))

    assert result.stop_reason == "budget: calls"
    assert len(asked.backend.requests) == 3


async def test_several_inputs_share_the_room_and_short_ones_stay_whole():
    inputs = "{query: {required: true}, first: {type: file, required: true}, second: {type: files, required: true}}"
    prompt = "'{{ inputs.query }} {{ inputs.first.text }} {% for f in inputs.second %}{{ f.text }}{% endfor %}'"
    asked = Asked()
    documents = {"first": DOCUMENT, "second": [{"name": "a", "text": "Short."}, {"name": "b", "text": TEXT[:40_000]}]}
    result = await asked("What?", pipeline(f"  end: {{agent: editor, prompt: {prompt}}}", inputs), inputs=documents)

    assert result.status == "succeeded", result.error
    assert {event.input.name for event in asked.divided} == {"first", "second"}
    assert asked.prompts("end")[0].startswith("What? The text is long.")


async def test_the_inputs_of_a_used_pipeline_are_known_too():
    asked = Asked()
    result = await asked(TEXT, pipeline("  end: {use: answer, with: {query: '{{ inputs.query }}'}}"))

    assert result.status == "succeeded"
    assert [event.input.name for event in asked.divided] == ["query"]


async def test_what_steps_write_is_summarised_where_it_does_not_fit():
    steps = (
        "  first: {agent: editor, max_tokens: 900, prompt: 'Write.'}\n"
        "  end: {agent: editor, prompt: '{{ steps.first }}'}"
    )

    def long_first(request: ChatRequest) -> str:
        return TEXT[:9000] if request.tag == "first" else reply(request)

    asked = Asked(long_first)
    result = await asked("Go.", pipeline(steps))

    assert result.status == "succeeded", result.error
    assert [event.path for event in asked.events if isinstance(event, PromptShortened)] == ["end"]


# -- the plan --------------------------------------------------------------------------------------------------------


async def test_the_plan_shows_what_is_read_first():
    asked = Asked()
    plan = await asked.plan("What?", "research", documents=[DOCUMENT])

    rows = {row.path: row for row in plan.rows()}
    (long,) = plan.long_inputs
    assert rows["inputs.query"].times == f"×{long.parts}"
    assert (rows["inputs"].stage, rows["inputs.query"].stage, rows["plan"].stage) == (0, 0, 1)
    assert not long.exact  # a plan does not start a backend to have it count
    assert plan.to_dict()["long_inputs"][0]["name"] == "query"
    assert asked.backend.requests == []


async def test_a_short_plan_is_as_it_was():
    plan = await Asked().plan("What?", "research")

    assert plan.long_inputs == ()
    assert plan.rows()[0].path == "plan"


# -- refused before the first call -------------------------------------------------------------------------------------

LONG_LAST = (
    "  first: {agent: editor, prompt: 'Write.'}\n"
    "  end: {agent: editor, OVERFLOWprompt: '{{ steps.first }} {{ inputs.query }}'}"
)
REFUSED = [
    ("the setting", {"overflow": "error"}, "answer", "have it summarised with --set overflow=summarise"),
    ("a later step", {"overflow": "error"}, LONG_LAST, "have it summarised with --set overflow=summarise"),
    ("the step", {}, LONG_LAST.replace("OVERFLOW", "overflow: error, "), "overflow: summarise in the step"),
]


@pytest.mark.parametrize("does", ["run", "plan"])
@pytest.mark.parametrize(("who", "settings", "steps", "hint"), REFUSED, ids=[row[0] for row in REFUSED])
async def test_a_prompt_that_must_not_be_shortened_is_refused_before_the_first_call(
    who: str, settings: dict[str, Any], steps: str, hint: str, does: str
):
    asked = Asked(**settings)
    chosen = steps if steps == "answer" else pipeline(steps.replace("OVERFLOW", ""))
    with pytest.raises(ContextOverflow, match=r"^the prompt of (answer|end) is ") as caught:
        await (asked(TEXT, chosen) if does == "run" else asked.plan(TEXT, chosen))

    assert asked.backend.requests == []
    assert hint in str(caught.value.hint)
    assert ("in the step" in str(caught.value.hint)) == (who == "the step")


@pytest.mark.parametrize("overflow", ["error", "truncate_oldest", "summarise"])
async def test_a_steps_own_words_that_do_not_fit_are_refused_before_the_first_call(overflow: str):
    words = "w " * 3000
    steps = f"  first: {{agent: editor, prompt: 'Write.'}}\n  end: {{agent: editor, needs: [first], prompt: '{words}'}}"
    asked = Asked(overflow=overflow)
    with pytest.raises(ContextOverflow, match="the prompt of end is"):
        await asked("Go.", pipeline(steps))

    assert asked.backend.requests == []


async def test_a_step_that_does_not_run_is_not_looked_at():
    steps = "  long: {agent: editor, when: inputs.query == 'no', prompt: '" + "w " * 3000 + "'}\n"
    result = await Asked(overflow="error")("Go.", pipeline(steps + "  end: {agent: editor, prompt: 'Write.'}"))

    assert result.status == "succeeded"


async def test_the_setting_holds_where_the_step_says_nothing():
    asked = Asked(overflow="truncate_oldest")
    result = await asked(TEXT)

    assert result.status == "succeeded"
    assert [event.how for event in asked.events if isinstance(event, PromptShortened)] == ["truncate_oldest"]
    assert asked.divided == []


async def test_the_setting_max_tokens_holds_where_nothing_else_does():
    steps = (
        "  own: {agent: editor, max_tokens: 7, prompt: 'Write.'}\n  end: {agent: plain, prompt: 'Write.', needs: [own]}"
    )
    asked = Asked(max_tokens=33)
    await asked("Go.", pipeline(steps, head="agents: {plain: {prompt: Write.}}"))

    assert [request.max_tokens for request in asked.backend.requests] == [7, 33]


# -- the pieces -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("What?\n\nA text.\n\nMore.", "What?"),
        ("# A title\n\nA text.\n\nWhat is it?", "What is it?"),
        ("# A title\n\n" + "w " * 400, ""),
        ("w " * 400 + "\n\n" + "x " * 400, ""),
        ("one line", ""),
    ],
)
def test_what_is_asked_stands_before_the_text_or_behind_it(text: str, question: str):
    asked, rest = split_question(text)

    assert asked == question
    assert sorted(f"{asked} {rest}".split()) == sorted(text.split())


@given(st.text(alphabet="ab .\n", min_size=1, max_size=400), st.integers(5, 80), st.integers(0, 3))
def test_the_lines_of_a_part_are_those_that_it_comes_from(text: str, characters: int, before: int):
    lines = text.split("\n")
    for number, part in enumerate(parts_of("", text, list(split_text(text, characters)), before), before + 1):
        assert (part.first, part.last) == (number, number)
        if part.start:
            assert part.text in "\n".join(lines[part.start - 1 : part.end])
            assert part.text.count("\n") == part.end - part.start


def test_labels_say_document_parts_and_lines():
    one = TextPart("a.txt", 1, 1, 1, 9, "x")
    two = TextPart("a.txt", 2, 2, 10, 10, "y")
    other = TextPart("b.txt", 3, 3, 1, 4, "z")

    assert (one.label, two.label) == ("a.txt, part 1, lines 1-9", "a.txt, part 2, line 10")
    assert joined([one, two]).label == "a.txt, parts 1-2, lines 1-10"
    assert joined([two, other]).label == "parts 2-3"
    assert replace(one, name="", start=0).label == "part 1"
    assert joined([one, two]).text == "[a.txt, part 1, lines 1-9] x\n\n[a.txt, part 2, line 10] y"


@pytest.mark.parametrize(
    ("tokens", "room", "places", "parts"),
    [
        (50_000, 4000, 1, 13),
        (50_000, 4000, 4, 16),  # whole waves
        (5000, 4000, 4, 4),  # every node has one
        (5000, 4000, 64, 9),  # but no small ones
        (600, 200, 4, 3),
        (10, 200, 4, 1),
    ],
)
def test_how_many_parts_there_are(tokens: int, room: int, places: int, parts: int):
    assert wanted_parts(tokens, room, places) == parts


@given(st.dictionaries(st.sampled_from("abcde"), st.integers(1, 5000)), st.integers(-100, 9000))
def test_shares_never_exceed_the_room(held: dict[str, int], room: int):
    found = shares(held, room)

    assert sum(found.get(name, size) for name, size in held.items()) <= max(0, room)
    assert all(found[name] < held[name] for name in found)
    assert bool(found) == (sum(held.values()) > max(0, room))


@given(st.integers(2, 300), st.integers(64, 2000), st.integers(64, 4000))
def test_notes_become_fewer_until_they_fit(count: int, room: int, room_for_part: int):
    division = Division(
        _long(count), "", tuple(TextPart("", n, n, 0, 0, "x") for n in range(1, count + 1)), room, room_for_part
    )
    notes = list(division.parts)
    while len(groups := grouped(notes, division)) < len(notes):
        assert [part.first for part in groups] == sorted(part.first for part in groups)
        assert (groups[0].first, groups[-1].last) == (1, count)
        notes = groups
    assert len(notes) == 1 or len(notes) * (division.note + 24) <= room


def _long(parts: int) -> LongInput:
    return LongInput(name="query", tokens=9000, exact=True, context=4096, parts=parts, longer="")


@given(st.text(alphabet="ab .\n", max_size=600), st.integers(1, 60), st.integers(1, 9))
async def test_a_divided_text_has_all_its_words_and_every_part_fits(text: str, room: int, parts: int):
    counter = TokenCounter(ScriptedBackend(context=100).capabilities)
    pieces = await divide(text, room, counter, parts=parts)

    assert "".join("".join(pieces).split()) == "".join(text.split())
    for piece in pieces:
        assert await counter.count(piece) <= room


# -- the pipeline that nobody named ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("embedded_model", "chosen"), [(None, "answer"), ("own.gguf", "research")])
async def test_the_small_embedded_model_answers_with_one_call(
    embedded_model: str | None, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("own.gguf").write_bytes(b"GGUF and nothing that can be read")
    async with Session(Settings(backend="embedded", embedded_model=embedded_model)) as session:
        plan = await session.plan("Why?")

    assert plan.pipeline.name == chosen


async def test_every_other_model_answers_with_research_and_a_setting_goes_before():
    assert (await Asked().plan("Why?", None)).pipeline.name == "research"
    assert (await Asked(pipeline="vote").plan("Why?", None)).pipeline.name == "vote"


@pytest.mark.parametrize("alone", ["notes.txt", {"text": "The pump is loud."}])
def test_one_document_alone_is_no_list_of_its_letters(alone: Any):
    with pytest.raises(UsageError, match="documents is a list of texts, not one alone"):
        read_documents(alone)
