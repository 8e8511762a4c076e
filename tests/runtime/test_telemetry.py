"""Telemetry as a receiver gets it: OpenTelemetry's own collector, and a server that decodes the messages."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import aiohttp
import pytest
from cli_support import ECHO, SCRIPTED, node, ollama, run_process
from fault_server import FaultServer, before_headers, hang, ollama_reply, respond
from gateway_support import gateway
from ollama_nodes import SERVING
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from otlp_receivers import decoding_server, real_collector
from run_support import AGENTS, pipeline

from synaptic.backends import ScriptedBackend
from synaptic.bounded_names import MOST_LABELS
from synaptic.errors import ConfigError
from synaptic.messages import BackendNotice, Usage
from synaptic.runtime import BackendReported, RequestEnd, RunStarted, Session
from synaptic.runtime.telemetry import conventions
from synaptic.runtime.telemetry.otlp import Telemetry
from synaptic.runtime.telemetry.switch import CAPTURE, open_telemetry
from synaptic.server.ollama_api import ServeSettings
from synaptic.settings import Settings
from synaptic.trace_context import TRACEPARENT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from otlp_receivers import Receiver

STEPS = "  a: {agent: writer, prompt: 'about {{ inputs.query }}'}\n  end: {agent: writer, prompt: '{{ steps.a }}'}\n"
QUESTION = {"messages": [{"role": "user", "content": "why"}], "stream": False}
CLIENT_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CLIENT_SPAN = "00f067aa0ba902b7"
CLIENT = f"00-{CLIENT_TRACE}-{CLIENT_SPAN}-01"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SERVICE_NAME", "OTEL_SDK_DISABLED", CAPTURE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["decoded", "collector"])
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    with decoding_server() if request.param == "decoded" else real_collector() as found:
        yield found


@pytest.fixture
def decoded() -> Iterator[Receiver]:
    with decoding_server() as found:
        yield found


def to(url: str, **more: object) -> Settings:
    return Settings.model_validate({"telemetry": "otlp", "telemetry_endpoint": url, "retries": 0, **more})


async def one_run(settings: Settings, backend: ScriptedBackend | None = None) -> list[BackendNotice]:
    """Make a run, and return what the session had to say."""
    said: list[BackendNotice] = []

    def heard(event: object) -> None:
        if isinstance(event, BackendReported) and isinstance(event.report, BackendNotice):
            said.append(event.report)

    async with Session(settings, backend=backend or ScriptedBackend(), agents=AGENTS, on_event=heard) as session:
        result = await session.run("the secret question", pipeline=pipeline(STEPS))
        assert result.status == "succeeded"
    return said


async def test_a_run_is_a_trace_and_its_calls_are_measured(receiver: Receiver) -> None:
    assert await one_run(to(receiver.url)) == []

    told = receiver.told(lambda told: len(told.spans) >= 5 and told.metrics)

    run, calls = told.span("invoke_workflow demo"), [span for span in told.spans if span.name == "chat scripted"]
    agents = {span.id: span for span in told.spans if span.name == "invoke_agent writer"}
    assert len(told.spans) == 5
    assert {span.trace for span in told.spans} == {run.trace}
    assert run.parent == ""
    assert {span.parent for span in agents.values()} == {run.id}
    assert {span.parent for span in calls} == set(agents)
    assert all(span.kind == "client" and span.seconds <= agents[span.parent].seconds for span in calls)
    assert run.resource["service.name"] == "synapticllamas"
    call = calls[0].attributes
    assert (call["gen_ai.operation.name"], call["gen_ai.response.finish_reasons"]) == ("chat", ["stop"])
    usage = told.metrics["gen_ai.client.token.usage"]
    assert {point["attributes"]["gen_ai.token.type"] for point in usage} == {"input", "output"}
    assert sum(point["sum"] for point in usage) == sum(
        span.attributes["gen_ai.usage.input_tokens"] + span.attributes["gen_ai.usage.output_tokens"] for span in calls
    )
    assert tuple(usage[0]["bounds"]) == conventions.TOKEN_USAGE.bounds
    (duration,) = told.metrics["gen_ai.client.operation.duration"]
    assert (duration["count"], duration["unit"]) == (2, "s")
    assert tuple(duration["bounds"]) == conventions.DURATION.bounds
    assert "secret" not in told.text


@pytest.mark.parametrize("by", ["setting", "variable"])
async def test_content_is_told_where_it_is_wanted(decoded: Receiver, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    if by == "variable":
        monkeypatch.setenv(CAPTURE, "SPAN_ONLY")

    await one_run(to(decoded.url, telemetry_content=by == "setting"))

    call = decoded.told(lambda told: len(told.spans) == 5).span("invoke_workflow demo").attributes
    assert "the secret question" in call["gen_ai.input.messages"]
    assert json.loads(call["gen_ai.output.messages"])[0]["role"] == "assistant"


async def test_secrets_are_told_nowhere(decoded: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_TOKEN", "the secret question")
    nodes = [{"url": "http://127.0.0.1:9", "token_env": "NODE_TOKEN"}]

    await one_run(to(decoded.url, telemetry_content=True, nodes=nodes))

    told = decoded.told(lambda told: len(told.spans) == 5)
    assert "secret question" not in told.text
    assert "about " in told.text


async def test_the_standard_variables_name_the_collector_and_the_service(
    decoded: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", decoded.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "the house")

    await one_run(Settings(telemetry="otlp"))

    assert decoded.told().spans[0].resource["service.name"] == "the house"


async def test_a_library_s_own_span_is_around_the_run(decoded: Receiver) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("a program")
    with tracer.start_as_current_span("the program's own") as own:
        await one_run(to(decoded.url))

    run = decoded.told(lambda told: len(told.spans) == 5).span("invoke_workflow demo")
    assert run.parent == f"{own.get_span_context().span_id:016x}"
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_a_trace_goes_from_a_client_through_two_gateways(receiver: Receiver) -> None:
    """The second gateway is the first one's node: what it tells is inside the call that the first one made."""
    body = {"messages": [{"role": "user", "content": "the secret question"}], "stream": False}
    async with gateway(to(receiver.url), backend=ScriptedBackend()) as behind:
        nodes = {"nodes": [{"url": behind}], "task_distribution_enabled": True}
        async with gateway(to(receiver.url, **nodes)) as url, aiohttp.ClientSession(url) as session:
            for path, model in (("/api/chat", "scripted"), ("/v1/chat/completions", "scripted")):
                call = session.post(path, json={**body, "model": model}, headers={"traceparent": CLIENT})
                async with call as reply:
                    assert reply.status == 200, await reply.text()
            async with session.post("/api/chat", json={**body, "model": "none-such"}) as reply:
                assert reply.status == 404

    told = receiver.told(lambda told: len(told.spans) >= 5 and "gen_ai.server.request.duration" in told.metrics)
    ours = [span for span in told.spans if span.trace == CLIENT_TRACE]
    first = {span.id: span for span in ours if span.parent == CLIENT_SPAN}
    assert len(first) == 2
    assert {span.attributes["synaptic.api"] for span in first.values()} == {"ollama", "openai"}
    assert {span.parent for span in ours if span.parent != CLIENT_SPAN} == set(first)
    assert all(span.kind == "server" for span in ours)
    assert "gen_ai.server.time_to_first_token" in told.metrics
    (failed,) = [span for span in told.spans if span.error is not None]
    assert failed.attributes["error.type"] == "ModelNotFound"
    assert "secret" not in told.text


