"""A model that other programs use as well stays loaded as it is: its loads are counted at the node."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager

import pytest
from faulty_node import FaultyNode
from faulty_node_script import Model
from pool_support import MODEL, ask, pool_over, question

from synaptic.backends.ollama.backend import OllamaBackend
from synaptic.backends.pool.node.inspection import inspect_node
from synaptic.settings import NodeSettings, Settings

LOADED = f"{MODEL}:latest"


async def another_client(node, **options):
    """Ask as programs do that leave the context to the server."""
    asked = question("Another one", **options)
    async with OllamaBackend(node.url) as backend, aclosing(backend.stream(asked)) as reply:
        async for _ in reply:
            pass


def asked(node):
    return [call.num_ctx for call in node.asked]


@asynccontextmanager
async def asking(how, node):
    """Give what asks the node: a pool, or a client of this one server."""
    if how == "pool":
        async with pool_over([node]) as trial:
            yield trial.pool
    else:
        async with OllamaBackend.from_settings(Settings(), node.url) as backend:
            yield backend


@pytest.mark.parametrize("how", ["pool", "one server"])
@pytest.mark.parametrize(
    ("config", "context"),
    [
        ({"default_context": 8192}, 8192),
        ({"default_context": 2048, "models": {MODEL: Model(num_ctx=8192, context=32768)}}, 8192),
        ({"default_context": 4096}, 4096),
    ],
    ids=["server's default", "parameter of the model", "as the settings say"],
)
async def test_a_model_that_others_use_is_loaded_once(how, config, context):
    async with FaultyNode(**config) as node, asking(how, node) as backend:
        for turn in range(6):
            await another_client(node)
            assert (await ask(backend, question(f"Question {turn}"))).error is None
        assert node.memory.loads[LOADED] == 1
        assert asked(node) == [None, context] * 6


async def test_the_parameter_of_the_model_is_asked_for_before_others_come():
    async with FaultyNode(models={MODEL: Model(num_ctx=8192)}) as node, pool_over([node]) as trial:
        await ask(trial.pool, question())
        await another_client(node)
        assert (node.memory.loads[LOADED], asked(node)) == (1, [8192, None])


async def test_each_node_is_asked_for_what_it_has():
    async with FaultyNode(loaded=[MODEL], default_context=8192) as large, FaultyNode(loaded=[MODEL]) as small:
        async with pool_over([large, small]) as trial:
            await asyncio.gather(*(ask(trial.pool, question(f"{n}")) for n in range(8)))
        assert {*asked(large)} == {8192} and {*asked(small)} == {4096}
        assert not large.memory.loads and not small.memory.loads


async def test_a_call_that_ended_shows_what_is_in_memory_while_others_of_the_model_go_on():
    async with FaultyNode(loaded=[MODEL]) as node, pool_over([node]) as trial:
        await ask(trial.pool, question("One"))
        member = trial.pool.members[0]
        member.memory_at = 0.0  # it was looked at a while ago
        model = member.state.models[LOADED]
        assert not trial.pool._watch.knows_memory(member, model)
        for _ in range(2):
            member.state.claim(LOADED, 1.0)
        try:
            assert trial.pool._watch.knows_memory(member, model)
            model.seen_at -= 1.0
            assert not trial.pool._watch.knows_memory(member, model)
        finally:
            for _ in range(2):
                member.state.release(LOADED, 1.0)


async def test_a_model_that_was_loaded_otherwise_meanwhile_is_left_so():
    async with FaultyNode(loaded=[MODEL]) as node, pool_over([node]) as trial:
        await ask(trial.pool, question("One"))
        await another_client(node, num_ctx=8192)
        trial.pool.members[0].memory_at = 0.0  # it was looked at a while ago
        await ask(trial.pool, question("Two"))
        assert (node.memory.loads[LOADED], asked(node)) == (1, [4096, 8192, 8192])


async def test_a_call_that_needs_more_has_it_loaded_anew_and_the_others_stay_with_that():
    async with FaultyNode(loaded=[MODEL]) as node, pool_over([node], parallel=2) as trial:
        node.config.parallel = 2
        await asyncio.gather(*(ask(trial.pool, question(f"{n}", num_ctx=n)) for n in (8192, 2048, 1024)))
        assert (node.memory.loads[LOADED], {*asked(node)}) == (1, {8192})


@pytest.mark.parametrize("kind", ["hang_before_headers", "error"])
async def test_a_node_that_does_not_tell_what_it_has_is_asked_all_the_same(kind):
    async with FaultyNode() as node, pool_over([node]) as trial:
        answers = asyncio.create_task(ask(trial.pool, question()))
        node.fail(kind, everything=True)
        await node.wait_for(lambda: node.counters.requests["/api/ps"] > 1)
        node.heal()
        assert (await answers).error is None


@pytest.mark.parametrize(
    ("config", "settings", "asked_for", "why"),
    [
        ({}, {}, 4096, "num_ctx of the settings"),
        ({"loaded": [MODEL], "default_context": 8192}, {}, 8192, "it is loaded with that, and another length would"),
        ({"loaded": [MODEL]}, {"num_ctx": 8192}, 8192, "num_ctx of the settings; the first call loads it anew"),
        ({"models": {MODEL: Model(num_ctx=8000)}}, {}, 8000, "PARAMETER num_ctx of the model"),
        ({"models": {MODEL: Model(context=2048)}}, {}, 2048, "all that it was trained with"),
        ({}, {"num_ctx": None}, None, "the server decides"),
        ({}, {"num_ctx": None, "nodes": [{"url": "http://127.0.0.1:1"}]}, 8192, "neither num_ctx nor the model says"),
    ],
)
async def test_a_look_at_a_node_tells_what_calls_will_ask_for_and_why(config, settings, asked_for, why):
    async with FaultyNode(**config) as node:
        look = await inspect_node(NodeSettings(url=node.url), {}, Settings(**settings))
        assert look.models[0].asked_context == asked_for
        assert look.models[0].asked_why.startswith(why)
