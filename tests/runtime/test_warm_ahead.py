"""While a step runs, the model of the step after it is loaded: where it disturbs nobody, and once."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from faulty_node import FaultyNode

from synaptic.agents.definition import Agent
from synaptic.backends.pool import warm
from synaptic.backends.pool.backend import PoolBackend
from synaptic.backends.pool.warm import PreloadRequests
from synaptic.messages import ChatRequest
from synaptic.pipeline.loader import Pipeline
from synaptic.runtime.session import Session
from synaptic.runtime.warm_ahead import WarmAhead
from synaptic.settings import NodeSettings, Settings

AGENTS = {"writer": Agent(name="writer", prompt="Write.")}
NODE = {"models": ["a", "b"], "load_seconds": 0.5, "seconds_per_token": 0.12, "tokens": 8}


def pipeline(first="a", second="b"):
    return Pipeline.parse(f"""
version: 1
name: two
inputs: {{query: {{}}}}
steps:
  first: {{agent: writer, model: {first}, prompt: "Begin {{{{ inputs.query }}}}"}}
  second: {{agent: writer, model: {second}, prompt: "End {{{{ steps.first }}}}"}}
result: "{{{{ steps.second }}}}"
""")


def loads(nodes):
    """Return the requests to load a model, nothing else, with their node."""
    return [(node, call) for node in nodes for call in node.asked if call.path == "/api/generate"]


def chats(nodes, model):
    return [(node, call) for node in nodes for call in node.asked if call.path == "/api/chat" and call.model == model]


async def until(condition):
    async with asyncio.timeout(60):
        while not (met := condition()):
            await asyncio.sleep(0.005)
        return met


@pytest.mark.parametrize("resident", [True, False], ids=["first is loaded", "nothing is loaded"])
async def test_the_second_model_is_loaded_on_the_idle_node_while_the_first_step_runs(resident):
    async with FaultyNode(**NODE) as one, FaultyNode(**NODE) as two:
        nodes = one, two
        for node in nodes if resident else ():
            node.memory.put("a", {"num_ctx": 4096})
        settings = Settings(nodes=[NodeSettings(url=node.url) for node in nodes], num_ctx=4096, keep_alive="7m")
        async with Session(settings, agents=AGENTS) as session:
            run = asyncio.create_task(session.run("why", pipeline=pipeline()))
            ((warmed, load),) = await until(lambda: loads(nodes))
            ((busy, _),) = chats(nodes, "a:latest")
            assert busy.counters.in_flight_by_model["a:latest"] == 1, "the first step was done before"
            assert warmed is not busy
            assert (load.model, load.num_ctx, load.keep_alive, load.messages) == ("b:latest", 4096, "7m", [])
            result = await run
        assert result.status == "succeeded"
        assert len(loads(nodes)) == 1
        ((asked, _),) = chats(nodes, "b:latest")
        assert asked is warmed
        assert warmed.memory.loads["b:latest"] == 1
        assert busy.memory.loads["b:latest"] == 0


async def test_a_model_that_the_step_before_uses_itself_is_not_loaded_elsewhere():
    async with FaultyNode(**{**NODE, "seconds_per_token": 0.02}) as one, FaultyNode(**NODE) as two:
        settings = Settings(nodes=[NodeSettings(url=one.url), NodeSettings(url=two.url)])
        async with Session(settings, agents=AGENTS) as session:
            await session.run("why", pipeline=pipeline("b", "b"))
        assert loads((one, two)) == []


@pytest.mark.parametrize(("memory_gib", "begun"), [(None, 0), (1.5, 0), (4, 1)])
async def test_a_node_that_is_busy_takes_a_second_model_only_where_both_fit_for_certain(memory_gib, begun):
    async with FaultyNode(**{**NODE, "load_seconds": 0.05, "seconds_per_token": 0.05}) as node:
        node.memory.put("a", {"num_ctx": 4096})
        named = NodeSettings(url=node.url, memory_gib=memory_gib)
        async with Session(Settings(nodes=[named], num_ctx=4096), agents=AGENTS) as session:
            await session.run("why", pipeline=pipeline())
        assert len(loads([node])) == begun
        assert node.memory.loads == {"b:latest": 1}


async def test_a_load_that_fails_costs_the_run_nothing():
    async with FaultyNode(**NODE) as one, FaultyNode(**NODE) as two:
        for node in (one, two):
            node.memory.put("a", {"num_ctx": 4096})
        settings = Settings(nodes=[NodeSettings(url=one.url), NodeSettings(url=two.url)], num_ctx=4096)
        async with Session(settings, agents=AGENTS) as session:
            run = asyncio.create_task(session.run("why", pipeline=pipeline()))
            ((busy, _),) = await until(lambda: chats((one, two), "a:latest"))
            idle = one if busy is two else two
            idle.fail("error", times=1)
            result = await run
        assert result.status == "succeeded"
        ((_, load),) = loads((one, two))
        assert load.outcome == "failed"


async def compiled(text):
    """Return the graph of a pipeline."""
    models = ["a", "b", "d", *(f"m{number}" for number in range(5))]
    settings = Settings()
    async with FaultyNode(models=models) as node, PoolBackend(settings, [NodeSettings(url=node.url)]) as backend:
        session = Session(settings, backend=backend, agents=AGENTS)
        return (await session.plan("why", pipeline=Pipeline.parse(text))).compiled.graph


async def test_only_what_follows_and_needs_another_model_is_wanted():
    graph = await compiled("""