async def asked(url: str, body: dict[str, object]) -> None:
    async with (
        aiohttp.ClientSession(url) as session,
        session.post("/api/chat", json=body, headers={"traceparent": CLIENT}) as reply,
    ):
        assert reply.status == 200, await reply.text()


async def test_a_run_behind_a_gateway_is_in_the_client_s_trace_and_its_calls_are_sent_on(decoded: Receiver) -> None:
    body = {"model": "pipeline/answer", "messages": [{"role": "user", "content": "why"}], "stream": False}
    with ollama(ollama_reply(["Because."])) as server:
        chosen = to(decoded.url, nodes=[{"url": server.url}], model="tiny")
        served = gateway(chosen, serve=ServeSettings(pipelines={"answer": "answer"}))
        async with served as url:
            await asked(url, body)

    told = decoded.told(lambda told: len(told.spans) >= 4)
    request, run = told.span("chat pipeline/answer"), told.span("invoke_workflow answer")
    assert (request.trace, request.parent) == (CLIENT_TRACE, CLIENT_SPAN)
    assert (run.trace, run.parent) == (CLIENT_TRACE, request.id)
    call = next(span for span in told.spans if span.kind == "client")
    (sent,) = [each.headers["traceparent"] for each in server.requests if each.path == "/api/chat"]
    assert sent == f"00-{CLIENT_TRACE}-{call.id}-01"
    assert call.attributes["server.address"] == "127.0.0.1"
    tokens = told.metrics.get("gen_ai.client.token.usage", [])
    assert {point["attributes"]["gen_ai.provider.name"] for point in tokens} <= {"ollama", "pool"}


