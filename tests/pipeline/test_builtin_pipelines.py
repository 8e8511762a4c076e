"""The built-in pipelines: what each of them does, with scripted answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shape_sizes import longest_decoded

from synaptic import Failure, Pipeline, ScriptedBackend, Session, Settings, StepFinished, StepStarted
from synaptic.agents.shape import Shape
from synaptic.backends.scripted import default_answer
from synaptic.messages import ChatRequest
from synaptic.pipeline.loader import builtin_pipelines
from synaptic.runtime.events import Event, RunResult

NAMES = sorted(builtin_pipelines())
SPECS = {name: Pipeline.builtin(name).spec for name in NAMES}
QUESTION = "Why is rust red?"

CALLS = {
    "answer": 1,
    "parallel": 4,
    "research": 1 + 2 + 1 + 2 + 1,
    "longform": 1 + 1 + 3 + 1 + 3,
    "story": 1 + 2 * 2,
    "debate": 2 * 3 + 1,
    "vote": 2 * (3 + 3 + 3),
    "mixture": 2 * 3 + 1,
    "fact_check": 1 + 1 + 1 + 1,
    "map_reduce": 1 + 1,
}
"""Requests with default inputs, if every list is as short as it may be and no score is ever good enough."""


async def run(
    pipeline: str, script: Any = None, query: str | None = QUESTION, **inputs: Any
) -> tuple[RunResult, ScriptedBackend, list[Event]]:
    backend = ScriptedBackend(script)
    events: list[Event] = []
    async with Session(Settings(retries=0), backend=backend) as session:
        result = await session.run(query, pipeline=pipeline, inputs=inputs, on_event=events.append)
    return result, backend, events


def prompts(backend: ScriptedBackend, tag: str) -> list[str]:
    """Return the user's messages that were sent for a step, by its path or its beginning with a ``*``."""
    wanted = (lambda path: path.startswith(tag[:-1])) if tag.endswith("*") else (lambda path: path == tag)
    return [request.messages[-1].content for request in backend.requests if wanted(request.tag)]


def scored(scores: dict[str, float]) -> Callable[[ChatRequest], Any]:
    """Return a script that rates by the text that is rated; what is not rated says which step it is."""

    def answer(request: ChatRequest) -> Any:
        fields = request.schema["properties"] if request.schema else {}
        if "score" not in fields:
            return default_answer(request) if request.schema else request.tag
        text = request.messages[-1].content
        rating = next(score for key, score in scores.items() if key in text)
        return {**json.loads(default_answer(request)), "score": rating}

    return answer


@pytest.fixture
def documents(tmp_path: Path) -> list[str]:
    paths = [tmp_path / "one.txt", tmp_path / "two.txt"]
    for path in paths:
        path.write_text("\n\n".join(f"Paragraph {number} of {path.stem}. " + "Word " * 40 for number in range(10)))
    return [str(path) for path in paths]


# -- all of them ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
async def test_each_runs_with_its_defaults(name: str, tmp_path: Path):
    file = tmp_path / "short.txt"
    file.write_text("One paragraph.")
    result, backend, _ = await run(name, **({"files": [str(file)]} if name == "map_reduce" else {}))

    assert result.status == "succeeded", result.error
    assert result.answer
    assert len(backend.requests) == CALLS[name]
    assert not [step for step in result.steps if step.status == "failed"]


@pytest.mark.parametrize("name", NAMES)
def test_each_describes_itself_its_inputs_and_its_agents(name: str):
    spec = SPECS[name]

    assert spec.name == name
    assert spec.description
    assert all(given.description for given in spec.inputs.values())
    assert all(agent.description for agent in spec.agents.values())


@pytest.mark.parametrize(("name", "agent"), [(name, agent) for name in NAMES for agent in SPECS[name].agents])
def test_own_agents_are_bounded_and_told_of_their_fields(name: str, agent: str):
    spec = SPECS[name].agents[agent]
    assert spec.max_tokens is not None
    if spec.output is not None:
        shape = Shape.parse(spec.output)
        # A model may spend a token on every character; the space between JSON's tokens comes on top.
        assert longest_decoded(shape.root) * 1.15 <= spec.max_tokens
        assert all(f'"{field}"' in spec.prompt for field in shape.field_names())


# -- one by one ----------------------------------------------------------------------------------------------------


async def test_parallel_answers_without_a_part_that_failed():
    result, backend, _ = await run("parallel", {"research": Failure("rejected"), "merge": "Done."})

    assert (result.status, result.answer) == ("succeeded", "Done.")
    (merge,) = prompts(backend, "merge")
    assert "Facts:" not in merge
    assert "Be careful about:" in merge