version: 1
name: fan
inputs: {query: {}}
steps:
  one: {agent: writer, model: a, prompt: "x {{ inputs.query }}"}
  two: {agent: writer, prompt: "x {{ steps.one }}"}
  three: {agent: writer, model: b, prompt: "x {{ steps.one }}"}
  four: {agent: writer, model: b, prompt: "x {{ steps.two }} {{ steps.three }}"}
result: "{{ steps.four }}"
""")
    wanted = []
    ahead = WarmAhead(wanted.append, ChatRequest(messages=(), model="d", num_ctx=1024))
    for name, expected in {
        "one": [("d", 1024), ("b", 1024)],
        "two": [("b", 1024)],
        "three": [],
        "four": [],
    }.items():
        wanted.clear()
        ahead.step_begins(graph, graph.steps[name])
        assert [(request.model, request.num_ctx) for request in wanted] == expected, name


async def test_graphs_that_come_and_go_are_not_mistaken_for_one_another():
    steps = """
version: 1
name: two
inputs: {{query: {{}}}}
steps:
  first: {{agent: writer, model: a, prompt: "x {{{{ inputs.query }}}}"}}
  second: {{agent: writer, model: m{number}, prompt: "x {{{{ steps.first }}}}"}}
result: "{{{{ steps.second }}}}"
"""
    wanted = []
    ahead = WarmAhead(wanted.append, ChatRequest(messages=()))
    for graph in [await compiled(steps.format(number=number)) for number in range(5)]:
        short_lived = replace(graph)  # the next one is likely to be put in its place in memory
        ahead.step_begins(short_lived, short_lived.steps["first"])
        del short_lived
    assert [request.model for request in wanted] == [f"m{number}" for number in range(5)]


async def test_a_wish_waits_until_a_call_is_bound(monkeypatch):
    monkeypatch.setattr(warm, "TOGETHER_SECONDS", 0.01)
    begun = []
    requests = PreloadRequests(begun.append)
    requests.call_was_bound()
    requests.add("a", ChatRequest(messages=(), model="a", num_ctx=1))
    requests.add("a", ChatRequest(messages=(), model="a", num_ctx=2))
    await asyncio.sleep(0.03)
    assert begun == []
    requests.call_was_bound()
    requests.call_was_bound()
    assert begun == [], "what begins together is bound first"
    await asyncio.sleep(0.03)
    assert [request.num_ctx for request in begun] == [2]
    requests.call_was_bound()
    requests.add("b", ChatRequest(messages=(), model="b"))
    requests.call_was_bound()
    requests.close()
    await asyncio.sleep(0.03)
    assert len(begun) == 1