async def test_without_telemetry_nothing_of_a_trace_is_sent() -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "why"}], "stream": False}
    with ollama(ollama_reply(["Because."])) as server:
        async with gateway(Settings.model_validate({"nodes": [server.url]})) as url:
            await asked(url, body)
        assert [each for each in server.requests if each.path == "/api/chat"]
        assert not [each for each in server.requests if "traceparent" in each.headers]


@pytest.mark.parametrize("sent", ["", "nonsense", "00-0-0-01", CLIENT + "\x00"])
async def test_a_client_s_trace_that_is_none_begins_one(decoded: Receiver, sent: str) -> None:
    telemetry = opened(to(decoded.url))
    TRACEPARENT.set(sent)
    request = telemetry.request("ollama", "m", embeds=True)
    assert TRACEPARENT.get() not in {"", sent}
    request.ended(RequestEnd("succeeded", Usage(3), None, 0.5, None, None, False))
    await telemetry.aclose()

    (span,) = decoded.told().spans
    assert (span.name, span.parent) == ("embeddings m", "")
    assert TRACEPARENT.get() == sent


class Silent:
    """Listeners that nobody asked for."""

    def __init__(self) -> None:
        self.said: list[object] = []

    def report(self, report: object) -> None:
        self.said.append(report)

    def watch(self, begin: object) -> None:
        pass


def opened(settings: Settings, listeners: Silent | None = None) -> Telemetry:
    telemetry = open_telemetry(settings, listeners or Silent())  # type: ignore[arg-type]
    assert isinstance(telemetry, Telemetry)
    return telemetry


async def test_a_collector_that_is_not_there_is_said_once_and_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    (said,) = await one_run(to("http://127.0.0.1:9"))

    assert (said.backend, said.level) == ("telemetry", "warning")
    assert "gets no telemetry" in said.message
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []


async def test_a_collector_that_refuses_is_said_once() -> None:
    async with FaultServer(respond(403, b"no")) as server:
        (said,) = await one_run(to(server.url))

    assert "403" in said.message


async def test_a_collector_that_never_answers_keeps_no_session_open() -> None:
    """The session ends while the collector still holds the request: the end waits for a bound, not for an answer."""
    async with FaultServer(before_headers(hang)) as server:
        (said,) = await one_run(to(server.url))

        assert "did not take everything in 2 s" in said.message
        assert server.open_connections


def test_a_process_ends_well_without_its_collector() -> None:
    ended = run_process("why", *ECHO, "--set", "telemetry=otlp", "--set", "telemetry_endpoint=http://127.0.0.1:9")

    assert (ended.code, ended.out.strip() != "") == (0, True)
    assert ended.err.count("gets no telemetry") == 1
    assert "Traceback" not in ended.err


def test_the_command_line_tells(decoded: Receiver) -> None:
    with ollama(ollama_reply(["Because."])) as server:
        switched = ("--set", "telemetry=otlp", "--set", f"telemetry_endpoint={decoded.url}")
        ended = run_process("why", "-p", "answer", *node(server), *switched)

    assert ended.code == 0, ended.err
    assert decoded.told(lambda told: len(told.spans) == 3).span("invoke_workflow answer")


def test_a_batch_tells_of_its_runs(decoded: Receiver, tmp_path: Path) -> None:
    items = tmp_path / "items.jsonl"
    items.write_text('{"query": "one"}\n{"query": "two"}\n')
    switched = ("--set", "telemetry=otlp", "--set", f"telemetry_endpoint={decoded.url}")

    ended = run_process("batch", "answer", str(items), "-o", str(tmp_path / "out.jsonl"), *SCRIPTED, *switched)

    assert ended.code == 0, ended.err
    told = decoded.told(lambda told: len(told.spans) == 6)
    assert len({span.trace for span in told.spans}) == 2


