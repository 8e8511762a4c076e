"""What has the same key is not done again: every kind of leaf, cut off after every event."""

import asyncio
from pathlib import Path

import pytest
from past_support import Goes, ended

from synaptic.pipeline.tools import tool
from synaptic.runtime.approval import Approval
from synaptic.runtime.events import ApprovalAsked, ApprovalGiven, StepAsked, StepFinished
from synaptic.runtime.recorded import Inherited

INNER = """\
version: 1
name: inner
inputs: {topic: {required: true}}
steps:
  facts: {agent: lister, prompt: "{{ inputs.topic }}"}
  tell: {agent: writer, foreach: steps.facts.items, as: fact, prompt: "tell {{ fact }}"}
result: "{{ steps.tell }}"
"""
EVERYTHING = """\
version: 1
name: demo
inputs: {query: {}}
steps:
  plan: {agent: lister, prompt: "plan {{ inputs.query }}"}
  each: {agent: writer, foreach: steps.plan.items, as: part, prompt: "each {{ part }}"}
  said: {agent: writer, samples: 3, select: best, prompt: "say"}
  refine:
    repeat:
      max: 3
      until: steps.rate.score >= 0.8
      steps:
        draft: {agent: writer, prompt: "draft {{ previous.rate.score if previous }}"}
        rate: {agent: judge, prompt: "{{ steps.draft }}"}
  slow: {agent: writer, prompt: "slow"}
  quick: {agent: writer, prompt: "quick"}
  raced: {agent: writer, join: any, needs: [slow, quick], prompt: "{{ steps.slow }}|{{ steps.quick }}"}
  sort: {choose: {agent: classifier, prompt: "which", options: {a: first, b: second}}}
  used: {use: inner.yaml, with: {topic: "{{ steps.raced }}"}}
  count: {tool: count, with: {texts: "{{ steps.each }}"}}
  end:
    agent: writer
    prompt: "{{ steps.count }} {{ steps.used }} {{ steps.said }} {{ steps.refine.draft }} {{ steps.sort }}"
result: "{{ steps.end }}"
"""


async def answer(request):
    """Answer alike each time, at different speeds."""
    await asyncio.sleep(0.02 if request.tag in {"slow", "each[0]"} else 0.001)
    match request.tag.rpartition(".")[2].partition("[")[0]:
        case "plan" | "facts":
            return {"items": ["a", "b", "b"]}
        case "rate":
            return {"score": 0.9 if "draft 0.5" in request.messages[-1].content else 0.5}
        case "judge":
            return {"score": 0.1 * len(request.messages[-1].content) % 1}
        case "sort":
            return {"choice": "b"}
    return f"<{request.messages[-1].content}>"


class Counted:
    def __init__(self) -> None:
        self.calls = 0

    def tools(self) -> dict:
        @tool
        def count(texts: list[str]) -> int:
            self.calls += 1
            return len(texts)

        return {"count": count}


async def test_a_run_cut_off_after_any_event_does_each_leaf_once_and_ends_alike(tmp_path: Path):
    (tmp_path / "inner.yaml").write_text(INNER)
    (tmp_path / "outer.yaml").write_text(EVERYTHING)
    counted = Counted()
    goes = Goes(tmp_path / "outer.yaml", answer, tools=counted.tools())
    first = await goes()
    first.raise_for_status()
    events, whole = goes.events, goes.ended()
    assert whole.total() == goes.asked.total()
    assert counted.calls == 1

    ends = [number for number, event in enumerate(events, 1) if isinstance(event, (StepFinished, StepAsked))]
    for cut in ends[::3]:
        counted.calls = 0
        known = ended(events[:cut])
        counts_before = any(isinstance(event, StepFinished) and event.result.id == "count" for event in events[:cut])
        result = await goes(events[:cut])

        assert result.answer == first.answer, cut
        assert goes.asked == whole - known, cut
        assert counted.calls == (not counts_before), cut
        assert all(step.attempts == 0 and step.usage.total_tokens == 0 for step in result.steps if step.reused)


FOUR = """\
version: 1
name: demo
inputs: {query: {}}
steps:
  s0: {agent: writer, prompt: x}
  s1: {agent: writer, prompt: "1 {{ steps.s0 }}"}
  s2: {agent: writer, prompt: "2 {{ steps.s1 }}"}
  s3: {agent: writer, prompt: "3 {{ steps.s2 }}"}
result: "{{ steps.s3 }}"
"""


