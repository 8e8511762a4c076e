"""Every example and every further built-in pipeline is run with the embedded model, as a reader would run it."""

import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from synaptic import Failure, Pipeline, RunResult, ScriptedBackend, Session, Settings, paths
from synaptic.agents import discover_agents
from synaptic.backends.embedded.backend import EmbeddedBackend
from synaptic.models.download import ModelStore
from synaptic.pipeline.compiler import CompileContext, compile_pipeline
from synaptic.pipeline.loader import builtin_pipelines
from synaptic.pipeline.tools import discover_tools
from synaptic.runtime.approval import Approval, ApprovalRequest, approve_all
from synaptic.runtime.cases import run_case

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
MODELS = paths.model_cache_dir()  # asked for before a test moves home


@dataclass(frozen=True)
class Case:
    """One run, with inputs that keep it short.

    Attributes:
        steps: The steps of the pipeline that must have succeeded, and no other one; those in ``maybe`` may have.

    """

    steps: str
    query: str | None = "the sea"
    inputs: Mapping[str, Any] = field(default_factory=dict)
    maybe: str = ""
    status: str = "succeeded"
    tools: tuple[str, ...] = ()


TOOLS = str(EXAMPLES / "tools.py")
TEXTS = [str(path) for path in sorted((EXAMPLES / "texts").glob("*.txt"))]