async def test_a_gateway_that_is_told_to_end_tells_what_is_left(decoded: Receiver) -> None:
    """The queue is sent every 5 seconds, and metrics every minute: what comes before that comes from the end."""
    arguments = ("serve", "--port", "0", "--backend", "scripted", "--no-pipelines")
    switched = ("--set", "telemetry=otlp", "--set", f"telemetry_endpoint={decoded.url}")
    program = (sys.executable, "-m", "synaptic", *arguments, *switched)
    process = await asyncio.create_subprocess_exec(*program, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        while SERVING not in (line := (await process.stderr.readline()).decode()):
            assert line, "it has ended"
        await asked(line.partition(SERVING)[2].split()[0], {"model": "scripted", **QUESTION})
        process.terminate()
        await process.stderr.read()
        assert await process.wait() == 0
    finally:
        with suppress(ProcessLookupError):
            process.kill()

    assert decoded.told(lambda told: told.metrics).span("chat scripted").parent == CLIENT_SPAN


async def test_what_is_wrong_with_telemetry_reaches_no_run(decoded: Receiver) -> None:
    listeners = Silent()
    telemetry = opened(to(decoded.url), listeners)
    hear = telemetry.run()

    hear(object())  # type: ignore[arg-type]
    hear(RunStarted("id", None, 0.0))  # type: ignore[arg-type]
    hear(RunStarted("id", None, 0.0))  # type: ignore[arg-type]
    await telemetry.aclose()

    (said,) = listeners.said
    assert isinstance(said, BackendNotice)
    assert "AttributeError" in said.message


async def test_a_program_s_own_exporters_log_on(decoded: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    telemetry = opened(to(decoded.url))
    await telemetry.aclose()

    logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter").warning("of another")

    assert "of another" in caplog.text


async def test_no_label_gets_values_without_end(decoded: Receiver) -> None:
    telemetry = opened(to(decoded.url))
    for number in range(MOST_LABELS + 20):
        telemetry.request("ollama", f"m{number}", embeds=False).ended(
            RequestEnd("succeeded", Usage(1), None, 0.5, 0.1, None, makes_run=True)
        )
    await telemetry.aclose()

    told = decoded.told(lambda told: told.metrics)
    models = {point["attributes"]["gen_ai.request.model"] for point in told.metrics["gen_ai.server.request.duration"]}
    assert len(models) == MOST_LABELS + 1
    assert "other" in models


async def test_a_disabled_sdk_sends_nothing(decoded: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")

    assert await one_run(to(decoded.url)) == []
    assert decoded.told(lambda _: True).spans == []


def test_a_variable_that_cannot_be_used_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")

    with pytest.raises(ConfigError, match="max_queue_size") as caught:
        Session(Settings(telemetry="otlp"), backend=ScriptedBackend())

    assert "OTEL_" in (caught.value.hint or "")


async def test_what_opentelemetry_finds_wrong_is_said_without_secrets(
    decoded: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The library itself logs the headers that it cannot read, and tracebacks."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "Bearer%20the-token")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "soon")

    (said,) = await one_run(to(decoded.url))

    assert "OpenTelemetry says of its variables" in said.message
    assert "the-token" not in said.message
    assert caplog.records == []
    assert len(decoded.told(lambda told: len(told.spans) == 5).spans) == 5


def test_off_imports_nothing_and_a_missing_extra_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "opentelemetry"
    blocked.mkdir()
    (blocked / "__init__.py").write_text("raise ImportError('it is not here', name='opentelemetry')")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def ran(*more: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "synaptic", "why", *ECHO, *more]
        return subprocess.run(program, env=environ, capture_output=True, text=True, check=False)

    off, on = ran(), ran("--set", "telemetry=otlp")

    assert off.returncode == 0, off.stderr
    assert on.returncode == 2
    assert "synapticllamas[otel]" in on.stderr
    assert "Traceback" not in on.stderr


def test_a_session_without_the_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "synaptic.runtime.telemetry.otlp")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)

    with pytest.raises(ConfigError, match="opentelemetry is not installed") as caught:
        Session(Settings(telemetry="otlp"), backend=ScriptedBackend())

    assert "synapticllamas[otel]" in (caught.value.hint or "")
