"""The session and the functions of the library."""

import asyncio
import json
from dataclasses import replace

import pytest
from faulty_node import FaultyNode

import synaptic
from synaptic import (
    Agent,
    BackendReported,
    Message,
    Pipeline,
    RunFinished,
    RunStarted,
    ScriptedBackend,
    Session,
    Settings,
    TokenDelta,
    UsageError,
    run,
    run_sync,
    stream_events,
)
from synaptic.backends.scripted import Failure
from synaptic.errors import BackendUnavailable, PipelineError
from synaptic.messages import BackendNotice, Delta, Finished, Reporter
from synaptic.runtime.policies import BackendWrapper
from synaptic.runtime.run_document import run_document

SCRIPTED = Settings(backend="scripted", pipeline="answer")


async def test_a_question_is_answered():
    result = await run("why?", settings=SCRIPTED)

    assert (result.status, result.pipeline, result.answer) == ("succeeded", "answer", "why?")


def test_a_question_is_answered_without_async():
    assert run_sync("why?", settings=SCRIPTED).answer == "why?"


async def test_the_sync_form_says_what_to_write_inside_a_loop():
    with pytest.raises(UsageError, match=r"await synaptic\.run"):
        run_sync("why?", settings=SCRIPTED)


async def test_events_come_as_they_happen():
    events = [event async for event in stream_events("a b", settings=SCRIPTED)]

    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunFinished)
    assert "".join(event.text for event in events if isinstance(event, TokenDelta)) == "a b"


async def test_leaving_the_stream_of_events_cancels_the_run():
    backend = ScriptedBackend([Failure("stall", after_tokens=1)])
    events = stream_events("q", settings=SCRIPTED, backend=backend)
    async for event in events:
        if isinstance(event, TokenDelta):
            break
    await events.aclose()

    assert backend.active == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_mistake_is_raised_from_the_stream_of_events():
    with pytest.raises(PipelineError):
        async for _ in stream_events("q", pipeline="nope", settings=SCRIPTED):
            pass


async def test_ones_own_agent_and_pipeline():
    pipeline = Pipeline.parse("""\
version: 1
name: poem
inputs: {topic: {required: true}}
steps:
  poem: {agent: poet, prompt: "{{ inputs.topic }}"}
result: "{{ steps.poem.title }}"
""")
    poet = Agent(name="poet", prompt="Write.", output={"title": "string"})
    backend = ScriptedBackend({"poem": {"title": "Rain"}})

    result = await run(
        pipeline=pipeline, inputs={"topic": "rain"}, settings=SCRIPTED, agents={"poet": poet}, backend=backend
    )

    assert result.answer == "Rain"
    assert not backend.closed, "what the caller made, the caller closes"


async def test_the_backend_is_opened_once_and_closed_with_the_session():
    async with Session(SCRIPTED) as session:
        first, second = await asyncio.gather(session.route(), session.route())
        backend = (await session._opened.open()).backend
        assert first is second
        assert [model.name for model in await session.models()] == ["scripted"]

    assert backend.closed
    await session.aclose()


async def test_no_more_calls_than_the_setting_allows_run_at_once():
    backend = ScriptedBackend(token_delay=0.001)

    await run("why", pipeline="parallel", settings=Settings(max_parallel=1), backend=backend)
    one = backend.max_active
    await run("why", pipeline="parallel", settings=Settings(max_parallel=2), backend=backend)

    assert (one, backend.max_active) == (1, 2)


async def test_settings_reach_the_request():
    settings = Settings(
        model="m", num_ctx=512, keep_alive="1m", think=False, temperature=0.1, idle_timeout=3, first_token_timeout=None
    )
    backend = ScriptedBackend()

    await run("why", pipeline="answer", settings=settings, backend=backend)

    (request,) = backend.requests
    assert (request.model, request.num_ctx, request.keep_alive, request.think) == ("m", 512, "1m", False)
    assert request.temperature == 0.4, "the agent's own temperature wins"
    assert (request.timeouts.idle, request.timeouts.first_token) == (3, None)


LIMITS = """version: 1
name: limits
inputs: {query: {required: true}}
agents: {mine: {prompt: You write., max_tokens: 70}}
steps:
  plan: {agent: planner, prompt: "{{ inputs.query }}"}
  own: {agent: mine, prompt: "{{ inputs.query }}"}
  named: {agent: editor, max_tokens: 80, prompt: "{{ inputs.query }}"}
  prose: {agent: editor, prompt: "{{ inputs.query }}"}
result: "{{ steps.prose }}"
"""


