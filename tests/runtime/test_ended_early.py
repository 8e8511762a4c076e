"""What a run gives that a budget, a person or a failure ends: of its result as much as is there, and nothing else."""

import asyncio

import pytest
from run_support import AGENTS, SETTINGS, Run

from synaptic.backends.scripted import Failure, Reply, ScriptedBackend
from synaptic.errors import BudgetExceeded
from synaptic.messages import ChatRequest
from synaptic.pipeline.loader import Pipeline
from synaptic.runtime.events import RunResult
from synaptic.runtime.run_document import run_document
from synaptic.runtime.session import Session

LOOP = """\
  tell:
    repeat:
      max: 9
      score: steps.rate.score
      keep: best
      steps:
        draft: {agent: writer, prompt: x}
        rate: {agent: judge, prompt: "{{ steps.draft }}"}
"""
FOREVER = Reply(text="a b c", token_delay=30)
ROUNDS = {
    "*tell[1].draft": "one",
    "*tell[1].rate": {"score": 0.9},
    "*tell[2].draft": "two",
    "*tell[2].rate": {"score": 0.1},
}
THIRD = {"*tell[3].draft": FOREVER}
BOUNDS = {"calls": "{calls: 5}", "tokens": "{tokens: 13}", "seconds": "{seconds: 1}"}
RESULTS = {
    "{{ steps.tell.draft }}": "one",
    "{{ steps.tell.draft }} ({{ steps.tell.rounds }}, {{ steps.tell.stop_reason }})": "one (2, REASON)",
    "Best: {{ steps.tell.draft | upper }}": "Best: ONE",
    "{% if steps.tell.rate.score > 0.5 %}Good: {% endif %}{{ steps.tell.draft }}": "Good: one",
}


async def cancelled(run: Run, at: str) -> RunResult:
    """Return how a run ended that was cancelled when a step had begun."""
    task = asyncio.create_task(run())
    while at not in run.started():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return run.finished


@pytest.mark.parametrize(
    ("bound", "wanted"), [("calls", wanted) for wanted in RESULTS] + [(bound, [*RESULTS][1]) for bound in BOUNDS]
)
async def test_a_budget_that_ends_a_loop_gives_the_best_round_whatever_the_result_is_like(bound: str, wanted: str):
    run = Run(LOOP, ROUNDS | (THIRD if bound == "seconds" else {}), wanted, head=f"budget: {BOUNDS[bound]}")

    result = await asyncio.wait_for(run(), 20)

    assert (result.status, result.stop_reason) == ("stopped", f"budget: {bound}")
    assert result.answer == RESULTS[wanted].replace("REASON", f"budget: {bound}")
    assert run.result_of("tell").stop_reason == f"budget: {bound}"


@pytest.mark.parametrize("wanted", RESULTS)
async def test_a_person_who_ends_a_loop_gets_the_best_round_as_well(wanted: str):
    result = await cancelled(Run(LOOP, ROUNDS | THIRD, wanted), "tell[3].draft")

    assert (result.status, result.answer) == ("cancelled", RESULTS[wanted].replace("REASON", "cancelled"))


@pytest.mark.parametrize("cut", ["in a round", "at the question"])
async def test_what_a_person_was_to_approve_is_no_answer_before(cut: str):
    async def never(_: object) -> None:
        await asyncio.Event().wait()

    steps = "  end: {agent: writer, prompt: x, approve: output, repeat: {self: true, max: 2}}\n"
    script = {"end[2]": FOREVER} if cut == "in a round" else {}
    run = Run(steps, script, head="budget: {seconds: 0.2}", approver=never)

    result = await asyncio.wait_for(run(), 20)

    assert (result.status, result.stop_reason, result.answer) == ("failed", "budget: seconds", "")
    assert run.result_of("end").stop_reason == "budget: seconds"


async def test_a_loop_beside_the_step_that_uses_up_the_budget_says_so_too():
    third = asyncio.Event()

    async def answer(request: ChatRequest) -> object:
        if request.tag == "other":
            await third.wait()
            return "word " * 40
        if request.tag == "tell[3].draft":
            third.set()
            return FOREVER
        return ROUNDS[f"*{request.tag}"]

    steps = LOOP + "  other: {agent: writer, prompt: x}\n"
    run = Run(steps, answer, "{{ steps.tell.draft }}, {{ steps.tell.stop_reason }}", head="budget: {tokens: 30}")

    assert (await asyncio.wait_for(run(), 20)).answer == "one, budget: tokens"
    assert run.result_of("tell[3].draft").stop_reason == "budget: tokens"


async def test_a_map_of_loops_gives_their_best_rounds():
    steps = """\
  tell:
    agent: writer
    foreach: ["a", "b"]
    prompt: "{{ item }}{{ previous }}"
    repeat: {self: true, max: 9}
"""
    script = {"tell[0][2]": FOREVER, "tell[1][3]": FOREVER}
    run = Run(steps, script, "Told: {{ steps.tell | join }}", head="budget: {seconds: 1}")

    assert (await asyncio.wait_for(run(), 20)).answer == "Told: abb"


PARTS = """\
  intro: {agent: writer, prompt: hello}
  body: {agent: writer, needs: [intro], prompt: x}
  end: {agent: writer, needs: [body], prompt: x}
"""


