"""Maps over lists that are written out, and maps whose items have a condition."""

import pytest
from run_support import Run

from synaptic.backends.scripted import Failure
from synaptic.runtime.events import StepFinished

LOOK = "  look: {agent: writer, foreach: %s, %s, prompt: 'about {{ item }}'}\n"


def looking(items: str, keys: str = "priority: 0", script: object = None, **parts) -> Run:
    return Run(LOOK % (items, keys), script, result='{{ steps.look | join("; ") }}', **parts)


def outcome(run: Run, path: str) -> tuple[str, str | None]:
    result = run.result_of(path)
    return result.status, result.stop_reason


@pytest.mark.parametrize(
    ("items", "answer"),
    [
        ("[a, b]", "about a; about b"),
        ("[1, 2.5]", "about 1; about 2.5"),
        ("[true]", "about yes"),
        ("['{{ inputs.query }}', plain]", "about why; about plain"),
        ("['{{ inputs.query }} and {{ inputs.query }}']", "about why and why"),
        ("[[a, b], [c]]", "about - a\n- b; about - c"),
    ],
)
async def test_a_list_that_is_written_out_is_mapped_over(items: str, answer: str):
    assert (await looking(items)()).answer == answer


async def test_an_item_may_be_a_mapping_with_values_of_the_run():
    steps = """\
  first: {agent: writer, prompt: one}
  look:
    agent: writer
    foreach:
      - {name: a, size: 3, text: "{{ steps.first }}"}
      - {name: b, size: 1, text: plain}
    as: part
    prompt: "{{ part.name }} {{ part.size + 1 }} {{ part.text }}"
"""
    run = Run(steps, result='{{ steps.look | join("; ") }}')

    assert (await run()).answer == "a 4 one; b 2 plain"
    assert run.started().index("first") < run.started().index("look")


async def test_a_reference_alone_keeps_its_type():
    steps = """\
  list: {agent: lister, prompt: x}
  look: {agent: writer, foreach: ["{{ steps.list.items }}"], prompt: "{{ item | length }}"}
"""
    run = Run(steps, {"list": {"items": ["a", "b", "c"]}}, result="{{ steps.look | join }}")

    assert (await run()).answer == "3"


@pytest.mark.parametrize(
    ("condition", "kept", "remark"),
    [
        ("item > 1", "about 2; about 3", "1 of 3 left out by 'when'"),
        ("'{{ item > 2 }}'", "about 3", "2 of 3 left out by 'when'"),
        ("item > 0", "about 1; about 2; about 3", None),
        ("inputs.query == 'why' and item < 2", "about 1", "2 of 3 left out by 'when'"),
    ],
)
async def test_items_whose_condition_is_false_are_left_out(condition: str, kept: str, remark: str | None):
    run = looking("[1, 2, 3]", f"when: {condition}")

    assert (await run()).answer == kept
    assert outcome(run, "look") == ("succeeded", remark)
    left_out = [event.result for event in run.events if isinstance(event, StepFinished)]
    assert {(step.status, step.stop_reason) for step in left_out if step.status == "skipped"} <= {("skipped", "when")}
    assert len(run.backend.requests) == kept.count("about")


async def test_a_condition_may_speak_of_the_item_by_its_name():
    run = looking("[1, 2, 3]", "as: number, when: number != 2")

    assert (await run()).answer == "about 1; about 3"


async def test_a_condition_that_does_not_speak_of_the_item_is_asked_once():
    run = looking("[1, 2]", "when: inputs.query == 'else'")

    await run()

    assert outcome(run, "look") == ("skipped", "when")
    assert not run.backend.requests


async def test_a_map_that_leaves_out_all_its_items_gives_an_empty_list():
    steps = LOOK % ("[1, 2]", "when: item > 5") + "  end: {agent: writer, prompt: 'n={{ steps.look | length }}'}\n"
    run = Run(steps)

    assert (await run()).answer == "n=0"
    assert outcome(run, "look") == ("succeeded", "2 of 2 left out by 'when'")


async def test_of_the_items_that_are_wanted_not_all_may_fail():
    fails = {"look[1]": Failure("rejected"), "look[2]": Failure("rejected")}
    run = looking("[1, 2, 3]", "when: item > 1, on_error: skip", fails)

    assert (await run()).status == "failed"
    assert outcome(run, "look")[0] == "failed"


@pytest.mark.parametrize(("keys", "status"), [("on_error: skip, ", "succeeded"), ("", "failed")])
async def test_a_condition_without_a_value_is_a_failure_of_its_item(keys: str, status: str):
    run = looking("[{n: 1}, {m: 2}]", f"{keys}when: item.n > 0")

    assert (await run()).status == status
    assert "there is no field 'n'" in str(run.result_of("look[1]").error)


async def test_items_that_come_while_their_list_is_written_are_asked_one_by_one():
    steps = """\
  list: {agent: lister, prompt: x}
  look: {agent: writer, foreach: steps.list.items, when: item != "b", prompt: "{{ item }}"}
"""
    run = Run(steps, {"list": {"items": ["a", "b", "c"]}}, result='{{ steps.look | join("; ") }}')

    assert (await run()).answer == "a; c"
    assert outcome(run, "look[1]") == ("skipped", "when")
    assert outcome(run, "look") == ("succeeded", "1 of 3 left out by 'when'")
    streamed = run.started().index("look[0]") < next(
        index for index, event in enumerate(run.events) if isinstance(event, StepFinished) and event.result.id == "list"
    )
    assert streamed


async def test_a_map_inside_a_loop_inside_a_map_asks_for_its_own_item():
    steps = """\
  outer:
    foreach: [1, 2]
    as: number
    repeat:
      max: 1
      steps:
        inner: {agent: writer, foreach: [10, 20], as: ten, when: item > 10 and number < 2, prompt: "{{ ten }}"}
"""
    run = Run(steps, result="{% for one in steps.outer %}[{{ one.inner | join }}]{% endfor %}")

    assert (await run()).answer == "[20][]"
