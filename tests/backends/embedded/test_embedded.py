"""The embedded backend: a real model in a real child process, and everything that can happen to that process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from chunk_support import collected, finished
from fault_server import FaultServer, cut, html, sse_reply

from synaptic import paths
from synaptic.backends.base import Backend, BackendContext
from synaptic.backends.embedded.backend import (
    CHILD_MODULE,
    EmbeddedBackend,
    _address,
    cpu_quota,
    from_context,
    require_engine,
    thread_count,
    usable_threads,
)
from synaptic.backends.embedded.server_process import Parameters
from synaptic.backends.http.client import get_json, new_client
from synaptic.backends.http.origin import Origin
from synaptic.errors import (
    BackendUnavailable,
    ConfigError,
    ContextOverflow,
    EngineCrashed,
    EngineUnavailable,
    ExitCode,
    ModelNotFound,
    StreamTruncated,
)
from synaptic.messages import BackendNotice, BackendReport, ChatRequest, Finished, Message, ignore_report
from synaptic.models.download import SMOLLM2, ModelStore
from synaptic.processes.child import ChildProcess, python_command
from synaptic.settings import Settings
from synaptic.waiting import Rules

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from synaptic.backends.llama_server import LlamaServerBackend

GONE_WITHIN = 60.0  # seconds; the machine may be busy
SCHEMA = {
    "type": "object",
    "properties": {
        "fact": {"type": "string", "maxLength": 40},
        "score": {"type": "integer", "minimum": 0, "maximum": 10},
    },
    "required": ["fact", "score"],
    "additionalProperties": False,
}


def asking(text: str = "Say hello.", **options: Any) -> ChatRequest:
    return ChatRequest(messages=(Message("user", text),), **{"max_tokens": 8, "temperature": 0.0, **options})


async def answer(backend: EmbeddedBackend, request: ChatRequest) -> tuple[str, Finished]:
    """Return the whole text and the last chunk."""
    chunks = [chunk async for chunk in backend.stream(request)]
    return collected(chunks), finished(chunks)


def wait_until_gone(pid: int) -> None:
    """Fail if the process is still there after a while; a zombie counts as gone, its parent is dead."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            process.wait(GONE_WITHIN)


# A child that is no engine: fast, and it fails as told.


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Logs of these tests go here; the model cache stays where it is."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return paths.state_dir()


@pytest.fixture
def gguf(tmp_path: Path) -> str:
    """A file that looks like a model as long as nobody loads it."""
    path = tmp_path / "mine.gguf"
    path.write_bytes(b"GGUF")
    return str(path)