async def test_research_begins_with_the_first_question_while_the_plan_is_being_written():
    plan = {"questions": ["What is rust?", "Why is it red?", "Where does it come from?"]}
    backend = ScriptedBackend({"plan": plan}, token_delay=0.002)
    events: list[Event] = []
    async with Session(Settings(), backend=backend) as session:
        await session.run(QUESTION, pipeline="research", on_event=events.append)

    order = [
        ("start", event.path) if isinstance(event, StepStarted) else ("end", event.result.id)
        for event in events
        if isinstance(event, (StepStarted, StepFinished))
    ]
    assert order.index(("start", "research[0]")) < order.index(("end", "plan"))
    assert order.count(("start", "research[2]")) == 1


async def test_longform_shares_the_glossary_and_joins_the_sections():
    script = {
        "outline": {"title": "All of it", "sections": ["Part A of it", "Part B of it", "Part C of it"]},
        "glossary": {"terms": ["keel: the lowest beam of a ship", "mast: it holds the sails"]},
        "stitch": {"opening": "Opening " * 6, "bridges": ["Now comes the second part."], "closing": "Closing " * 6},
        "polish[0]": "First polished.",
        "polish[1]": "Second polished.",
    }
    result, backend, _ = await run("longform", script, sections=2)

    written = prompts(backend, "write*")
    assert len(written) == 2
    assert all(
        "What the words mean: keel: the lowest beam of a ship; mast: it holds the sails." in prompt
        for prompt in written
    )
    headings = [
        "# All of it",
        "Opening",
        "## Part A of it",
        "First polished.",
        "## Part B of it",
        "Now comes the second part.",
    ]
    places = [result.answer.index(part) for part in [*headings, "Second polished.", "Closing"]]
    assert places == sorted(places)
    assert "Part C" not in result.answer


async def test_longform_keeps_what_was_written_where_polishing_and_stitching_fail():
    script = {
        "write*": "As it was written.",
        "polish[1]": Failure("rejected"),
        "stitch": Failure("rejected"),
        "glossary": Failure("rejected"),
    }
    result, backend, _ = await run("longform", script)

    assert result.status == "succeeded", result.error
    assert result.answer.count("As it was written.") == 3
    assert "What the words mean" not in prompts(backend, "write[0]")[0]


async def test_story_keeps_the_best_draft():
    result, _, _ = await run("story", scored({"tell[1]": 0.4, "tell[2]": 0.8, "tell[3]": 0.6}), rounds=3)

    assert result.answer.endswith("tell[2].draft")


async def test_story_ends_when_the_critic_likes_it():
    result, _, _ = await run("story", scored({"tell[1]": 0.95}), rounds=5)

    (tell,) = [step for step in result.steps if step.id == "tell"]
    assert (tell.output["rounds"], tell.stop_reason) == (1, "until")


async def test_debate_lets_both_sides_answer_each_other_and_carries_the_points_on():
    def script(request: ChatRequest) -> Any:
        round_, _, role = request.tag.partition(".")
        if role in ("first", "second"):
            return f"{role} in {round_}"
        if role == "minutes":
            return f"points in {round_}"
        return {"reason": "It had the better examples, and more of them.", "winner": "second"}

    result, backend, _ = await run("debate", script, "Tea or coffee?", first="tea", second="coffee", rounds=3)

    assert len(backend.requests) == 3 * 3 + 1
    (opening,) = prompts(backend, "rounds[1].first")
    (answer,) = prompts(backend, "rounds[2].first")
    assert opening == "Question: Tea or coffee?\nYour side says: tea. Speak for it."
    assert answer.startswith("The other side said: second in rounds[1]\n")
    assert "Earlier points:\npoints in rounds[2]\n" in prompts(backend, "rounds[3].minutes")[0]
    expected = "points in rounds[3]\n\nVerdict: coffee.\nIt had the better examples, and more of them."
    assert result.answer == expected


async def test_vote_takes_the_best_sample_and_the_best_round():
    def script(request: ChatRequest) -> Any:
        if not request.schema:
            return request.tag
        text = request.messages[-1].content
        if ".judge[" in request.tag:
            return {"reason": "because of what it says", "score": 0.9 if "answer[1]" in text else 0.1}
        return {"reason": "a juror's opinion of it", "score": 0.7 if request.tag.startswith("vote[2]") else 0.5}

    result, backend, _ = await run("vote", script, rounds=3)

    assert result.answer == "vote[2].answer[1]"
    assert len(backend.requests) == 3 * 9
    assert "a juror's opinion of it" in prompts(backend, "vote[2].answer[0]")[0]


async def test_vote_ends_at_the_threshold_that_the_whole_jury_reaches_together():
    def script(request: ChatRequest) -> Any:
        if ".ballots[" in request.tag:
            return {"reason": "rather good, I think", "score": 0.6 if request.tag.endswith("[0]") else 0.9}
        return default_answer(request)

    result, backend, _ = await run("vote", script, threshold=0.8)
    (vote,) = [step for step in result.steps if step.id == "vote"]
    assert vote.stop_reason == "until"
    assert len(backend.requests) == 9

    result, backend, _ = await run("vote", script, threshold=0.81)
    assert len(backend.requests) == 18


