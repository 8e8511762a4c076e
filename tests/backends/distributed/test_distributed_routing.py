"""The rows of the routing table with distributed inference, with real workers, and nodes that nobody may touch."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import psutil
import pytest
from cli_support import run_process
from faulty_node import FaultyNode
from real_distributed import (  # noqa: F401 - two are fixtures
    MODEL,
    TOKENS,
    Local,
    engine_in_home,
    externals,
    local_answers,
    nothing_left,
    settings_of,
    spread,
)
from rpc_support import free_port
from run_support import AGENTS, pipeline

from synaptic import Session
from synaptic.backends.pool.backend import PoolBackend
from synaptic.errors import ModelNotFound, NoPlacement
from synaptic.messages import BackendNotice
from synaptic.runtime.events import BackendReported

pytestmark = [pytest.mark.real_model, pytest.mark.usefixtures("engine_here")]


@dataclass
class Tripwire:
    """A node that nobody may connect to: whoever does waits in its queue for ever, and is seen."""

    url: str
    listener: socket.socket = field(repr=False)

    @property
    def touched(self) -> bool:
        try:
            client, _ = self.listener.accept()
        except BlockingIOError:
            return False
        client.close()
        return True


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tripwire]:
    """The only node, and the local Ollama as well; the pool fails the test when it is made."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the pool was created")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{port}")
        monkeypatch.setattr(PoolBackend, "__init__", refuse)
        tripwire = Tripwire(f"http://127.0.0.1:{port}", listener)
        yield tripwire
        assert not tripwire.touched


def test_the_tripwire_sees_who_comes():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        tripwire = Tripwire("", listener)
        assert not tripwire.touched
        socket.create_connection(listener.getsockname()).close()
        assert tripwire.touched


STEP = f"  end: {{agent: writer, prompt: '{{{{ inputs.query }}}}', temperature: 0.0, max_tokens: {TOKENS}}}"


async def run(session: Session, prompt: str) -> tuple[str, list[object]]:
    """Run one step; return its answer and what was said."""
    events: list[object] = []
    result = await session.run(prompt, pipeline=pipeline(STEP), on_event=events.append)
    assert result.status == "succeeded"
    return result.answer, events


@asynccontextmanager
async def session_over(**options: object) -> AsyncIterator[Session]:
    with nothing_left():
        async with Session(settings_of(**options), agents=AGENTS) as session:
            yield session


async def test_workers_answer_and_neither_the_pool_nor_a_node_is_touched(wire: Tripwire):
    nodes = [{"url": wire.url}]
    async with session_over(**await spread(2), nodes=nodes) as session:
        route = await session.route()
        answer, _ = await run(session, "Say what a node is.")

        assert (route.backend, route.model) == ("distributed", MODEL)
        assert "the coordinator only" in route.reason
    assert len(answer) > 10


async def test_the_program_answers_through_workers_and_touches_no_node(wire: Tripwire):
    options = {
        "distributed_inference_enabled": "true",
        "task_distribution_enabled": "false",
        "local_workers": "2",
        "local_worker_threads": "1",
        "model": MODEL,
        "nodes": f'["{wire.url}"]',
    }
    given = [part for name, value in options.items() for part in ("--set", f"{name}={value}")]
    outcome = run_process("Say yes.", "-p", "answer", *given)

    assert outcome.code == 0, outcome.err
    assert outcome.out.strip()
    assert "on distributed" in outcome.err


async def test_external_workers_alone_serve_and_none_is_started_here(wire: Tripwire):
    with externals(1) as (worker,):
        async with session_over(rpc_backends=[worker.settings()], nodes=[{"url": wire.url}]) as session:
            route = await session.route()
            answer, _ = await run(session, "Say what a worker is.")

            assert route.node == "1 RPC worker"
        assert worker.returncode is None
    assert answer


async def test_no_node_is_touched_when_the_workers_cannot_serve_either(wire: Tripwire):
    nobody = f"127.0.0.1:{free_port()}"
    async with session_over(rpc_backends=[nobody], nodes=[{"url": wire.url}]) as session:
        with pytest.raises(NoPlacement, match=nobody):
            await run(session, "Who is there?")


async def test_a_server_at_coordinator_url_that_answers_is_used_and_not_ended(wire: Tripwire, local: Local):
    before = set(psutil.Process().children())
    async with session_over(coordinator_url=local.url, nodes=[{"url": wire.url}], local_workers=2) as session:
        route = await session.route()
        answer, _ = await run(session, "Say what a guest is.")

        assert (route.backend, route.node) == ("llama-server", local.url)
        # Nothing was started beside it.
        assert set(psutil.Process().children()) == before
    assert answer
    assert psutil.pid_exists(local.pid)
    assert local.says("Are you still there?")


async def test_a_coordinator_url_that_does_not_answer_leaves_a_coordinator_of_our_own(wire: Tripwire):
    nobody = f"http://127.0.0.1:{free_port()}"
    async with session_over(**await spread(1), coordinator_url=nobody, nodes=[{"url": wire.url}]) as session:
        answer, events = await run(session, "Say what a fallback is.")

    assert answer
    reported = [event.report for event in events if isinstance(event, BackendReported)]
    assert any(isinstance(report, BackendNotice) and nobody in report.message for report in reported)


async def test_with_both_on_a_node_that_has_the_model_serves_and_no_worker_is_started():
    with nothing_left():
        async with FaultyNode(seconds_per_token=0.001, tokens=8) as node:
            settings = settings_of(
                model="m", task_distribution_enabled=True, nodes=[{"url": node.url}], local_workers=2
            )
            async with Session(settings, agents=AGENTS) as session:
                route = await session.route()
                answer, _ = await run(session, "Say anything.")

            assert route.backend == "ollama"
            assert "a node has the model" in route.reason
            assert answer
            assert len(node.asked) == 1


async def test_with_both_on_the_workers_serve_what_no_node_has():
    with nothing_left():
        async with FaultyNode(seconds_per_token=0.001, tokens=8) as node:
            settings = settings_of(**await spread(1), task_distribution_enabled=True, nodes=[{"url": node.url}])
            async with Session(settings, agents=AGENTS) as session:
                route = await session.route()
                answer, _ = await run(session, "Say anything at all.")

            assert (route.backend, route.model) == ("distributed", MODEL)
            assert len(node.asked) == 0
            assert answer


async def test_with_both_on_and_nobody_who_has_it_both_are_said():
    async with FaultyNode(seconds_per_token=0.001, tokens=8) as node:
        settings = settings_of(model="nobody:70b", task_distribution_enabled=True, nodes=[{"url": node.url}])
        async with Session(settings, agents=AGENTS) as session:
            with pytest.raises(ModelNotFound) as caught:
                await run(session, "Who has it?")

    assert "nobody:70b" in str(caught.value)