def number_of_end(events: list, path: str) -> int:
    """Return how many events there are until the step has ended."""
    ends = (isinstance(event, StepFinished) and event.result.id == path for event in events)
    return list(ends).index(True) + 1


async def test_several_goes_follow_one_another():
    goes = Goes(FOUR)
    await goes()
    said: list = []
    for number in range(4):
        said += goes.events[: number_of_end(goes.events, f"s{number}")]
        await goes(said)
        assert goes.reused() == [f"s{done}" for done in range(number + 1)]
        assert sorted(goes.asked) == [f"s{new}" for new in range(number + 1, 4)]


TWO = """\
version: 1
name: demo
inputs: {query: {}}
steps:
  one: {agent: writer, prompt: "%s"}
  two: {agent: writer, prompt: "on {{ steps.one }}"%s}
result: "{{ steps.two }}"
"""


@pytest.mark.parametrize(
    ("prompt", "more", "asked"),
    [
        ("a", "", []),
        ("b", "", ["one", "two"]),
        ("a", ", max_tokens: 5", ["two"]),
        ("a", ", temperature: 0.5", ["two"]),
        ("a", ", model: scripted", []),
        ("a", ", overflow: truncate_oldest", ["two"]),
        ("a", ", output: {text: string}", ["two"]),
        ("a", ", timeout: 5", []),
        ("a", ", priority: 5", []),
    ],
)
async def test_only_what_decides_the_output_makes_a_step_run_again(prompt: str, more: str, asked: list[str]):
    goes = Goes(TWO % ("a", ""))
    await goes()
    changed = Goes(TWO % (prompt, more))
    await changed(Inherited(goes.events))
    assert sorted(changed.asked) == asked


@pytest.mark.parametrize(("before", "now", "asked"), [("1", "1", 0), ("1", "2", 2), (None, "2", 0), ("1", None, 0)])
async def test_another_model_of_the_same_name_is_asked_again(before: str | None, now: str | None, asked: int):
    goes = Goes(TWO % ("a", ""), digest=before)
    await goes()
    again = Goes(TWO % ("a", ""), digest=now)
    await again(goes.events)
    assert again.asked.total() == asked


TWICE = """\
version: 1
name: demo
inputs: {query: {}}
steps:
  first: {agent: writer, prompt: same}
  other: {agent: writer, prompt: same}
result: "{{ steps.first }} {{ steps.other }}"
"""


async def test_a_renamed_step_is_found_by_its_key_and_each_output_is_given_once():
    goes = Goes(TWO % ("same", ""))
    await goes()
    lineage = Goes(TWICE)
    await lineage(Inherited(goes.events))
    assert (lineage.reused(), sorted(lineage.asked)) == (["first"], ["other"])
    strict = Goes(TWICE)
    await strict(goes.events)
    assert strict.reused() == []


async def test_what_failed_is_tried_again():
    goes = Goes(TWO % ("a", ", retry: {attempts: 1}"), {"two": RuntimeError("no")})
    with pytest.raises(RuntimeError):
        await goes()
    goes.script = None
    result = await goes(goes.events)
    assert (result.status, goes.reused(), list(goes.asked)) == ("succeeded", ["one"], ["two"])


# -- people ------------------------------------------------------------------------------------------------


class Person:
    def __init__(self, *given: Approval) -> None:
        self.given = list(given)

    async def __call__(self, request):
        if not self.given:
            await asyncio.get_running_loop().create_future()
        return self.given.pop(0)


ASKING = """\
version: 1
name: demo
inputs: {query: {}}
steps:
  draft: {agent: critic, prompt: x, approve: both}
  sort:
    choose: {agent: classifier, prompt: "{{ steps.draft.score }}", options: {a: first, b: second}}
    approve: output
  city: {ask: "Which city? {{ steps.sort }}"}
  end: {agent: writer, prompt: "{{ steps.city }} {{ steps.draft.score }}"}
result: "{{ steps.end }}"
"""
DECISIONS = (
    Approval("edited", "write"),
    Approval("edited", {"score": 0.5, "issues": []}),
    Approval("accepted"),
    Approval("edited", "Bern"),
)


