"""Nodes are looked after off the calls' way: first looks, listings, probes, twins, and where models landed."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from faulty_node import FaultyNode
from faulty_node_script import Model
from pool_support import ask, pool_over, question

from synaptic.backends.pool.backend import PoolBackend, PoolOptions
from synaptic.backends.pool.dispatch import Limits
from synaptic.backends.pool.node import node_watch as watching
from synaptic.errors import ModelNotFound
from synaptic.settings import NodeSettings, Settings
from synaptic.waiting import Backoff, Rules

if TYPE_CHECKING:
    from faulty_node_http import Request


class SlowListing(FaultyNode):
    """A node that takes its time to list what it has, or refuses to."""

    delay = 0.0
    refuses = False
    unversioned = False

    async def serve(self, connection, request: Request):
        if request.path == "/api/version" and self.unversioned:
            self.counters.requests[request.path] += 1
            connection.reply(404, b"404 page not found", "text/plain")
            return
        if request.path == "/api/tags":
            await asyncio.sleep(self.delay)
            if self.refuses:
                self.counters.requests[request.path] += 1
                connection.reply(500, b'{"error": "no manifests"}')
                return
        await super().serve(connection, request)


@asynccontextmanager
async def nodes_of(count, kind=FaultyNode, **config):
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(kind(**config)) for _ in range(count)]


async def until(condition, seconds=60.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def said(trial, *words):
    return [report.message for report in trial.reports if all(word in report.message for word in words)]


async def test_the_first_look_reads_everything():
    models = {"a": Model(capabilities=("completion", "tools"), context=2048), "b": Model()}
    async with nodes_of(2, models=models, loaded=("a",), version="0.9.9") as nodes, pool_over(nodes) as trial:
        for member in trial.pool.members.values():
            assert (member.version, len(member.installed), member.state.cap) == ("0.9.9", 2, 1)
            known = member.state.models["a:latest"]
            assert (known.capabilities, known.context_length) == ({"completion", "tools"}, 2048)
            assert (known.resident, known.vram_bytes) == (True, 1_000_000_000)
            assert not member.state.models["b:latest"].resident
        assert trial.reports == []


async def test_a_node_that_does_not_answer_keeps_a_start_waiting_no_longer_than_is_fair():
    async with nodes_of(2) as nodes:
        nodes[1].fail("blackhole")
        async with pool_over(nodes) as trial:
            began = trial.state(1)
            assert (began.cap, began.why_closed) == (0, "has not answered yet")
            assert trial.pool.statuses()[1].condition == "unknown"
            assert (await ask(trial.pool, question())).node == "n0"
            await until(lambda: trial.pool.statuses()[1].condition == "down")
            assert len(said(trial, "n1", "down")) == 1
            nodes[1].heal()
            await until(lambda: trial.state(1).cap == 1)


async def test_a_call_for_a_model_of_a_node_that_is_late_waits_for_it():
    async with FaultyNode(models=["a"]) as quick, SlowListing(models=["b"]) as late:
        late.delay = 1.5
        async with pool_over([quick, late]) as trial:
            assert trial.state(1).cap == 0
            answer = await asyncio.wait_for(ask(trial.pool, question(model="b")), 60)
            assert (answer.error, answer.node) == (None, "n1")


async def test_a_node_that_comes_back_gets_calls_once_its_models_are_known():
    async with SlowListing() as node:
        node.fail("refuse")
        async with pool_over([node]) as trial:
            assert trial.pool.statuses()[0].condition == "down"
            calls = [asyncio.create_task(ask(trial.pool, question(f"{n}"))) for n in range(5)]
            await asyncio.sleep(0.2)
            node.delay = 0.4
            node.heal()
            answers = await asyncio.wait_for(asyncio.gather(*calls), 60)
            assert [answer.error for answer in answers] == [None] * 5
            assert len(said(trial, "n0 is down")) == 1
            await until(lambda: said(trial, "n0 is back after"))


async def test_a_node_that_cannot_list_its_models_is_down_and_says_why():
    async with SlowListing() as node:
        node.refuses = True
        async with pool_over([node]) as trial:
            status = trial.pool.statuses()[0]
            assert status.condition == "down"
            assert "no manifests" in status.reason
            node.refuses = False
            await until(lambda: trial.state(0).cap == 1)


async def test_a_listing_that_fails_later_closes_nothing_and_is_soon_asked_for_again(monkeypatch):
    monkeypatch.setattr(Rules, "LISTING", Backoff((0.1,)))
    async with SlowListing() as node, pool_over([node]) as trial:
        node.refuses = True
        trial.pool._watch.doubted(trial.pool.members[0])
        asked = node.counters.requests["/api/tags"]
        await until(lambda: node.counters.requests["/api/tags"] >= asked + 2)
        assert (trial.state(0).cap, len(trial.state(0).models)) == (1, 1)
        node.refuses = False
        node.config.models["new"] = Model()
        await until(lambda: "new:latest" in trial.state(0).models)


async def test_a_server_that_knows_no_versions_is_used_all_the_same():
    async with SlowListing() as node:
        node.unversioned = True
        async with pool_over([node]) as trial:
            assert trial.pool.statuses()[0].condition == "up"
            assert (await ask(trial.pool, question())).error is None


async def test_a_model_that_was_fetched_a_moment_ago_is_found():
    async with nodes_of(2, models=["m"]) as nodes, pool_over(nodes) as trial:
        nodes[1].config.models["new"] = Model()
        answers = await asyncio.gather(*(ask(trial.pool, question(f"{n}", model="new")) for n in range(3)))
        assert [(answer.error, answer.node) for answer in answers] == [(None, "n1")] * 3


async def test_asking_for_a_model_that_is_not_there_does_not_make_the_pool_ask_all_the_time():
    async with nodes_of(1) as nodes, pool_over(nodes) as trial:
        answers = await asyncio.gather(*(ask(trial.pool, question(f"{n}", model="none")) for n in range(20)))
        answers += [await ask(trial.pool, question(f"{n}", model="none")) for n in range(20)]
        assert all(isinstance(answer.error, ModelNotFound) for answer in answers)
        assert nodes[0].counters.requests["/api/tags"] <= 3


async def test_details_are_asked_for_once_for_each_content():
    async with nodes_of(1, models=["a", "b"]) as nodes, pool_over(nodes) as trial:
        assert nodes[0].counters.requests["/api/show"] == 2
        await trial.pool._watch.refresh()
        assert nodes[0].counters.requests["/api/show"] == 2
        nodes[0].config.models["c"] = Model()
        trial.pool._watch.doubted(trial.pool.members[0])
        await until(lambda: nodes[0].counters.requests["/api/show"] == 3)


async def test_a_suspected_node_is_asked_once_whoever_asks():
    async with nodes_of(1) as nodes, pool_over(nodes) as trial:
        member, watch = trial.pool.members[0], trial.pool._watch
        before = nodes[0].counters.requests["/api/version"]
        assert await asyncio.gather(*(watch.suspect(member) for _ in range(5))) == [True] * 5
        assert nodes[0].counters.requests["/api/version"] == before + 1
        nodes[0].fail("refuse")
        assert await watch.suspect(member) is False
        assert trial.state(0).cap == 0
        nodes[0].heal()


async def test_probes_of_a_node_that_is_down_are_told_once():
    async with nodes_of(2) as nodes, pool_over(nodes) as trial:
        nodes[0].fail("refuse")
        assert await trial.pool._watch.suspect(trial.pool.members[0]) is False
        await asyncio.sleep(2.0)
        assert len(said(trial, "n0 is down")) == 1
        assert trial.pool.statuses()[0].probe_in is not None
        nodes[0].heal()
        await until(lambda: trial.state(0).cap == 1)


async def test_a_server_that_is_listed_twice_is_used_once(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    async with FaultyNode(parallel=2) as node:
        reports = []
        chosen = [
            NodeSettings(url=node.url, name="first"),
            NodeSettings(url=f"http://localhost:{node.port}", name="second", parallel=2),
        ]
        pool = PoolBackend(
            Settings(), chosen, report=reports.append, options=PoolOptions(limits=Limits(wait=10.0, recovery=5.0))
        )
        async with pool:
            await pool.start()
            await asyncio.sleep(0.1)
            (status,) = pool.statuses()
            assert (status.name, status.limit) == ("first", 2)
            answers = await asyncio.gather(*(ask(pool, question(f"{n}")) for n in range(8)))
            assert [answer.error for answer in answers] == [None] * 8
            assert (node.counters.peak_in_flight, pool.statuses()[0].cap) == (2, 2)
        (report,) = reports
        assert f"http://localhost:{node.port}" in report.message
        assert f"{node.url} are one server" in report.message


def gpu_node(**shares):
    return FaultyNode(models={name: Model(vram_share=share) for name, share in shares.items()})


async def load_and_look(trial, node, model):
    """Have a model loaded by a call, and wait until its placement was looked at."""
    node.memory.unload(model)
    node.config.load_seconds = 0.6  # more than what counts as no load
    assert (await ask(trial.pool, question(model=model))).error is None
    node.config.load_seconds = 0.0
    listings = node.counters.requests["/api/ps"]
    await until(lambda: node.counters.requests["/api/ps"] > listings)
    await asyncio.sleep(0.05)


async def test_a_model_on_the_processor_of_a_node_with_a_gpu_is_reported_once():
    async with gpu_node(fast=1.0, big=0.6) as node, pool_over([node]) as trial:
        node.memory.put("fast")
        await trial.pool._watch.refresh()  # it has shown video memory, by another program's model
        for _ in range(2):
            await load_and_look(trial, node, "big")
        (report,) = trial.reports
        assert report.message.startswith("big:latest runs 40 % on the processor of n0: its video memory is too small")
        assert report.level == "warning"
        assert "fast:latest" in node.memory.current(), "what others may need is left alone"


async def test_nothing_is_said_of_a_machine_without_a_gpu():
    async with gpu_node(m=0.0) as node, pool_over([node]) as trial:
        await load_and_look(trial, node, "m")
        assert trial.reports == []


async def test_a_model_is_loaded_once_more_without_what_lay_idle_in_video_memory():
    async with gpu_node(other=1.0, big=0.3) as node, pool_over([node]) as trial:
        await load_and_look(trial, node, "other")
        node.memory.unload("big")
        node.config.load_seconds = 0.6
        answer = await ask(trial.pool, question(model="big"))
        assert answer.error is None
        node.config.models["big"].vram_share = 1.0  # there is room once the other one is gone
        rates = trial.state(0).models["big:latest"].rates
        await until(lambda: said(trial, "was loaded again"))
        assert said(trial, "big:latest runs 70 % on the processor", "lies idle: other:latest")
        assert said(trial, "without other:latest: 100 % is in video memory now")
        assert set(node.memory.current()) == {"big:latest"}
        states = trial.state(0).models
        assert (states["other:latest"].resident, states["big:latest"].resident) == (False, True)
        assert states["big:latest"].loading_until == 0.0
        assert states["big:latest"].rates is not rates, "what was learned on the processor is void"
        assert node.asked[-1].num_ctx == 4096, "it is loaded as calls ask for it"


async def test_what_is_busy_is_never_taken_out():
    async with gpu_node(other=1.0, big=0.3) as node, pool_over([node], parallel=2) as trial:
        node.config.parallel = 2
        await load_and_look(trial, node, "other")
        node.config.seconds_per_token = 0.3
        running = asyncio.create_task(ask(trial.pool, question(model="other")))
        await until(lambda: trial.state(0).busy_models.get("other:latest"))
        node.config.seconds_per_token = 0.0
        await load_and_look(trial, node, "big")
        assert said(trial, "big:latest runs 70 %")
        assert not said(trial, "idle")
        assert not said(trial, "again")
        assert "other:latest" in node.memory.current()
        assert (await running).error is None


async def test_what_calls_see_goes_before_what_a_lying_node_says():
    async with nodes_of(1, models=["m", "other"], loaded=("m",)) as nodes, pool_over(nodes) as trial:
        nodes[0].fail("lie_in_ps")
        model = trial.state(0).models["m:latest"]
        for n in range(4):
            assert (await ask(trial.pool, question(f"{n}"))).error is None
            listings = nodes[0].counters.requests["/api/ps"]
            trial.pool._watch.doubted(trial.pool.members[0])
            await until(lambda before=listings: nodes[0].counters.requests["/api/ps"] > before)
            await until(lambda: trial.state(0).models["other:latest"].resident)  # the listing has been taken in
            assert model.resident
        nodes[0].heal()


async def test_closing_while_nodes_are_asked_leaves_nothing():
    async with nodes_of(2) as nodes:
        for node in nodes:
            node.fail("blackhole")
        before = asyncio.all_tasks()
        pool = PoolBackend(Settings(), [NodeSettings(url=node.url) for node in nodes])
        start = asyncio.create_task(pool.start())
        await nodes[0].wait_for(lambda: nodes[0].counters.open_connections)
        await pool.aclose()
        with pytest.raises(asyncio.CancelledError):
            await start
        await asyncio.sleep(0.05)
        assert not {task for task in asyncio.all_tasks() - before if "watch" in repr(task.get_coro())}
        for node in nodes:
            node.heal()


@pytest.mark.parametrize("turns", [*range(12), 20, 40, 80])
async def test_a_start_can_be_given_up_at_any_moment(turns):
    async with nodes_of(2) as nodes:
        before = asyncio.all_tasks()
        urls = [*(node.url for node in nodes), f"http://localhost:{nodes[0].port}"]
        reports = []
        pool = PoolBackend(Settings(), [NodeSettings(url=url) for url in urls], report=reports.append)
        start = asyncio.create_task(pool.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        await pool.aclose()
        await asyncio.gather(start, return_exceptions=True)
        await until(lambda: not any("pool" in repr(task.get_coro()) for task in asyncio.all_tasks() - before))
        assert not [report for report in reports if report.level == "warning"]
        for node in nodes:
            await node.wait_for(lambda node=node: node.counters.open_connections == 0)


async def test_closing_blames_no_node_for_the_calls_that_it_ends():
    async with nodes_of(1, seconds_per_token=5.0) as nodes, pool_over(nodes) as trial:
        call = asyncio.create_task(ask(trial.pool, question()))
        await nodes[0].wait_for(lambda: nodes[0].asked)
        await trial.pool.aclose()
        assert (await call).error is not None
        assert trial.reports == []


@pytest.mark.parametrize("fault", ["refuse", "blackhole", "hang_before_headers"])
async def test_a_node_that_is_back_is_used_within_five_seconds(fault):
    """Also where a listing was under way that will never come: hung requests stay so when the node is healed."""
    async with nodes_of(2) as nodes, pool_over(nodes) as trial:
        nodes[0].fail(fault, everything=True)
        listings = nodes[0].counters.requests["/api/tags"]
        trial.pool._watch.doubted(trial.pool.members[0])
        if fault == "hang_before_headers":
            await nodes[0].wait_for(lambda: nodes[0].counters.requests["/api/tags"] > listings)
        assert await trial.pool._watch.suspect(trial.pool.members[0]) is False
        assert trial.pool.statuses()[0].condition == "down"
        nodes[0].heal()
        await until(lambda: trial.state(0).cap, seconds=5.0)
        nodes[1].fail("refuse")
        assert (await ask(trial.pool, question())).node == "n0"
        nodes[1].heal()
        assert len(said(trial, "n0 is down")) == 1


async def test_a_pool_that_nobody_uses_leaves_its_nodes_alone(monkeypatch):
    monkeypatch.setattr(watching, "LISTING_EVERY", 0.05)
    monkeypatch.setattr(watching, "IN_USE_SECONDS", 0.3)
    async with nodes_of(2, SlowListing) as nodes, pool_over(nodes) as trial:
        nodes[1].refuses = True
        first = nodes[0].counters.requests["/api/tags"]
        await until(lambda: nodes[0].counters.requests["/api/tags"] > first)
        await asyncio.sleep(0.6)
        asked = [node.counters.requests.total() for node in nodes]
        await asyncio.sleep(0.5)
        assert [node.counters.requests.total() for node in nodes] == asked
        assert (await ask(trial.pool, question())).error is None
        await until(lambda: sum(node.counters.requests.total() for node in nodes) > sum(asked) + 2)


class WithoutPs(FaultyNode):
    """A server from before ``/api/ps``."""

    async def serve(self, connection, request: Request):
        if request.path == "/api/ps":
            connection.reply(404, b"404 page not found", "text/plain")
            return
        await super().serve(connection, request)


async def test_a_server_without_ps_is_used_and_what_calls_see_is_kept():
    async with nodes_of(1, WithoutPs) as nodes, pool_over(nodes) as trial:
        model = trial.state(0).models["m:latest"]
        assert not model.resident
        assert (await ask(trial.pool, question())).error is None
        assert model.resident
        await trial.pool._watch.refresh()
        assert model.resident, "nobody has said otherwise"
        assert trial.reports == []


async def test_a_model_is_loaded_again_only_once():
    async with gpu_node(other=1.0, big=0.3) as node, pool_over([node]) as trial:
        await load_and_look(trial, node, "other")
        await load_and_look(trial, node, "big")
        await until(lambda: said(trial, "was loaded again"))
        assert said(trial, "without other:latest: 30 % is in video memory now"), "it did not help: that is said, too"
        await load_and_look(trial, node, "other")
        loads = node.memory.loads["big:latest"]
        await load_and_look(trial, node, "big")
        await asyncio.sleep(0.3)
        assert node.memory.loads["big:latest"] == loads + 1
        assert "other:latest" in node.memory.current()
        assert len(said(trial, "big:latest runs 70 %")) == 1
        assert len(said(trial, "was loaded again")) == 1