async def test_vote_has_a_jury_of_ones_own():
    _, backend, _ = await run("vote", None, jury=["Is it short?"], rounds=1)

    (ballot,) = prompts(backend, "vote[1].ballots[0]")
    assert "Is it short? Rate the answer by this alone." in ballot


async def test_mixture_shows_each_layer_the_one_before():
    result, backend, _ = await run(
        "mixture", lambda request: f"said by {request.tag}", layers=3, proposers=["a cook", "a farmer"]
    )

    assert len(backend.requests) == 3 * 2 + 1
    assert "Earlier answers" not in prompts(backend, "layers[1].propose[0]")[0]
    (later,) = prompts(backend, "layers[3].propose[1]")
    assert "You are a farmer." in later
    assert "said by layers[2].propose[0]" in later
    assert "layers[1]" not in later
    (aggregate,) = prompts(backend, "aggregate")
    assert [f"layers[3].propose[{index}]" in aggregate for index in (0, 1)] == [True, True]
    assert "layers[2]" not in aggregate
    assert result.answer == "said by aggregate"


async def test_mixture_does_without_a_proposer_that_failed():
    result, backend, _ = await run("mixture", {"layers*[1]": Failure("rejected")}, layers=1)

    assert result.status == "succeeded", result.error
    assert "a teacher" not in prompts(backend, "aggregate")[0]


CLAIMS = {"claims": ["Rust is iron oxide.", "Rust is a metal.", "Rust comes from Mars."]}


def finding(claim: str, verdict: str) -> dict[str, str]:
    return {"claim": claim, "why": "That is what the books say.", "verdict": verdict}


async def test_fact_check_reports_every_claim_and_leaves_out_a_check_that_failed():
    script = {
        "extract": CLAIMS,
        "check[0]": finding("Rust is iron oxide.", "supported"),
        "check[1]": Failure("rejected"),
        "check[2]": finding("Rust comes from Mars.", "refuted"),
        "report": "Half of it.",
    }
    result, backend, _ = await run("fact_check", script, "Rust is iron oxide from Mars.")

    assert not prompts(backend, "answer")
    assert prompts(backend, "extract") == ["Text: Rust is iron oxide from Mars."]
    assert result.answer.splitlines() == [
        "- supported: Rust is iron oxide. (That is what the books say.)",
        "- refuted: Rust comes from Mars. (That is what the books say.)",
        "",
        "Half of it.",
    ]


async def test_fact_check_answers_a_question_first():
    result, backend, _ = await run("fact_check", {"answer": "Because it is iron oxide."}, "Why is rust red? ")

    assert prompts(backend, "extract") == ["Text: Because it is iron oxide."]
    assert result.answer.startswith("Because it is iron oxide.\n\n- ")


async def test_fact_check_looks_into_the_sources(documents: list[str]):
    _, backend, _ = await run("fact_check", {"extract": CLAIMS}, "Rust.", sources=documents)

    assert len(prompts(backend, "check*")) == 3
    assert all("Paragraph 9 of two." in prompt for prompt in prompts(backend, "check*"))


async def test_map_reduce_reads_everything_and_reduces_in_rounds(documents: list[str]):
    result, backend, _ = await run(
        "map_reduce", lambda request: f"from {request.tag}.", "Which word?", files=documents, characters=250
    )

    parts = prompts(backend, "map*")
    assert len(parts) == 20
    for name in ("one", "two"):
        assert all(any(f"Paragraph {number} of {name}." in part for part in parts) for number in range(10))
    assert [len(prompts(backend, f"reduce[{number}].merge*")) for number in (1, 2, 3)] == [5, 2, 0]
    (answer,) = prompts(backend, "answer")
    assert "- from reduce[2].merge[0].\n- from reduce[2].merge[1]." in answer
    assert answer.endswith("Answer from these notes: Which word?")
    assert result.answer == "from answer."


async def test_map_reduce_summarises_where_nothing_is_asked(documents: list[str]):
    _, backend, _ = await run("map_reduce", None, None, files=documents)

    assert all("question" not in prompt.lower() for prompt in prompts(backend, "map*"))
    assert prompts(backend, "answer")[0].endswith("Write one summary of these notes.")


async def test_map_reduce_leaves_out_a_part_that_cannot_be_read(documents: list[str]):
    script = {"map[1]": Failure("rejected"), "answer": "Done."}
    result, _, _ = await run("map_reduce", script, files=documents, characters=1500)

    assert (result.status, result.answer) == ("succeeded", "Done.")
    assert [step.id for step in result.steps if step.status == "skipped" and step.error] == ["map[1]"]


async def test_map_reduce_never_answers_from_nothing(documents: list[str]):
    result, backend, _ = await run("map_reduce", {"map*": Failure("rejected")}, files=documents)

    assert result.status == "failed"
    assert not prompts(backend, "answer")