async def test_a_person_is_asked_nothing_twice():
    goes = Goes(ASKING, approver=Person(*DECISIONS))
    first = await goes()
    first.raise_for_status()
    events, whole = goes.events, goes.ended()
    for cut in range(1, len(events)):
        given = sum(isinstance(event, ApprovalGiven) for event in events[:cut])
        # What the model said is known from the moment that the person is shown it.
        shown = {event.path for event in events[:cut] if isinstance(event, ApprovalAsked) and event.what == "output"}
        goes.approver = Person(*DECISIONS[given:])
        result = await asyncio.wait_for(goes(events[:cut]), 20)

        assert result.answer == first.answer == "Bern 0.5", cut
        assert set(goes.asked) == set(whole) - set(ended(events[:cut])) - shown, cut
        assert goes.approver.given == [], cut
        decided = [event for event in goes.events if isinstance(event, ApprovalGiven)]
        assert sum(event.reused for event in decided) == given


async def test_a_refusal_is_asked_about_again():
    goes = Goes(ASKING, approver=Person(Approval("accepted"), Approval("refused")))
    assert (await goes()).status == "failed"
    goes.approver = Person(Approval("accepted"), *DECISIONS[2:])
    result = await goes(goes.events)
    assert result.status == "succeeded"
    assert list(goes.asked) == ["sort", "end"]


# -- tools -------------------------------------------------------------------------------------------------

SENDING = """\
version: 1
name: demo
inputs: {query: {}}
steps:
  sent: {tool: send, with: {text: "{{ inputs.query }}"}}
  end: {agent: writer, prompt: "{{ steps.sent }}"}
result: "{{ steps.end }}"
"""


@pytest.mark.parametrize(
    ("idempotent", "step", "answers", "status", "sent"),
    [
        (True, "", (), "succeeded", 2),
        (False, "", ("yes",), "succeeded", 2),
        (False, "", ("no",), "failed", 1),
        (False, "", None, "failed", 1),
        (True, ", idempotent: false", ("no",), "failed", 1),
        (False, ", idempotent: true", (), "succeeded", 2),
    ],
)
async def test_a_tool_that_may_not_work_twice_is_not_called_again_without_asking(
    idempotent, step, answers, status, sent
):
    calls = []

    @tool(idempotent=idempotent)
    async def send(text: str) -> str:
        calls.append(text)
        return "sent"

    goes = Goes(SENDING.replace('}}"}}', f'}}}}"}}{step}}}', 1), tools={"send": send})
    await goes()
    asked = next(number for number, event in enumerate(goes.events, 1) if isinstance(event, StepAsked))
    goes.approver = None if answers is None else Person(*(Approval("edited", each) for each in answers))
    result = await goes(goes.events[:asked])
    assert (result.status, len(calls)) == (status, sent)
    if status == "failed":
        assert "how that ended is not known; it is not called again" in str(result.error)


async def test_a_person_is_asked_for_each_call_of_a_tool_whose_end_is_not_known():
    calls = []

    @tool(idempotent=False)
    async def send(text: str) -> str:
        calls.append(text)
        return "sent"

    goes = Goes(SENDING, tools={"send": send})
    await goes()
    known = before_its_end(goes.events)
    for approver in (Person(Approval("edited", "yes")), None, Person(Approval("edited", "yes"))):
        goes.approver = approver
        result = await goes(known)
        known += before_its_end(goes.events) if approver else goes.events
        assert result.status == ("failed" if approver is None else "succeeded")
    assert len(calls) == 3
    goes.approver = Person(Approval("edited", "no"))
    assert (await goes(known)).status == "failed"
    assert (len(calls), goes.approver.given) == (3, [])


def before_its_end(events: list) -> list:
    """Return the events up to the last that a tool is called with, as if the program were killed then."""
    return events[: max(number for number, event in enumerate(events, 1) if getattr(event, "tool", None))]


async def test_a_rehearsal_calls_nothing_and_names_what_would_be_done_again(tmp_path: Path):
    (tmp_path / "inner.yaml").write_text(INNER)
    (tmp_path / "outer.yaml").write_text(EVERYTHING)
    counted = Counted()
    goes = Goes(tmp_path / "outer.yaml", answer, tools=counted.tools())
    await goes()
    ends = [number for number, event in enumerate(goes.events, 1) if isinstance(event, StepFinished)]
    for cut in ends[::6]:
        assert await goes.rehearsed(goes.events[:cut]) == "", cut
    (tmp_path / "outer.yaml").write_text(EVERYTHING.replace('"each {{', '"of each {{').replace('"say"', '"speak"'))
    changed = Goes(tmp_path / "outer.yaml", answer, tools=counted.tools())
    said = await changed.rehearsed(goes.events)
    assert counted.calls == 1
    for path in ("said[0]", "said[1]", "said[2]"):
        assert f"{path} (another prompt)" in said
    assert "and 3 more steps" in said
