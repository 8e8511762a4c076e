"""A step asks the person a question, and the answer is its output."""

import asyncio

import pytest
from run_support import Run

from synaptic.errors import NotApproved, OutputInvalid, StepTimeout, UsageError
from synaptic.runtime.approval import Approval, ApprovalRequest, approve_all
from synaptic.runtime.caller import ANSWERS
from synaptic.runtime.events import ApprovalAsked, ApprovalGiven

STEPS = """\
  confirm: {ask: "Which city is {{ inputs.query }}?"%s}
  end: {agent: writer, prompt: "in {{ steps.confirm }}"}
"""
SHAPED = ', output: {city: string(2..20), "people?": integer}'


class Person:
    """Answers as told, and remembers what it was asked."""

    def __init__(self, *answers: Approval) -> None:
        self.answers = list(answers)
        self.asked: list[ApprovalRequest] = []

    async def __call__(self, request: ApprovalRequest) -> Approval:
        self.asked.append(request)
        return self.answers.pop(0)


def says(value: object) -> Approval:
    return Approval("edited", value)


def run_with(person: object, more: str = "", steps: str = STEPS, **options) -> Run:
    return Run(steps % more if "%s" in steps else steps, approver=person, **options)


async def test_the_answer_is_the_output_of_the_step():
    person = Person(says(" Bern "))
    run = run_with(person)
    result = await run("B.")

    assert result.status == "succeeded"
    assert (run.result_of("confirm").kind, run.result_of("confirm").output) == ("ask", "Bern")
    assert run.prompts() == {"end": "in Bern"}
    assert (person.asked[0].what, person.asked[0].question) == ("answer", "Which city is B.?")
    assert run.decisions() == [
        ApprovalAsked("confirm", "answer", "Which city is B.?"),
        ApprovalGiven("confirm", "answer", "edited", "Bern"),
    ]


async def test_an_answer_of_the_wrong_shape_is_asked_for_again_with_what_is_wrong():
    person = Person(says({"city": "B"}), says({"city": "Bern", "people": 5}))
    run = run_with(person, SHAPED)
    await run()

    assert run.result_of("confirm").output == {"city": "Bern", "people": 5}
    first, second = person.asked
    assert first.problem == ""
    assert "city" in second.problem and "the reply" not in second.problem
    assert second.question == first.question


@pytest.mark.parametrize("answer", ["", "  ", None, 7, ["x"]])
async def test_free_text_is_text_that_is_not_empty(answer: object):
    person = Person(says(answer), says("Bern"))
    run = run_with(person)
    await run()

    assert run.result_of("confirm").output == "Bern"
    assert "the answer" in person.asked[1].problem


async def test_a_program_that_never_learns_is_not_asked_for_ever():
    person = Person(*[says({"city": "B"})] * 50)
    result = await run_with(person, SHAPED)()

    assert isinstance(result.error, OutputInvalid)
    assert len(person.asked) == ANSWERS


@pytest.mark.parametrize("person", [None, approve_all, Person(Approval("accepted"))])
async def test_the_default_is_the_answer_where_no_other_is_given(person: object):
    run = run_with(person, ', default: "{{ inputs.query }} town"')
    result = await run("B.")

    assert (result.status, run.result_of("confirm").output) == ("succeeded", "B. town")


async def test_a_default_of_a_shape_is_filled_up():
    run = run_with(None, SHAPED + ", default: {city: Bern}")
    await run()

    assert run.result_of("confirm").output == {"city": "Bern", "people": None}


@pytest.mark.parametrize("person", [None, approve_all])
async def test_without_a_person_and_a_default_nothing_is_called(person: object):
    run = run_with(person, steps="  first: {agent: writer, prompt: x}\n" + STEPS)
    with pytest.raises(UsageError, match=r"answer confirm") as raised:
        await run()

    assert "default" in (raised.value.hint or "")
    assert run.backend.requests == []


@pytest.mark.parametrize("inside", ["repeat: {self: true, max: 2}, ask: Which?", "repeat: {steps: {b: {ask: Which?}}}"])
async def test_a_question_inside_a_loop_needs_a_person_too(inside: str):
    with pytest.raises(UsageError, match=r"answer end"):
        await run_with(None, steps=f"  end: {{{inside}}}\n")()