@pytest.mark.parametrize(("limit", "prose"), [(None, 512), (50, 50), (2000, 2000)])
async def test_a_limit_of_the_settings_holds_for_prose_of_a_shipped_agent(limit: int | None, prose: int) -> None:
    backend = ScriptedBackend()
    settings = Settings(backend="scripted", max_tokens=limit)
    await run("why", pipeline=Pipeline.parse(LIMITS), settings=settings, backend=backend)
    asked = {request.tag: request.max_tokens for request in backend.requests}
    assert asked == {"plan": 384, "own": 70, "named": 80, "prose": prose}


async def test_a_failed_call_is_asked_again_as_the_settings_say():
    backend = ScriptedBackend([Failure("crash"), "fine"])

    result = await run("why", pipeline="answer", settings=Settings(retries=1), backend=backend)

    assert result.answer == "fine"
    assert result.steps[0].attempts == 2


async def test_the_persons_defaults_for_inputs_are_used():
    plan = await Session(Settings(backend="scripted", pipeline_inputs={"rounds": 3, "other": 1})).plan("q")

    assert plan.inputs["rounds"] == 3


async def test_planning_calls_no_model():
    backend = ScriptedBackend()

    plan = await Session(SCRIPTED, backend=backend).plan("why", pipeline="research", inputs={"rounds": 2})

    assert backend.requests == []
    assert plan.route.reason == "given by the caller"
    json.dumps(plan.to_dict())


async def test_a_turn_sees_the_conversation():
    backend = ScriptedBackend()
    turns = [Message("user", "what is iron?"), Message("assistant", "A metal.")]

    await run("and its colour?", settings=SCRIPTED, backend=backend, conversation=turns)

    assert backend.requests[0].messages[-1].content == (
        "Earlier in this conversation:\nPerson: what is iron?\nYou: A metal.\n\nand its colour?"
    )


class Slow(ScriptedBackend):
    """A backend that has to start first, and reports."""

    def __init__(self, report: Reporter) -> None:
        super().__init__()
        self.report = report
        self.started = 0
        self.capabilities = replace(self.capabilities, start=self.start)

    async def start(self) -> None:
        self.started += 1
        self.report(BackendNotice("slow", "starting"))


async def test_a_backend_that_must_start_is_started_before_the_first_call():
    heard = []
    session = Session(SCRIPTED, on_event=heard.append)
    backend = Slow(session._report)
    session._opened.given = backend

    await session.run("why")

    assert backend.started == 1
    assert isinstance(heard[0], BackendReported)


@pytest.mark.parametrize(
    ("steps", "starts"),
    [
        ("{end: {ask: Which?, default: Bern}}", 0),
        ("{end: {ask: Which?, default: Bern, repeat: {self: true, max: 2}}}", 0),
        ("{end: {agent: editor, prompt: x, backend: scripted}}", 0),
        ("{end: {agent: editor, prompt: x, repeat: {self: true, max: 2}}}", 1),
        ("{end: {repeat: {max: 2, steps: {one: {agent: editor, prompt: x}}}}}", 1),
        ("{end: {use: answer, with: {query: x}, repeat: {self: true, max: 2}}}", 1),
    ],
)
async def test_a_backend_that_must_start_is_started_only_where_a_step_calls_it(steps: str, starts: int):
    backend = Slow(lambda _: None)
    text = f"version: 1\nname: demo\nsteps: {steps}\nresult: '{{{{ steps.end }}}}'\n"
    async with Session(SCRIPTED, backend=backend) as session:
        result = await session.run(pipeline=Pipeline.parse(text))

    assert result.status == "succeeded"
    assert backend.started == starts


async def test_a_handler_of_one_run_hears_that_run_only():
    heard = []
    async with Session(SCRIPTED) as session:
        await session.run("one", on_event=heard.append)
        count = len(heard)
        await session.run("two")

    assert len(heard) == count


async def test_the_document_of_a_run_is_json_with_the_contracts_keys():
    document = run_document(await run("why", pipeline="parallel", settings=SCRIPTED))

    json.dumps(document)
    assert set(document) >= {"run_id", "status", "answer", "steps", "usage", "stop_reason"}
    keys = {
        "id",
        "agent",
        "status",
        "model",
        "backend",
        "node",
        "attempts",
        "usage",
        "started_at",
        "ended_at",
        "output",
    }
    assert all(set(step) >= keys for step in document["steps"])
    assert document["started_at"].endswith("+00:00")