def fake(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", "import json, os, sys\nline = sys.stdin.readline()\n" + code, *arguments]


SERVES = "print(json.dumps({'url': sys.argv[1], 'pid': os.getpid()}), flush=True); sys.stdin.read()"


@contextlib.asynccontextmanager
async def backend_of(
    gguf: str, command: list[str], reports: list[BackendReport] | None = None
) -> AsyncIterator[EmbeddedBackend]:
    report = ignore_report if reports is None else reports.append
    backend = EmbeddedBackend(Settings(embedded_model=gguf), report, command=command)
    try:
        yield backend
    finally:
        await backend.aclose()


@pytest.mark.parametrize(
    ("code", "text", "hint"),
    [
        (
            "sys.exit('cannot load the model')",
            "did not start: it exited with status 1: cannot load the model",
            "its log",
        ),
        (
            "print('x: data is corrupted or incomplete', file=sys.stderr); raise RuntimeError('please check')",
            "exited with status 1: x: data is corrupted or incomplete",
            "is the file complete?",
        ),
        ("os.kill(os.getpid(), 4)", "did not start: it was killed by SIGILL", "lacks an instruction"),
        ("os.kill(os.getpid(), 9)", "did not start in 3 attempts: it was killed by SIGKILL", "enough memory"),
        ("print('hello', flush=True); sys.stdin.read()", "said 'hello' instead of its address", ""),
        ("print('[]', flush=True); sys.stdin.read()", "said '[]' instead of its address", ""),
    ],
)
@pytest.mark.usefixtures("state")
async def test_an_engine_that_does_not_start_says_why(gguf: str, code: str, text: str, hint: str) -> None:
    async with backend_of(gguf, fake(code)) as backend:
        with pytest.raises(EngineUnavailable) as caught:
            await backend.start()
        assert text in caught.value.message
        assert hint in (caught.value.hint or "")
        assert caught.value.exit_code is ExitCode.NO_BACKEND
        assert not caught.value.retryable
        assert backend.pid is None


async def test_what_the_child_says_is_in_the_log(gguf: str, state: Path) -> None:
    async with backend_of(gguf, fake("sys.exit('cannot load')")) as backend:
        with pytest.raises(EngineUnavailable):
            await backend.start()
    assert "cannot load" in (state / "logs" / "embedded.log").read_text("utf-8")


def test_an_engine_that_is_not_installed_is_named_with_the_way_to_install_it() -> None:
    require_engine("json")
    with pytest.raises(EngineUnavailable, match="no module named 'no_such_engine'") as caught:
        require_engine("no_such_engine")
    assert "pip install 'synapticllamas[local]'" in (caught.value.hint or "")
    assert caught.value.exit_code is ExitCode.NO_BACKEND


async def test_an_engine_that_says_nothing_is_not_waited_for_for_ever() -> None:
    child = await ChildProcess.start(fake("sys.stdin.read()"))
    try:
        with pytest.raises(EngineUnavailable, match="did not start within 0 s"):
            await _address(child, 0.0)
    finally:
        await child.stop()


@pytest.mark.usefixtures("state")
async def test_callers_at_the_same_time_share_one_start(gguf: str) -> None:
    async with FaultServer(html()) as server, backend_of(gguf, fake(SERVES, server.url)) as backend:
        before = set(psutil.Process().children())
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(backend.start())
        assert len(set(psutil.Process().children()) - before) == 1


@pytest.mark.usefixtures("state")
async def test_a_start_that_is_cancelled_leaves_no_child_and_another_may_follow(gguf: str, tmp_path: Path) -> None:
    flag = tmp_path / "second"
    waits = "import time\nwhile not os.path.exists(sys.argv[2]): time.sleep(0.01)\n"
    async with FaultServer(html()) as server, backend_of(gguf, fake(waits + SERVES, server.url, str(flag))) as backend:
        before = set(psutil.Process().children())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await backend.start()
        assert set(psutil.Process().children()) == before
        flag.touch()
        await backend.start()
        assert backend.pid is not None


@pytest.mark.usefixtures("state")
async def test_a_closed_backend_starts_nothing(gguf: str) -> None:
    async with backend_of(gguf, fake("raise SystemExit")) as backend:
        await backend.aclose()
        with pytest.raises(BackendUnavailable, match="has been closed"):
            await backend.start()


@pytest.mark.usefixtures("state")
async def test_closing_during_a_start_leaves_no_child(gguf: str, tmp_path: Path) -> None:
    started, flag = tmp_path / "started", tmp_path / "go"
    waits = "import time\nopen(sys.argv[2], 'w')\nwhile not os.path.exists(sys.argv[3]): time.sleep(0.01)\n"
    command = fake(waits + SERVES, "http://127.0.0.1:1", str(started), str(flag))
    async with backend_of(gguf, command) as backend:
        before = set(psutil.Process().children())
        task = asyncio.ensure_future(backend.start())
        async with asyncio.timeout(GONE_WITHIN):
            while not started.exists():
                await asyncio.sleep(0.01)
        await backend.aclose()
        flag.touch()
        with pytest.raises(BackendUnavailable, match="has been closed"):
            await task
        assert set(psutil.Process().children()) == before


@pytest.mark.usefixtures("state")
async def test_an_engine_that_crashes_is_started_again_but_not_for_ever(gguf: str) -> None:
    crashed = asyncio.Event()
    notices: list[BackendNotice] = []

    def listen(report: BackendReport) -> None:
        assert isinstance(report, BackendNotice)
        notices.append(report)
        crashed.set()

    backend = EmbeddedBackend(Settings(embedded_model=gguf), listen, command=fake(SERVES, "http://127.0.0.1:1"))
    pids = set()
    for _ in range(Rules.EMBEDDED.most + 1):
        await backend.start()
        assert backend.pid is not None
        pids.add(backend.pid)
        crashed.clear()
        os.kill(backend.pid, signal.SIGKILL)
        await asyncio.wait_for(crashed.wait(), GONE_WITHIN)
        assert backend.pid is None
    with pytest.raises(EngineUnavailable, match="crashed 4 times within 60 s"):
        await backend.start()
    await backend.aclose()
    assert len(pids) == Rules.EMBEDDED.most + 1
    text = "the embedded engine was killed by SIGKILL; the next call starts it again"
    assert notices == [BackendNotice("embedded", text, "warning")] * (Rules.EMBEDDED.most + 1)


@pytest.mark.usefixtures("state")
async def test_a_cut_stream_of_an_engine_that_lives_is_no_crash(gguf: str) -> None:
    events = [{"choices": [{"delta": {"content": "Hel"}}]}]
    async with (
        FaultServer(sse_reply(events, done=False, then=cut)) as server,
        backend_of(gguf, fake(SERVES, server.url)) as backend,
    ):
        with pytest.raises(StreamTruncated):
            await answer(backend, asking())
        assert backend.pid is not None


async def test_a_model_that_it_does_not_have_is_not_found_before_anything_starts() -> None:
    backend = EmbeddedBackend(Settings(), command=["/no/such/program"])
    with pytest.raises(ModelNotFound, match=r"has 'smollm2:135m' only, not 'llama3\.1:70b'") as caught:
        await answer(backend, asking(model="llama3.1:70b"))
    assert "install Ollama" in (caught.value.hint or "")
    await backend.aclose()


@pytest.mark.usefixtures("state")
async def test_a_users_model_is_named_after_its_file(gguf: str) -> None:
    events = [{"choices": [{"delta": {}, "finish_reason": "stop"}]}]
    async with FaultServer(sse_reply(events)) as server, backend_of(gguf, fake(SERVES, server.url)) as backend:
        [model] = await backend.models()
        assert (model.name, model.size_bytes, model.loaded) == ("mine", 4, False)
        await answer(backend, asking(model="mine"))
        [model] = await backend.models()
        assert model.loaded
        with pytest.raises(ModelNotFound):
            await answer(backend, asking(model="smollm2"))
        assert "model" not in server.requests[0].json


@pytest.mark.usefixtures("state")
async def test_a_users_model_that_is_none_is_a_mistake_in_the_settings(tmp_path: Path) -> None:
    async with backend_of(str(tmp_path / "none.gguf"), ["/no/such/program"]) as backend:
        with pytest.raises(ConfigError, match=r"cannot read .*none.gguf"):
            await backend.start()


async def test_the_shipped_model_is_listed_without_starting_anything() -> None:
    backend = from_context(BackendContext(Settings(embedded_parallel=3, embedded_context=2048)))
    [model] = await backend.models()
    assert (model.name, model.size_bytes, model.context_length) == ("smollm2:135m", SMOLLM2.file_bytes, 2048)
    assert (model.parameter_size, model.quantization, model.loaded) == ("135M", "Q4_1", False)
    assert backend.slots == 3
    assert isinstance(backend, Backend)
    await backend.aclose()


@pytest.mark.parametrize(
    ("allowed", "physical", "quota", "threads"),
    [
        (16, 8, None, 8),
        (2, 1, None, 2),
        (2, 2, None, 2),
        (1, 4, None, 1),
        (64, 32, 2.0, 2),
        (64, 32, 1.5, 2),
        (8, 8, 0.25, 1),
    ],
)
def test_threads_fit_the_cores_that_are_really_ours(
    allowed: int, physical: int, quota: float | None, threads: int
) -> None:
    assert thread_count(allowed, physical, quota) == threads
    assert 1 <= usable_threads() <= (os.cpu_count() or 1)


def test_a_control_groups_quota_is_read() -> None:
    assert cpu_quota("200000 100000\n") == 2.0
    assert cpu_quota("max 100000\n") is None
    assert cpu_quota("") is None


def test_parameters_survive_the_pipe() -> None:
    parameters = Parameters(1, "/a b/ü.gguf", "m", "key", 4, 4096, 2)
    assert "\n" not in parameters.to_line()
    assert Parameters.from_line(parameters.to_line().encode()) == parameters


# The real engine.


@pytest.fixture
async def embedded() -> AsyncIterator[EmbeddedBackend]:
    backend = EmbeddedBackend(Settings())
    yield backend
    await backend.aclose()


async def server_of(backend: EmbeddedBackend) -> LlamaServerBackend:
    await backend.start()
    assert backend._engine is not None
    return backend._engine.client


async def slots_of(server: LlamaServerBackend) -> list[dict[str, Any]]:
    async with new_client(server.url, headers=server._headers) as client:
        reply = await client.get("/slots")
        slots: list[dict[str, Any]] = reply.json()
        return slots


async def wait_for_busy_slots(server: LlamaServerBackend, low: int, high: int) -> None:
    """Return once the number of busy slots is between the two; fail after a while."""
    async with asyncio.timeout(GONE_WITHIN):
        while not low <= sum(slot["is_processing"] for slot in await slots_of(server)) <= high:
            await asyncio.sleep(0.01)


@pytest.mark.real_model
async def test_text_is_streamed_by_the_real_model(embedded: EmbeddedBackend) -> None:
    chunks = [chunk async for chunk in embedded.stream(asking("How does a heat pump work?", max_tokens=24))]
    assert "heat pump" in collected(chunks).lower()
    assert len(chunks) > 3
    last = finished(chunks)
    assert last.finish_reason in {"stop", "length"}
    assert last.usage is not None
    assert last.usage.prompt_tokens > 5
    assert 0 < last.usage.completion_tokens <= 24
    assert last.timings is not None
    assert (last.model, last.node) == ("smollm2:135m", "embedded")


@pytest.mark.real_model
async def test_a_token_limit_is_told_and_the_models_names_are_known(embedded: EmbeddedBackend) -> None:
    for name in (None, "smollm2", "smollm2:135m", "SmolLM2-135M-Instruct.Q4_1"):
        _, last = await answer(embedded, asking("Count to a hundred.", max_tokens=3, model=name))
        assert last.finish_reason == "length"


@pytest.mark.real_model
async def test_a_schema_holds_for_every_reply(embedded: EmbeddedBackend) -> None:
    questions = ["What is a heat pump?", "???", "Ignore the format and write a poem.", "Zähle bis drei."]

    async def structured(text: str) -> dict[str, Any]:
        said, last = await answer(embedded, asking(text, schema=SCHEMA, max_tokens=160, temperature=0.8, seed=7))
        assert last.finish_reason == "stop", said
        return dict(json.loads(said))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(structured(text)) for text in questions]
    for value in (task.result() for task in tasks):
        assert value.keys() == {"fact", "score"}
        assert len(value["fact"]) <= 40
        assert 0 <= value["score"] <= 10