async def test_a_loop_asks_in_every_round():
    person = Person(says("a"), says("b"))
    run = run_with(person, steps="  end: {ask: Which?, repeat: {self: true, max: 2}}\n")

    assert (await run()).answer == "b"
    assert [request.path for request in person.asked] == ["end[1]", "end[2]"]


async def test_a_map_asks_for_each_item():
    person = Person(says("1"), says("2"))
    steps = "  end: {foreach: \"['a', 'b']\", ask: 'What of {{ item }}?'}\n"
    run = run_with(person, steps=steps)
    await run()

    assert run.result_of("end").output == ["1", "2"]
    assert [request.question for request in person.asked] == ["What of a?", "What of b?"]


@pytest.mark.parametrize("person", [None, approve_all])
@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        (
            SHAPED + ', default: "{{ inputs.query }}"',
            'the whole: expected an object with "city", "people" (may be missing), got "B"',
        ),
        (SHAPED + ', default: {city: "{{ inputs.query }}"}', "city: expected a text of 2 to 20 characters"),
        (", default: \"{{ 'x' | replace('x', '') }}\"", "it is empty"),
    ],
)
async def test_a_default_that_does_not_fit_its_step_is_named_with_it(person: object, more: str, wrong: str):
    result = await run_with(person, more)("B")

    assert isinstance(result.error, OutputInvalid)
    assert result.error.message.startswith("the default of confirm is not an answer: ")
    assert wrong in result.error.message


async def test_a_default_that_does_not_fit_is_not_proposed_to_a_person():
    person = Person(says({"city": "Bern"}))
    run = run_with(person, SHAPED + ', default: {city: "{{ inputs.query }}"}')
    await run("B")

    assert run.result_of("confirm").output == {"city": "Bern", "people": None}
    assert person.asked[0].value is None
    assert "the default of confirm is not an answer" in person.asked[0].problem


@pytest.mark.parametrize("given", [Approval("refused", reason="no idea"), Approval("accepted")])
async def test_a_question_without_an_answer_fails_the_step(given: Approval):
    run = run_with(Person(given))
    result = await run()

    assert isinstance(result.error, NotApproved)
    assert "confirm" in str(result.error) and given.reason in str(result.error)
    assert run.backend.requests == []
    assert ApprovalGiven("confirm", "answer", "refused") in run.decisions()


async def test_a_question_without_an_answer_can_be_skipped():
    run = run_with(Person(Approval("refused")), ", on_error: skip")
    result = await run()

    assert result.status == "succeeded"
    assert run.statuses()["confirm"] == "skipped"


async def test_the_other_steps_go_on_meanwhile():
    free = asyncio.Event()

    async def person(_: ApprovalRequest) -> Approval:
        await free.wait()
        return says("Bern")

    def script(request) -> str:
        if request.tag == "other":
            free.set()
        return "done"

    steps = STEPS.replace("prompt: ", "needs: [other], prompt: ") + "  other: {agent: writer, prompt: x}\n"
    result = await run_with(person, steps=steps, script=script)()

    assert result.status == "succeeded"


async def test_a_person_who_takes_too_long_is_not_waited_for():
    async def person(_: ApprovalRequest) -> Approval:
        await asyncio.Event().wait()
        raise AssertionError

    result = await run_with(person, ", timeout: 0.02")()

    assert isinstance(result.error, StepTimeout)


async def test_a_run_that_is_cancelled_takes_the_question_back():
    asked, gone = asyncio.Event(), asyncio.Event()

    async def person(_: ApprovalRequest) -> Approval:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        raise AssertionError

    run = run_with(person)
    task = asyncio.create_task(run())
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert gone.is_set()
    assert run.statuses() == {"confirm": "cancelled"}


async def test_a_default_that_a_step_wrote_has_to_fit():
    steps = f"""\
  first: {{agent: writer, prompt: x}}
  end: {{ask: Which?{SHAPED}, default: "{{{{ steps.first }}}}"}}
"""
    result = await run_with(None, steps=steps)()

    assert isinstance(result.error, OutputInvalid)
    assert str(result.error).startswith("end: the default of end is not an answer: ")
