"""What spans and metrics the events of a run mean: plain data, without any of OpenTelemetry."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest
from run_support import Run

from synaptic.backends.scripted import Failure
from synaptic.messages import Usage
from synaptic.pipeline import Tool
from synaptic.runtime.events import (
    RunFinished,
    StepContinued,
    StepFinished,
    StepRepaired,
    StepResult,
    StepRetried,
    StepStarted,
    TokenDelta,
)
from synaptic.runtime.telemetry import conventions
from synaptic.runtime.telemetry.run_spans import RunSpans
from synaptic.runtime.telemetry.span_steps import (
    LONGEST_NAME,
    Measured,
    SpanBegins,
    SpanDropped,
    SpanEnds,
    SpanGains,
    SpanNotes,
    address_of,
    span_name,
)
from synaptic.runtime.telemetry.told_content import LONGEST_TEXT, answer_content
from synaptic.settings import Settings

WRITER = "  end: {agent: writer, prompt: 'about {{ inputs.query }}'}\n"


def steps_of(run: Run, *, content: bool = False) -> list[Any]:
    spans, clock = RunSpans(content=content, clock=count(1e9).__next__), []
    for event in run.events:
        clock += spans.read(event)
    return clock


def begun(steps: list[Any]) -> dict[str, SpanBegins]:
    return {step.name: step for step in steps if isinstance(step, SpanBegins)}


def ended(steps: list[Any]) -> dict[str, SpanEnds]:
    return {step.key: step for step in steps if isinstance(step, SpanEnds)}


def test_every_name_is_one_of_the_conventions_or_our_own() -> None:
    """The package has all names still, as deprecated constants; the buckets are those that the conventions ask for."""
    from opentelemetry.semconv import schemas
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
    from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
    from opentelemetry.semconv.attributes import error_attributes, server_attributes

    known = {
        value
        for module in (gen_ai_attributes, gen_ai_metrics, error_attributes, server_attributes)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
    }
    ours = {value for name, value in vars(conventions).items() if name.isupper() and isinstance(value, str)}
    names = {value for value in ours if "." in value and not value.startswith(("http", conventions.VERSION))}

    assert {name for name in names if not name.startswith("synaptic.")} <= known
    assert {metric.name for metric in conventions.METRICS} <= known
    operations = {conventions.CHAT, conventions.EMBEDDINGS, conventions.INVOKE_AGENT}
    operations |= {conventions.INVOKE_WORKFLOW, conventions.EXECUTE_TOOL}
    assert operations <= {member.value for member in gen_ai_attributes.GenAiOperationNameValues}
    assert schemas.Schemas(conventions.SCHEMA_URL)


async def test_a_run_has_its_steps_and_these_have_their_calls() -> None:
    run = Run("  a: {agent: writer, prompt: 'x'}\n  end: {agent: critic, prompt: '{{ steps.a }}'}\n")
    await run()

    steps = steps_of(run)
    found = begun(steps)

    assert list(found) == ["invoke_workflow demo", "invoke_agent writer", "chat scripted", "invoke_agent critic"]
    assert found["invoke_agent critic"].parent == found["invoke_workflow demo"].key
    assert [step.parent for step in steps if isinstance(step, SpanBegins) and step.kind == "client"] == ["a", "end"]
    assert {step.key for step in steps if isinstance(step, SpanBegins)} == set(ended(steps))
    call = ended(steps)["a#1"].attributes
    assert call[conventions.FINISH_REASONS] == ("stop",)
    assert call[conventions.INPUT_TOKENS] > 0
    assert call[conventions.OUTPUT_TOKENS] > 0
    gained = [step.attributes for step in steps if isinstance(step, SpanGains)]
    assert [attributes.get(conventions.OUTPUT_TYPE) for attributes in gained] == [None, "json"]
    assert {step.metric.name for step in steps if isinstance(step, Measured)} == {
        "gen_ai.client.operation.duration",
        "gen_ai.client.operation.time_to_first_chunk",
        "gen_ai.client.token.usage",
    }


async def test_nothing_that_people_or_models_wrote_is_told_unless_it_is_wanted() -> None:
    run = Run(WRITER, {"end": "the secret of the answer"})
    await run("the secret of the question")

    assert "secret" not in repr(steps_of(run))
    told = steps_of(run, content=True)
    call = next(step for step in told if isinstance(step, SpanGains)).attributes
    question = json.loads(str(call[conventions.INPUT_MESSAGES]))
    assert question == [{"role": "user", "parts": [{"type": "text", "content": "about the secret of the question"}]}]
    assert json.loads(str(call[conventions.INSTRUCTIONS])) == [{"type": "text", "content": "Write."}]
    answers = {key: step.attributes[conventions.OUTPUT_MESSAGES] for key, step in ended(told).items()}
    assert set(answers) == {"", "end", "end#1"}
    assert all("the secret of the answer" in str(answer) for answer in answers.values())


async def test_a_call_that_is_sent_again_is_another_span() -> None:
    script = {"end": (Failure("unavailable"), "at last")}
    run = Run(WRITER, script, settings=Settings(retries=1))
    result = await run()

    steps = steps_of(run)

    assert result.status == "succeeded"
    chats = [step for step in steps if isinstance(step, SpanBegins) and step.kind == "client"]
    assert [step.attributes[conventions.ATTEMPT] for step in chats] == [1, 2]
    assert ended(steps)[chats[0].key].error == conventions.OTHER_ERROR
    assert ended(steps)[chats[1].key].error is None
    said = next(event.error for event in run.events if isinstance(event, StepRetried))
    assert said not in repr(steps)
    assert said in repr(steps_of(run, content=True))


async def test_a_reply_that_cannot_be_used_ends_its_span_with_what_it_used() -> None:
    good = '{"score": 0.5, "issues": []}'
    run = Run("  end: {agent: critic, prompt: 'x'}\n", {"end": ("no JSON", good)}, "{{ steps.end.score }}")
    result = await run()

    steps = steps_of(run)
    spans = [step for step in ended(steps).values() if "#" in step.key]

    assert [step.error for step in spans] == ["unusable_reply", None]
    assert sum(int(step.attributes[conventions.OUTPUT_TOKENS]) for step in spans) == result.usage.completion_tokens
    assert sum(int(step.attributes[conventions.INPUT_TOKENS]) for step in spans) == result.usage.prompt_tokens


async def test_a_tool_is_executed_and_steps_around_steps_are_spans() -> None:
    def weigh(text: str) -> dict[str, Any]:
        return {"weight": len(text)}

    steps = "  loop: {repeat: {max: 2, steps: {one: {agent: writer, prompt: 'x'}}}}\n"
    steps += "  end: {tool: weigh, with: {text: 'the secret {{ steps.loop.one }}'}}\n"
    run = Run(steps, None, "{{ steps.end.weight }}", tools={"weigh": Tool.of(weigh)})
    await run()

    told, quiet = steps_of(run, content=True), steps_of(run)

    assert begun(quiet)["execute_tool weigh"].attributes[conventions.TOOL] == "weigh"
    parents = {step.key: step.parent for step in quiet if isinstance(step, SpanBegins)}
    assert parents["loop[1].one"] in {"loop", "loop[1]"}
    assert "secret" not in repr(quiet)
    arguments = next(step.attributes for step in told if isinstance(step, SpanGains) and step.key == "end")
    assert "the secret" in str(arguments[conventions.TOOL_ARGUMENTS])
    assert json.loads(str(ended(told)["end"].attributes[conventions.TOOL_RESULT]))["weight"] > 0


def started(path: str = "a", backend: str | None = "pool", kind: Any = "agent") -> StepStarted:
    return StepStarted(path, kind, "writer", backend, "m", 1.0)


def finished(path: str = "a", **about: Any) -> StepFinished:
    about = {"kind": "agent", "agent": "writer", "status": "succeeded", "ended_at": 3.0, **about}
    return StepFinished(StepResult(id=path, **about))


@pytest.mark.parametrize("taken", ["cached", "reused"])
def test_what_no_model_was_asked_for_is_no_call(taken: str) -> None:
    spans = RunSpans(content=True)

    steps = [*spans.read(started()), *spans.read(finished(**{taken: True}))]

    assert [step.key for step in steps if isinstance(step, SpanDropped)] == ["a#1"]
    assert not [step for step in steps if isinstance(step, Measured)]
    assert ended(steps)["a"].attributes[conventions.REUSED] is True


def test_a_call_that_goes_on_elsewhere_is_one_call() -> None:
    spans = RunSpans(content=False)

    steps = [
        *spans.read(started()),
        *spans.read(StepContinued("a", "it broke", "http://user:pass@[::1]:11434")),
        *spans.read(finished(node="http://user:pass@[::1]:11434", usage=Usage(9, 3, 4))),
    ]

    assert [step.name for step in steps if isinstance(step, SpanNotes)] == [conventions.CONTINUED]
    call = ended(steps)["a#1"].attributes
    assert (call[conventions.SERVER_ADDRESS], call[conventions.SERVER_PORT]) == ("::1", 11434)
    assert call[conventions.CACHED_TOKENS] == 4
    assert "pass" not in repr(steps)


def test_steps_that_are_cut_off_end_with_their_run() -> None:
    spans = RunSpans(content=False)
    run = Run(WRITER)
    steps = [*spans.read(started("a")), *spans.read(started("b", None, "map"))]

    assert [*spans.read(TokenDelta("a", "x"))] == []
    assert [*spans.read(RunFinished(None))] == []  # type: ignore[arg-type]  # of a run that was never begun
    assert run.events == []
    assert begun(steps)["map b"].kind == "internal"


async def test_a_run_that_is_cut_off_leaves_no_span_open() -> None:
    run = Run(WRITER)
    await run()
    spans = RunSpans(content=False)

    steps = [
        *spans.read(run.events[0]),
        *spans.read(run.events[0]),
        *spans.read(started("x")),
        *spans.read(run.events[-1]),
    ]

    assert [step.key for step in steps if isinstance(step, SpanBegins)] == ["", "x", "x#1"]
    assert set(ended(steps)) == {"", "x", "x#1"}
    assert ended(steps)["x"].attributes[conventions.STEP_STATUS] == "cancelled"


def test_events_of_steps_that_are_not_open_mean_nothing() -> None:
    spans = RunSpans(content=True)
    events = [
        StepRetried("a", 2, "why", 0.0),
        StepRepaired("a", "why"),
        StepContinued("a", "why", None),
        finished(),
    ]

    assert [step for event in events for step in spans.read(event)] == []


def test_a_step_that_calls_no_model_notes_that_it_tries_again() -> None:
    spans = RunSpans(content=False)

    steps = [*spans.read(started(backend=None, kind="tool")), *spans.read(StepRetried("a", 2, "why", 0.0))]

    assert [step.attributes for step in steps if isinstance(step, SpanNotes)] == [{conventions.ATTEMPT: 2}]
    assert ended([*spans.read(finished(error="it raised", status="skipped"))])["a"].error == conventions.OTHER_ERROR


def test_a_repair_without_its_reply_counts_nothing() -> None:
    spans = RunSpans(content=False)

    steps = [*spans.read(started()), *spans.read(StepRepaired("a", "why")), *spans.read(finished(usage=Usage(5, 1)))]

    assert ended(steps)["a#1"].attributes == {}
    assert ended(steps)["a#2"].attributes[conventions.INPUT_TOKENS] == 5


async def test_a_failed_run_is_one_and_says_what_only_where_content_is_told() -> None:
    run = Run(WRITER, {"end": Failure("unavailable")})
    result = await run()

    quiet, told = ended(steps_of(run)), ended(steps_of(run, content=True))

    assert (quiet[""].error, quiet[""].message) == ("BackendUnavailable", "")
    assert told[""].message == str(result.error)
    assert quiet["end"].error == quiet["end#1"].error == conventions.OTHER_ERROR


@pytest.mark.parametrize("node", [None, "", "http://[bad", "http://"])
def test_an_address_that_is_none_is_not_told(node: str | None) -> None:
    assert address_of(node) == {}


def test_names_and_texts_have_a_bound() -> None:
    assert len(span_name("chat", "m" * 1000)) == LONGEST_NAME
    assert span_name("chat", None) == "chat"
    assert len(str(answer_content("x" * 100_000, None)[conventions.OUTPUT_MESSAGES])) < LONGEST_TEXT + 200
    assert answer_content("", "stop") == {}
    assert address_of("laptop") == {conventions.NODE: "laptop"}