BUILT_IN = {
    "longform": Case("outline glossary write stitch polish", inputs={"sections": 2, "words": 30}),
    "story": Case("plot tell", inputs={"rounds": 1}),
    "debate": Case("rounds verdict", "Should cities ban cars?", {"rounds": 1}),
    "vote": Case("vote", "Why is the sea salty?", {"rounds": 1, "jury": ["Is it right?"]}),
    "mixture": Case("layers aggregate", "Why is the sea salty?", {"proposers": ["a sailor", "a cook"]}),
    "fact_check": Case("extract check report", "The sea is salty. It is on the moon."),
    "map_reduce": Case("map reduce answer", "When is high water?", {"files": TEXTS, "characters": 350}),
}
FILES = {
    "approve.yaml": Case("points letter", "our bakery is closed on Friday"),
    "budget.yaml": Case("", maybe="tell", status="stopped"),
    "cache.yaml": Case("rules example", "chess"),
    "choose.yaml": Case("route", maybe="look_up explain tell reply"),
    "fallback.yaml": Case("facts careful", "Why do leaves fall?"),
    "local_agents.yaml": Case("dish recipe", "dinner with potatoes"),
    "question.yaml": Case("confirm tips", None, {"city": "Paris"}),
    "race.yaml": Case("answer", "Why is the sea salty?", maybe="brief thorough"),
    "refine.yaml": Case("slogan", "a bakery"),
    "reuse.yaml": Case("words explain summary", "sailing"),
    "samples.yaml": Case("mood reply", "The soup was cold, but the waiter was very kind."),
    "story.yaml": Case("tell", inputs={"rounds": 1}),
    "summarise.yaml": Case("notes answer", "When can a boat with a keel enter?"),
    "tools.yaml": Case("write measure", "why the sea is salty", maybe="shorten", tools=(TOOLS,)),
    "parts/explain.yaml": Case("explain", None, {"word": "keel", "subject": "sailing"}),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedBackend]:
    """One embedded model for all of them, with a place of its own for its log: it outlives the homes of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("engine")))
        backend = EmbeddedBackend(Settings(embedded_threads=1), store=ModelStore(MODELS))
        await backend.start()
    yield backend
    await backend.aclose()


async def run(pipeline: Pipeline, case: Case, backend: EmbeddedBackend | ScriptedBackend) -> RunResult:
    tools = discover_tools(case.tools)
    async with Session(Settings(), backend=backend, approver=approve_all, tools=tools) as session:
        return await session.run(case.query, pipeline=pipeline, inputs=case.inputs)


def check(result: RunResult, case: Case) -> None:
    assert result.status == case.status, result.error
    assert result.answer.strip()
    outermost = {step.id for step in result.steps if not set(step.id) & set(".[") and step.status == "succeeded"}
    assert set(case.steps.split()) <= outermost <= set(f"{case.steps} {case.maybe}".split())


@pytest.mark.real_model
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "script", [path for path in sorted(EXAMPLES.glob("*.py")) if path.name != "pool.py"], ids=lambda path: path.name
)  # pool.py has nodes in test_pool_real.py
@pytest.mark.usefixtures("brief_writers")
def test_every_program_runs(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SYNAPTIC_EMBEDDED_THREADS", "1")
    done = subprocess.run([sys.executable, script], check=False, cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) >= 10


def test_no_pipeline_is_left_out():
    elsewhere = {"answer", "parallel", "research"}  # test_end_to_end.py
    assert set(BUILT_IN) | elsewhere == set(builtin_pipelines())
    assert set(FILES) == {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.yaml")}


@pytest.mark.real_model
@pytest.mark.timeout(600)
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.usefixtures("brief_writers")
@pytest.mark.parametrize("name", [*BUILT_IN, *FILES])
async def test_every_pipeline_answers(name: str, engine: EmbeddedBackend):
    pipeline = Pipeline.builtin(name) if name in BUILT_IN else Pipeline.load(EXAMPLES / name)
    case = BUILT_IN.get(name) or FILES[name]

    check(await run(pipeline, case, engine), case)


@pytest.mark.parametrize("file", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda path: path.name)
def test_every_file_says_how_to_run_it_and_what_its_inputs_are(file: Path):
    first, second = file.read_text().splitlines()[:2]

    assert re.match(rf"# synaptic (--tools \S+ )?-p examples/{file.relative_to(EXAMPLES)}(?= )", first)
    assert second.startswith("#")
    assert all(given.description for given in Pipeline.load(file).spec.inputs.values())


# -- what the examples say of themselves, with scripted answers ----------------------------------------------------


TESTED = [(file.name, name) for file in sorted(EXAMPLES.glob("*.yaml")) for name in Pipeline.load(file).spec.tests]


@pytest.mark.parametrize(("file", "name"), TESTED)
async def test_every_test_of_an_example_passes(file: str, name: str):
    book = discover_agents()
    context = CompileContext(agents={agent: book[agent] for agent in book}, tools=discover_tools((TOOLS,)))

    outcome = await run_case(load(file), compile_pipeline(load(file), context), name)

    assert outcome.mismatches == ()


def test_some_examples_have_tests():
    assert {file for file, _ in TESTED} >= {"choose.yaml", "fallback.yaml", "question.yaml", "tools.yaml"}


def load(name: str) -> Pipeline:
    return Pipeline.load(EXAMPLES / name)


def ran(result: RunResult) -> set[str]:
    return {step.id for step in result.steps if step.status == "succeeded"}


@pytest.mark.parametrize(
    ("label", "branch"), [("fact", {"look_up", "explain"}), ("story", {"tell"}), ("talk", {"reply"})]
)
async def test_choose_runs_the_branch_that_was_chosen(label: str, branch: set[str]):
    result = await run(load("choose.yaml"), FILES["choose.yaml"], ScriptedBackend({"route": {"choice": label}}))

    assert ran(result) == {"route"} | branch
    skipped = {step.id: step.stop_reason for step in result.steps if step.status == "skipped"}
    assert skipped == dict.fromkeys({"look_up", "explain", "tell", "reply"} - branch, "not chosen")


async def test_race_takes_the_first_and_cancels_the_other():
    backend = ScriptedBackend({"brief": "The short one.", "thorough": Failure("stall", after_tokens=2)})
    result = await run(load("race.yaml"), FILES["race.yaml"], backend)

    assert ran(result) == {"brief", "answer"}
    assert "Draft:\nThe short one.\n" in result.answer
    assert backend.active == 0


async def test_refine_ends_on_a_plateau_with_the_best_slogan():
    slogans = tuple({"slogan": f"slogan {score}", "score": score} for score in (0.5, 0.7, 0.6, 0.7, 0.9))
    result = await run(load("refine.yaml"), FILES["refine.yaml"], ScriptedBackend({"slogan*": slogans}))

    assert result.answer == "slogan 0.7"
    (loop,) = [step for step in result.steps if step.id == "slogan"]
    assert loop.stop_reason == "plateau"
    assert len([step for step in result.steps if step.id.startswith("slogan[")]) == 4


async def test_budget_gives_the_best_draft_of_the_rounds_that_it_paid_for():
    def script(request: Any) -> Any:
        score = {"tell[1]": 0.3, "tell[2]": 0.8}.get(request.tag.partition(".")[0], 0.5)
        return {"reason": "a reason for it", "score": score} if request.schema else f"draft of {request.tag}"

    result = await run(load("budget.yaml"), FILES["budget.yaml"], ScriptedBackend(script))

    assert (result.status, result.stop_reason) == ("stopped", "budget: calls")
    assert result.answer == "draft of tell[2].draft"


async def test_approve_goes_on_with_what_the_person_made_of_it():
    async def person(request: ApprovalRequest) -> Approval:
        return Approval(
            "edited", {"points": ["We open on Saturday.", "We are sorry."]} if request.what == "output" else "Hi."
        )

    backend = ScriptedBackend({"letter": "Dear all"})
    async with Session(Settings(), backend=backend, approver=person) as session:
        result = await session.run("closed on Friday", pipeline=load("approve.yaml"))

    assert result.answer == "Dear all"
    assert [request.messages[-1].content for request in backend.requests if request.tag == "letter"] == ["Hi."]
    assert next(step.output for step in result.steps if step.id == "points")["points"][1] == "We are sorry."


async def test_question_goes_on_with_what_the_person_said():
    async def person(request: ApprovalRequest) -> Approval:
        assert request.question.startswith("There is more than one Paris.")
        return Approval("edited", {"country": "Texas", "likes": ["steak", "hats"]})

    backend = ScriptedBackend()
    async with Session(Settings(), backend=backend, approver=person) as session:
        await session.run(pipeline=load("question.yaml"), inputs={"city": "Paris"})

    (request,) = backend.requests
    assert "The city is Paris (Texas).\nI like steak, hats." in request.messages[-1].content


async def test_fallback_answers_whatever_fails():
    backend = ScriptedBackend({"facts": Failure("rejected"), "careful": Failure("rejected"), "plain": "Plainly said."})
    result = await run(load("fallback.yaml"), FILES["fallback.yaml"], backend)

    assert (result.status, result.answer) == ("succeeded", "Plainly said.")


async def test_cache_asks_for_the_rules_once():
    backend = ScriptedBackend()
    async with Session(Settings(), backend=backend) as session:
        for _ in range(2):
            result = await session.run("chess", pipeline=load("cache.yaml"))

    assert sorted(request.tag for request in backend.requests) == ["example", "example", "rules"]
    assert [step.cached for step in result.steps if step.id == "rules"] == [True]


async def test_samples_takes_the_most_frequent_mood():
    moods = tuple({"choice": mood} for mood in ("angry", "mixed", "pleased", "mixed", "mixed"))
    result = await run(load("samples.yaml"), FILES["samples.yaml"], ScriptedBackend({"mood*": moods}))

    assert result.answer.startswith("(mixed)")


async def test_summarise_reads_its_own_files_from_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    backend = ScriptedBackend()
    await run(load("summarise.yaml"), FILES["summarise.yaml"], backend)

    read = " ".join(request.messages[-1].content for request in backend.requests if request.tag.startswith("notes"))
    assert "fishing families" in read
    assert "two hours" in read


def test_the_texts_are_there():
    assert [Path(path).name for path in TEXTS] == ["harbour.txt", "tides.txt"]
