"""A person confirms, edits or refuses a prompt or an output before the run goes on."""

import pytest
from run_support import Run

from synaptic.errors import NotApproved, UsageError
from synaptic.pipeline.tools import Tool
from synaptic.runtime.approval import Approval, ApprovalRequest, approve_all
from synaptic.runtime.events import ApprovalAsked, ApprovalGiven

STEPS = """\
  draft: {agent: %s, prompt: "write", approve: %s%s}
  end: {agent: writer, prompt: "{{ steps.draft }}"}
"""


class Person:
    """Answers as told, and remembers what it was asked."""

    def __init__(self, *answers: Approval) -> None:
        self.answers = list(answers)
        self.asked: list[ApprovalRequest] = []

    async def __call__(self, request: ApprovalRequest) -> Approval:
        self.asked.append(request)
        return self.answers.pop(0)


def run_with(person: object, *, agent: str = "writer", approve: str = "true", more: str = "", script=None) -> Run:
    return Run(STEPS % (agent, approve, more), script, approver=person)


async def test_an_edited_output_is_what_the_run_goes_on_with():
    person = Person(Approval("edited", "better"))
    run = run_with(person, script={"draft": "good"})
    assert (await run()).answer == "better"
    assert person.asked[0].value == "good"
    assert run.result_of("draft").output == "better"
    assert run.decisions() == [
        ApprovalAsked("draft", "output", value="good"),
        ApprovalGiven("draft", "output", "edited", "better"),
    ]


async def test_an_edited_prompt_is_what_the_model_gets():
    run = run_with(Person(Approval("edited", "write well")), approve="prompt")
    await run()
    assert run.prompts()["draft"] == "write well"


async def test_both_are_asked_for():
    person = Person(Approval("accepted"), Approval("accepted"))
    await run_with(person, approve="both")()
    assert [request.what for request in person.asked] == ["prompt", "output"]


async def test_a_refusal_fails_the_step():
    result = await run_with(Person(Approval("refused", reason="too long")))()
    assert result.status == "failed"
    assert isinstance(result.error, NotApproved)
    assert "too long" in str(result.error)


async def test_a_refusal_can_be_skipped():
    run = run_with(Person(Approval("refused")), more=", on_error: skip", script={"end": "went on"})
    assert (await run()).answer == "went on"


async def test_an_edit_of_structured_output_has_to_fit_its_shape():
    good = run_with(Person(Approval("edited", {"score": 0.5})), agent="judge")
    assert (await good()).answer == "score: 0.5"
    bad = run_with(Person(Approval("edited", {"score": 7})), agent="judge")
    assert (await bad()).status == "failed"


def shout(text: str) -> str:
    """Return it louder."""
    return text.upper()


EVERY_KIND = {
    "agent": "agent: writer, prompt: x",
    "choose": "choose: {prompt: x, options: {one: '', two: ''}}",
    "ask": "ask: Which?, default: this",
    "tool": "tool: shout, with: {text: x}",
    "use": "use: answer, with: {query: x}",
    "map": "agent: writer, prompt: x, foreach: [a]",
    "samples": "agent: writer, prompt: x, samples: 2, select: vote",
    "loop": "repeat: {max: 1, steps: {inner: {agent: writer, prompt: x}}}",
    "loop over itself": "agent: writer, prompt: x, repeat: {self: true, max: 1}",
}


@pytest.mark.parametrize("step", EVERY_KIND.values(), ids=EVERY_KIND)
async def test_the_output_of_every_kind_of_step_can_be_refused(step: str):
    asked = []

    async def person(request: ApprovalRequest) -> Approval:
        asked.append(request.what)
        return Approval("refused") if request.what == "output" else Approval("accepted")

    run = Run(f"  end: {{{step}, approve: true}}", approver=person, tools={"shout": Tool.of(shout)})
    result = await run()

    assert asked.count("output") == 1
    assert isinstance(result.error, NotApproved)
    assert run.statuses()["end"] == "failed"


@pytest.mark.parametrize("step", [EVERY_KIND["loop over itself"], EVERY_KIND["samples"]])
async def test_an_edited_output_of_several_calls_is_the_one(step: str):
    result = await Run(f"  end: {{{step}, approve: output}}", approver=Person(Approval("edited", "better")))()

    assert result.answer == "better"


async def test_of_samples_only_the_chosen_one_is_shown():
    person = Person(Approval("accepted"))
    await run_with(person, more=", samples: 3, select: vote")()
    assert len(person.asked) == 1


async def test_where_nobody_can_be_asked_nothing_is_called():
    run = run_with(None)
    with pytest.raises(UsageError, match="draft"):
        await run()
    assert run.backend.requests == []


async def test_everything_can_be_accepted():
    assert (await run_with(approve_all)()).status == "succeeded"