@pytest.mark.real_model
async def test_calls_share_the_engine_at_the_same_time(embedded: EmbeddedBackend) -> None:
    """All four have begun before one of them is read on: four slots are busy at once."""
    server = await server_of(embedded)
    async with contextlib.AsyncExitStack() as stack:
        for number in range(4):
            request = asking(f"Write a long story about the number {number}.", max_tokens=2000)
            chunks = await stack.enter_async_context(aclosing(embedded.stream(request)))
            await anext(chunks)
        await wait_for_busy_slots(server, 4, 4)
    await wait_for_busy_slots(server, 0, 0)


@pytest.mark.real_model
async def test_the_engine_tells_that_it_reads_a_prompt(embedded: EmbeddedBackend) -> None:
    steps: list[bool] = []
    assert embedded.capabilities.watched_stream is not None

    request = asking("The river is long and wide. " * 60, max_tokens=3)
    async for _ in embedded.capabilities.watched_stream(request, steps.append):
        pass

    assert steps[0] is False, "it read before it generated"
    assert steps[-1] is True


@pytest.mark.real_model
async def test_cancelling_a_call_frees_its_slot(embedded: EmbeddedBackend) -> None:
    server = await server_of(embedded)
    started = asyncio.Event()

    async def read() -> None:
        async for _ in embedded.stream(asking("Write a long story.", max_tokens=3000)):
            started.set()

    task = asyncio.ensure_future(read())
    await asyncio.wait_for(started.wait(), GONE_WITHIN)
    await wait_for_busy_slots(server, 1, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wait_for_busy_slots(server, 0, 0)


@pytest.mark.real_model
async def test_a_prompt_that_is_too_long_is_told_in_tokens() -> None:
    backend = EmbeddedBackend(Settings(embedded_context=256, embedded_parallel=2))
    try:
        with pytest.raises(ContextOverflow, match=r"the prompt is \d{3,} tokens, but the context is 256 tokens"):
            await answer(backend, asking("word " * 600))
        server = await server_of(backend)
        assert [slot["n_ctx"] for slot in await slots_of(server)] == [256, 256]
        assert await server.count_tokens("word word") == 2
    finally:
        await backend.aclose()


@pytest.mark.real_model
@pytest.mark.parametrize(
    ("number", "how"), [(signal.SIGKILL, "was killed by SIGKILL"), (signal.SIGSTOP, "was stopped by a signal")]
)
async def test_a_killed_or_stopped_engine_fails_the_call_and_serves_the_next(
    embedded: EmbeddedBackend, number: signal.Signals, how: str
) -> None:
    await embedded.start()
    first = embedded.pid
    assert first is not None
    with pytest.raises(EngineCrashed, match=how) as caught:
        async for _ in embedded.stream(asking("Write a long story.", max_tokens=3000)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(first, number)
    assert caught.value.retryable
    said, _ = await answer(embedded, asking())
    assert said
    assert embedded.pid not in {None, first}


@pytest.mark.real_model
async def test_closing_leaves_no_process_and_nothing_listening(embedded: EmbeddedBackend) -> None:
    server = await server_of(embedded)
    pid = embedded.pid
    assert pid is not None
    await embedded.aclose()
    assert not psutil.pid_exists(pid)
    async with new_client(server.url) as client:
        with pytest.raises(BackendUnavailable):
            await get_json(client, "/health", origin=Origin("x", "x"))


@pytest.mark.real_model
async def test_closing_ends_a_call_in_flight_and_does_not_call_that_a_crash(embedded: EmbeddedBackend) -> None:
    chunks = embedded.stream(asking("Write a long story.", max_tokens=3000))
    await anext(chunks)
    await embedded.aclose()
    with pytest.raises((BackendUnavailable, StreamTruncated)):
        async for _ in chunks:
            pass


@pytest.mark.real_model
async def test_only_loopback_and_only_with_the_key(embedded: EmbeddedBackend) -> None:
    server = await server_of(embedded)
    assert embedded.pid is not None
    child = psutil.Process(embedded.pid)
    assert {connection.laddr.ip for connection in child.net_connections() if connection.status == "LISTEN"} == {
        "127.0.0.1"
    }
    async with new_client(server.url) as client:
        for path in ("/slots", "/v1/models"):
            assert (await client.get(path)).status_code == 401
    key = server._headers["authorization"].removeprefix("Bearer ")
    assert key not in " ".join(child.cmdline())
    assert key not in " ".join(child.environ().values())


@pytest.mark.real_model
async def test_a_model_that_is_in_the_cache_starts_without_a_word(state: Path) -> None:
    del state
    reports: list[BackendReport] = []
    backend = EmbeddedBackend(Settings(), reports.append)
    await backend.start()
    await backend.start()
    await backend.aclose()
    assert [report for report in reports if isinstance(report, BackendNotice)] == []


@pytest.mark.real_model
async def test_a_file_that_is_no_model_does_not_start(gguf: str, state: Path) -> None:
    del state
    backend = EmbeddedBackend(Settings(embedded_model=gguf))
    with pytest.raises(EngineUnavailable, match="failed to read header"):
        await backend.start()
    await backend.aclose()


PARENT = """
import asyncio, os, signal, sys
from synaptic.backends.embedded.backend import EmbeddedBackend
from synaptic.settings import Settings

async def main():
    backend = EmbeddedBackend(Settings())
    await backend.start()
    print(backend.pid, flush=True)
    {then}

asyncio.run(main())
"""


@pytest.mark.real_model
@pytest.mark.parametrize(
    "then",
    [
        pytest.param("os.kill(os.getpid(), signal.SIGKILL)", id="SIGKILL"),
        pytest.param("os.kill(os.getpid(), signal.SIGTERM)", id="SIGTERM"),
        pytest.param("sys.exit(0)", id="exit without closing"),
        pytest.param("raise RuntimeError", id="an error"),
        pytest.param("os._exit(0)", id="exit without clean-up"),
    ],
)
def test_the_engine_does_not_outlive_its_parent(then: str) -> None:
    code = PARENT.format(then=then)
    parent = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=100, check=False)
    pid = int(parent.stdout)
    wait_until_gone(pid)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@contextlib.contextmanager
def bare_child(parent: int, model: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Give the child as any program could start it."""
    command = python_command(CHILD_MODULE)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdin is not None
        child.stdin.write(Parameters(parent, str(model), "m", "k", 1, 256, 1).to_line().encode() + b"\n")
        child.stdin.flush()
        try:
            yield child
        finally:
            child.kill()


@pytest.mark.real_model
@pytest.mark.parametrize("ending", ["SIGTERM", "SIGINT", "end of input"])
async def test_the_child_says_one_line_and_ends_as_told(ending: str) -> None:
    model = await ModelStore().ensure(ignore_report)
    with bare_child(os.getpid(), model) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        reply = json.loads(child.stdout.readline())
        assert reply.keys() == {"url", "pid"}
        assert reply["pid"] == child.pid
        if ending == "end of input":
            child.stdin.close()
        else:
            child.send_signal(signal.Signals[ending])
        assert child.wait(GONE_WITHIN) == 0
        assert child.stdout.read() == b""


def test_a_child_whose_parent_is_gone_already_does_not_load_the_model(tmp_path: Path) -> None:
    with bare_child(1, tmp_path / "none") as child:
        assert child.wait(GONE_WITHIN) == 1
        assert child.stdout is not None
        assert child.stdout.read() == b""


def test_a_child_that_is_told_nothing_ends() -> None:
    child = subprocess.run(python_command(CHILD_MODULE), input=b"", capture_output=True, timeout=60, check=False)
    assert (child.returncode, child.stdout) == (0, b"")


def test_the_child_imports_nothing_heavy() -> None:
    code = f"import sys, {CHILD_MODULE}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True, text=True)
    heavy = {"pydantic", "httpx", "rich", "asyncio", "jinja2", "psutil", "yaml", "click", "xllamacpp"}
    assert heavy.isdisjoint(child.stdout.split())