@pytest.mark.parametrize(
    ("wanted", "script", "answer"),
    [
        ("# {{ steps.intro }}, {{ steps.body }}, {{ steps.end }}", {"body": FOREVER}, "# hello, a,"),
        ("{{ steps.body }}", {"body": FOREVER}, "a"),
        ("{{ steps.end }}", {"body": FOREVER}, ""),
        ("The end: {{ steps.end }}", {"body": FOREVER}, ""),
        # What is not there is not false: a condition on it says nothing.
        ("{{ steps.intro }} {% if steps.end %}good{% else %}bad{% endif %}", {"body": FOREVER}, ""),
    ],
)
async def test_the_answer_is_as_much_of_the_result_as_is_there_and_never_another_step(
    wanted: str, script: dict, answer: str
):
    run = Run(PARTS, script, wanted)
    task = asyncio.create_task(run())
    while not run.backend.requests or run.backend.requests[-1].tag != "body":
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

    assert run.finished.answer == answer
    assert run.result_of("intro").output == "hello"


@pytest.mark.parametrize("failing", ["body", "end"])
async def test_a_run_that_failed_names_the_step_and_gives_no_other_steps_output(failing: str):
    result = await Run(PARTS, {failing: Failure("server_error")})()

    assert (result.status, result.answer) == ("failed", "")
    assert result.error.step == failing
    assert str(result.error) == f"{failing}: the server failed (scripted)"
    assert run_document(result)["error"] == {
        "type": "ServerError",
        "message": "the server failed (scripted)",
        "step": failing,
    }


NESTED = {
    "map": ("{agent: writer, foreach: '[1, 2]', prompt: x}", "end[1]"),
    "repeat": ("{repeat: {max: 2, steps: {draft: {agent: writer, prompt: x}}}}", "end[1].draft"),
    "self": ("{agent: writer, prompt: x, repeat: {self: true, max: 2}}", "end[1]"),
    "samples": ("{agent: writer, samples: 2, select: vote, prompt: x}", "end[0]"),
    "use": ("{use: answer, with: {query: x}}", "end.answer"),
    "timeout": ("{use: answer, with: {query: x}, timeout: 0.05}", "end"),
}


@pytest.mark.parametrize("kind", NESTED)
async def test_the_step_is_named_inside_which_nothing_else_failed(kind: str):
    step, path = NESTED[kind]
    script = {"end": Reply(text="x"), f"{path}*": FOREVER if kind == "timeout" else Failure("server_error")}
    if kind == "samples":
        script = {"end*": Failure("server_error")}

    result = await asyncio.wait_for(Run(f"  end: {step}\n", script)(), 20)

    assert result.status == "failed"
    assert result.error.step == path
    assert str(result.error).startswith(path)


INNER = "version: 1\nname: inner\n{head}\ninputs: {{query: {{}}}}\nsteps:\n{steps}\nresult: '{result}'\n"


async def used(
    tmp_path, *, inner: str = "", outer: str = "", result: str, script: dict, steps: str = LOOP, use: str = ""
):
    (tmp_path / "inner.yaml").write_text(INNER.format(head=inner, steps=steps, result=result))
    (tmp_path / "outer.yaml").write_text(f"""\
version: 1
name: outer
{outer}
inputs: {{query: {{}}}}
steps:
  part: {{use: inner.yaml, with: {{query: x}}{use}}}
  end: {{agent: writer, prompt: "{{{{ steps.part }}}}!"}}
result: "{"{{ steps.part }}" if outer else "{{ steps.end }}"}"
""")
    async with Session(SETTINGS, backend=ScriptedBackend(script), agents=AGENTS) as session:
        pipeline = Pipeline.load(tmp_path / "outer.yaml")
        return await asyncio.wait_for(session.run("x", pipeline=pipeline), 20)


TOLD = "{{ steps.tell.draft }} ({{ steps.tell.stop_reason }})"


@pytest.mark.parametrize("bound", BOUNDS)
async def test_a_budget_around_a_used_pipeline_gives_the_best_round_of_the_loop_in_it(bound: str, tmp_path):
    script = ROUNDS | (THIRD if bound == "seconds" else {})
    result = await used(tmp_path, outer=f"budget: {BOUNDS[bound]}", result=TOLD, script=script)

    assert (result.status, result.answer) == ("stopped", f"one (budget: {bound})")


@pytest.mark.parametrize("bound", BOUNDS)
async def test_a_used_pipelines_own_budget_ends_it_with_its_best_and_the_run_goes_on(bound: str, tmp_path):
    script = ROUNDS | (THIRD if bound == "seconds" else {})
    result = await used(tmp_path, inner=f"budget: {BOUNDS[bound]}", result=TOLD, script=script)

    assert (result.status, result.answer) == ("succeeded", f"one (budget: {bound})!")
    (part,) = [step for step in result.steps if step.id == "part"]
    assert (part.status, part.stop_reason) == ("succeeded", f"budget: {bound}")


async def test_the_timeout_of_a_used_pipeline_is_such_a_bound(tmp_path):
    result = await used(tmp_path, result=TOLD, script=ROUNDS | THIRD, use=", timeout: 1")

    assert (result.status, result.answer) == ("succeeded", "one (timeout)!")


async def test_a_text_that_a_used_pipelines_budget_broke_off_is_not_handed_on(tmp_path):
    long = {"part.tell": Reply(text="word " * 40)}
    steps = "  tell: {agent: writer, prompt: x}\n"
    result = await used(tmp_path, inner="budget: {tokens: 10}", result="{{ steps.tell }}", script=long, steps=steps)

    assert (result.status, result.answer) == ("failed", "")
    assert isinstance(result.error, BudgetExceeded)
    assert str(result.error) == "part: the budget of 10 tokens is used up"
