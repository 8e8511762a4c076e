"""Models are loaded ahead of their first call: joined, bounded, and never at the cost of what is in use."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from faulty_node import FaultyNode

from synaptic.backends.ollama.backend import OllamaBackend
from synaptic.backends.pool.node.facts import read_facts, update, update_memory
from synaptic.backends.pool.node.health import Health
from synaptic.backends.pool.node.node import PoolNode
from synaptic.backends.pool.node.state import NodeState
from synaptic.backends.pool.warm import Preloader
from synaptic.waiting import Backoff, Rules

if TYPE_CHECKING:
    from synaptic.messages import BackendReport

GB = 1_000_000_000


@dataclass
class Kitchen:
    """A warmer, one node, and what was heard of them."""

    node: FaultyNode
    member: PoolNode
    reports: list[BackendReport] = field(default_factory=list)
    loaded: list[tuple[str, int | None]] = field(default_factory=list)
    changes: int = 0

    def __post_init__(self) -> None:
        self.warmer = Preloader(
            look=self._glance, changed=self._changed, loaded=self._loaded, report=self.reports.append
        )

    def prepare(self, model, num_ctx=4096, keep_alive="10m"):
        return self.warmer.prepare(self.member, model, num_ctx=num_ctx, keep_alive=keep_alive)

    async def look(self):
        update(self.member.state, read_facts(*await self.member.client.listings()), asyncio.get_running_loop().time())

    async def _glance(self, member):
        update_memory(member.state, await member.client.in_memory(), asyncio.get_running_loop().time(), asked_at=0.0)

    async def done(self):
        async with asyncio.timeout(60):
            while self.warmer.loading:
                await asyncio.sleep(0.01)

    def model(self, name):
        return self.member.state.models[f"{name}:latest"]

    def _changed(self, member):
        self.changes += 1

    def _loaded(self, member, model, num_ctx):
        self.loaded.append((model, num_ctx))


@asynccontextmanager
async def kitchen_with(**config):
    config.setdefault("models", ["a", "b"])
    async with FaultyNode(**config) as node:
        client = OllamaBackend(node.url)
        state = NodeState(0, "desk", limit=2, cap=2)
        kitchen = Kitchen(node, PoolNode(url=node.url, client=client, state=state, health=Health(2)))
        try:
            await kitchen.look()
            yield kitchen
        finally:
            node.heal()
            await kitchen.warmer.aclose()
            await client.aclose()


async def test_a_model_is_loaded_as_its_calls_will_ask_for_it():
    async with kitchen_with(load_seconds=0.05) as kitchen:
        assert kitchen.prepare("a:latest")
        assert kitchen.warmer.loading == {0: "a:latest"}
        assert kitchen.model("a").loading_until > asyncio.get_running_loop().time()
        await kitchen.done()
        (call,) = kitchen.node.asked
        assert (call.path, call.model, call.num_ctx, call.keep_alive) == ("/api/generate", "a:latest", 4096, "10m")
        assert kitchen.node.memory.loads["a:latest"] == 1
        state = kitchen.model("a")
        assert (state.resident, state.loading_until) == (True, 0.0)
        assert state.rates.load_seconds >= 0.05
        assert (kitchen.loaded, kitchen.reports) == ([("a:latest", 4096)], [])
        assert kitchen.changes == 2


async def test_a_load_is_joined_and_not_repeated():
    async with kitchen_with(load_seconds=0.05) as kitchen:
        assert [kitchen.prepare("a:latest") for _ in range(5)] == [True] * 5
        await kitchen.done()
        assert kitchen.prepare("a:latest"), "it is loaded"
        assert len(kitchen.node.asked) == 1


async def test_a_node_loads_one_model_at_a_time():
    async with kitchen_with(load_seconds=0.05) as kitchen:
        assert kitchen.prepare("a:latest")
        assert not kitchen.prepare("b:latest")
        await kitchen.done()
        assert kitchen.prepare("b:latest")
        await kitchen.done()
        assert [call.model for call in kitchen.node.asked] == ["a:latest", "b:latest"]


async def test_a_model_with_a_shorter_context_than_asked_for_is_loaded_anew_and_one_with_a_longer_is_not():
    async with kitchen_with(loaded=("a",), default_context=2048) as kitchen:
        assert kitchen.prepare("a:latest", num_ctx=2048)
        assert kitchen.prepare("a:latest", num_ctx=1024)
        assert not kitchen.node.asked
        assert kitchen.prepare("a:latest", num_ctx=4096)
        await kitchen.done()
        assert kitchen.node.memory.current()["a:latest"].context == 4096


async def test_a_model_that_another_program_has_loaded_meanwhile_stays_as_it_is():
    async with kitchen_with() as kitchen:
        kitchen.node.memory.put("a", {"num_ctx": 8192})
        assert kitchen.prepare("a:latest", num_ctx=4096)
        await kitchen.done()
        (call,) = kitchen.node.asked
        assert (call.num_ctx, kitchen.node.memory.loads["a:latest"]) == (8192, 0)
        assert kitchen.loaded == [("a:latest", 8192)]


async def test_a_model_that_calls_use_is_not_loaded_anew_under_them():
    async with kitchen_with(loaded=("a",), default_context=2048) as kitchen:
        kitchen.member.state.claim("a:latest", 1e9)
        kitchen.member.state.memory_bytes = 100 * GB
        assert not kitchen.prepare("a:latest", num_ctx=4096)
        assert not kitchen.node.asked


@pytest.mark.parametrize(("memory_gb", "begun"), [(None, False), (1.9, False), (2.01, False), (2.1, True)], ids=str)
async def test_beside_a_model_in_use_another_is_loaded_only_where_both_fit_for_certain(memory_gb, *, begun):
    async with kitchen_with(loaded=("a",)) as kitchen:
        kitchen.member.state.memory_bytes = None if memory_gb is None else int(memory_gb * GB)
        kitchen.member.state.claim("a:latest", 1e9)
        assert kitchen.prepare("b:latest") is begun
        await kitchen.done()
        assert len(kitchen.node.asked) == begun


@pytest.mark.parametrize("why", ["closed", "not there", "refused"])
async def test_where_a_call_would_not_go_nothing_is_loaded(why):
    async with kitchen_with() as kitchen:
        if why == "closed":
            kitchen.member.state.cap = 0
        elif why == "not there":
            del kitchen.member.state.models["a:latest"]
        else:
            kitchen.model("a").refused_until = asyncio.get_running_loop().time() + 60
        assert not kitchen.prepare("a:latest")
        assert not kitchen.node.asked


async def test_a_failure_is_a_notice_and_not_repeated_at_once(monkeypatch):
    async with kitchen_with() as kitchen:
        kitchen.node.fail("error")
        assert kitchen.prepare("a:latest")
        await kitchen.done()
        (report,) = kitchen.reports
        assert "a:latest could not be loaded ahead on desk" in report.message
        assert (kitchen.model("a").resident, kitchen.model("a").loading_until) == (False, 0.0)
        assert kitchen.model("a").refused_until == 0.0, "it is the node that failed"
        kitchen.node.heal()
        assert not kitchen.prepare("a:latest")
        assert kitchen.prepare("b:latest")
        await kitchen.done()
        monkeypatch.setattr(Rules, "LOAD_AHEAD", Backoff((0.0,)))
        kitchen.node.fail("error", times=1)
        kitchen.node.memory.unload("b")
        kitchen.model("b").resident = False
        assert kitchen.prepare("b:latest")
        await kitchen.done()
        assert kitchen.prepare("b:latest"), "the time is over"


async def test_a_model_that_cannot_be_loaded_gets_no_calls_there_for_a_while():
    async with kitchen_with() as kitchen:
        kitchen.node.fail("not_found")
        assert kitchen.prepare("a:latest")
        await kitchen.done()
        state = kitchen.model("a")
        assert state.refused_until > asyncio.get_running_loop().time() + 30
        assert "does not have the model" in state.refused_why


async def test_closing_gives_up_what_is_being_loaded():
    async with kitchen_with(load_seconds=0.3) as kitchen:
        assert kitchen.prepare("a:latest")
        await kitchen.node.wait_for(lambda: kitchen.node.asked)
        await asyncio.wait_for(kitchen.warmer.aclose(), 20)
        assert kitchen.warmer.loading == {}
        assert (kitchen.loaded, kitchen.model("a").loading_until) == ([], 0.0)
        await kitchen.node.wait_until_idle()