async def test_the_document_of_a_failed_run_says_what_failed():
    backend = ScriptedBackend([Failure("rejected")])
    document = run_document(await run("why", settings=SCRIPTED, backend=backend))

    assert document["status"] == "failed"
    assert document["error"]["type"] == "RequestRejected"


async def test_a_skipped_step_has_no_times_in_the_document():
    backend = ScriptedBackend({"critique": {"issues": ["nothing is wrong with it"], "missing": [], "score": 0.9}})
    document = run_document(await run("why", pipeline="research", settings=SCRIPTED, backend=backend))

    (refine,) = [step for step in document["steps"] if step["id"] == "refine"]
    assert (refine["status"], refine["started_at"]) == ("skipped", None)


async def test_a_backend_that_is_not_there_is_raised_before_the_run():
    settings = Settings(nodes=[{"url": "http://127.0.0.1:9"}])

    with pytest.raises(BackendUnavailable):
        await run("why", settings=settings)


async def test_a_wrapped_backend_is_started_and_sized_and_prepared_as_if_it_stood_alone():
    sized, prepared = [], []
    backend = Slow(lambda _: None)
    backend.capabilities = replace(
        backend.capabilities, resize=lambda calls: sized.append(calls) or 2, prepare=prepared.append
    )

    await Session(SCRIPTED, backend=BackendWrapper(backend)).run("why", pipeline="research")

    assert backend.started == 1
    assert len(sized) == 1
    assert backend.max_active <= 2
    assert prepared


async def test_settings_are_loaded_when_none_are_given(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".synapticllamas.json").write_text('{"backend": "scripted", "pipeline": "answer"}')

    assert (await run("hello")).answer == "hello"


def test_everything_public_is_there_and_listed():
    assert list(synaptic.__all__) == sorted(synaptic.__all__)
    for name in synaptic.__all__:
        assert getattr(synaptic, name) is not None
    assert set(synaptic.__all__) <= set(dir(synaptic))
    with pytest.raises(AttributeError, match="nothing"):
        _ = synaptic.nothing


async def test_a_delta_without_anything_is_no_token():
    class Empty(ScriptedBackend):
        async def stream(self, request):
            yield Delta()
            yield Delta("x")
            yield Finished("stop")

    heard = []
    result = await run("why", settings=SCRIPTED, backend=Empty(), on_event=heard.append)

    assert result.answer == "x"
    assert sum(isinstance(event, TokenDelta) for event in heard) == 1


STEADY = """\
version: 1
name: steady
inputs: {n: {}}
steps: {s: {agent: mine, prompt: "{{ inputs.n }}"}}
result: "{{ steps.s }}"
"""


async def test_a_steady_session_plans_once_for_many_inputs():
    asked = Pipeline.parse(STEADY)
    async with Session(Settings(backend="scripted"), steady={"mine": Agent(name="mine", prompt="Write.")}) as session:
        first = await session.plan(pipeline=asked, inputs={"n": "one"}, model="m")
        second = await session.plan(pipeline=asked, inputs={"n": "two"}, model="m")
        other = await session.plan(pipeline=asked, inputs={"n": "two"}, model="o")
        results = [await session.run(pipeline=asked, inputs={"n": word}, model="o") for word in ("x", "y")]
        with pytest.raises(UsageError, match="input"):
            await session.run(pipeline=asked, inputs={"m": "x"}, model="o")
        with pytest.raises(PipelineError, match="writer"):
            await session.plan(pipeline=Pipeline.parse(STEADY.replace("mine", "writer")))

    assert first.compiled is second.compiled is not other.compiled
    assert (first.inputs, second.inputs) == ({"n": "one"}, {"n": "two"})
    assert [other.route.model, *(result.answer for result in results)] == ["o", "x", "y"]


@pytest.mark.parametrize("pool", [True, False])
async def test_a_default_model_that_is_gone_is_not_named_any_more(pool):
    async with FaultyNode(models=["big", "tiny"]) as node:
        settings = Settings(nodes=[node.url], pipeline="answer", task_distribution_enabled=pool, journal="off")
        async with Session(settings) as session:
            gone = (await session.route()).model
            assert gone is not None
            del node.config.models[gone.removesuffix(":latest")]
            await session.run("why?")
            (left,) = node.config.models
            async with asyncio.timeout(30):
                while (await session.route()).model != f"{left}:latest":
                    await asyncio.sleep(0.02)  # a pool asks the node again in its own time
            assert (await session.run("why?")).status == "succeeded"
