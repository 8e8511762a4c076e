"""The pool over real nodes: a real model, real sockets, real signals."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from ollama_nodes import MODEL, real_nodes
from pool_support import ask, question

from synaptic import Session, Settings
from synaptic.backends.pool.backend import PoolBackend

pytestmark = pytest.mark.real_model

EXAMPLE = Path(__file__).parents[3] / "examples" / "pool.py"
GREEDY = {"model": MODEL, "temperature": 0.0, "seed": 1}


def settings_for(nodes, **more):
    return Settings(nodes=[{"url": node.url, "name": f"n{i}"} for i, node in enumerate(nodes)], model=MODEL, **more)


async def busy_nodes(pool, nodes):
    """Wait until a node works, and return those that do."""
    async with asyncio.timeout(60):
        while not (busy := [nodes[key] for key, member in pool.members.items() if member.state.in_flight]):
            await asyncio.sleep(0.02)
    return busy


@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", ["kill", "stop", "restart"])
async def test_a_real_text_goes_on_elsewhere_token_for_token(how):
    async with real_nodes(2) as nodes, PoolBackend(settings_for(nodes)) as pool:
        request = question("Tell me about rivers.", tokens=60, **GREEDY)
        whole = await ask(pool, request)
        assert whole.error is None
        task = asyncio.create_task(ask(pool, request))
        (node,) = await busy_nodes(pool, nodes)
        async with asyncio.timeout(60):
            while pool.members[nodes.index(node)].state.in_flight and not task.done():
                await asyncio.sleep(0.3)  # into its text
                break
        if how == "restart":
            await node.restart()
        else:
            getattr(node, how)()
        answer = await asyncio.wait_for(task, 120)
        node.cont()
        assert answer.error is None
        assert answer.text == whole.text
        assert answer.ends == 1


@pytest.mark.timeout(300)
async def test_research_survives_the_death_of_a_node():
    async with real_nodes(3) as nodes, Session(settings_for(nodes, retries=0)) as session:
        task = asyncio.create_task(session.run("What is a heat pump?", pipeline="research"))
        async with asyncio.timeout(60):
            while session.routed_backend is None:
                await asyncio.sleep(0.05)
        pool = session.routed_backend
        assert isinstance(pool, PoolBackend)
        (victim, *_) = await busy_nodes(pool, nodes)
        victim.kill()
        result = await task
        assert result.status == "succeeded", result.error
        assert result.answer.strip()
        assert {step.status for step in result.steps} <= {"succeeded", "skipped"}


@pytest.mark.timeout(240)
async def test_ten_chats_over_two_nodes_in_five_lines(tmp_path):
    async with real_nodes(2) as nodes:
        example = await asyncio.create_subprocess_exec(
            *[sys.executable, str(EXAMPLE), *(node.url for node in nodes)],
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=tmp_path,
        )
        said, complaints = await example.communicate()
    assert example.returncode == 0, complaints.decode()
    lines = said.decode().splitlines()
    asked = [line for line in lines if line.startswith("http://")]
    assert len(asked) == 10
    assert {line.split(": ")[0] for line in asked} == {node.url for node in nodes}
