"""Nodes that die, freeze, come back and misbehave while calls keep coming: nothing is lost, said twice or cut short."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import get_args

import pytest
from faulty_node import FaultyNode
from faulty_node_child import child_node
from faulty_node_script import Config, Kind, write_script
from pool_support import ask, pool_over, question

from synaptic.backends.pool.node.state import NodeState
from synaptic.messages import Finished, Timeouts

PLACES = 4
AT_ONCE = 24
NODE = {"seconds_per_call": 0.05, "seconds_per_token": 0.003, "tokens": None, "loaded": ["m"], "parallel": PLACES}
PATIENT = Timeouts(first_token=30.0, idle=30.0)
IMPATIENT = Timeouts(first_token=1.5, idle=1.0)

PHASES = {
    "before headers": {"kind": "hang_before_headers"},
    "before the first token": {"kind": "hang_after_n", "after": 0},
    "in mid-stream": {"kind": "hang_after_n", "after": 3},
}


@pytest.fixture(autouse=True)
def caps_hold(monkeypatch):
    """No node ever gets a call more than its cap is at that moment."""
    over = []
    claim = NodeState.claim

    def watched(self, model, end):
        claim(self, model, end)
        if self.in_flight > self.cap:
            over.append((self.name, self.in_flight, self.cap))

    monkeypatch.setattr(NodeState, "claim", watched)
    yield
    assert over == []


class Load:
    """Calls that keep coming, so many at once, each different, until the load is ended."""

    def __init__(self, pool, timeouts):
        self.pool = pool
        self.timeouts = timeouts
        self.answers = []
        self.ending = False
        self.asked = 0

    async def worker(self):
        while not self.ending:
            self.asked += 1
            request = question(f"Question {self.asked}", tokens=4 + self.asked % 7, timeouts=self.timeouts)
            self.answers.append((request, await ask(self.pool, request)))

    async def more(self, count=AT_ONCE):
        """Return after so many further answers."""
        until = len(self.answers) + count
        async with asyncio.timeout(60):
            while len(self.answers) < until:
                await asyncio.sleep(0.01)


def check(answers):
    """Check that each call was answered once, with its whole text and nothing else."""
    for request, answer in answers:
        assert answer.error is None, answer.error
        assert answer.ends == 1
        assert isinstance(answer.chunks[-1], Finished), "something came after the end"
        assert answer.text == expected(request)


def expected(request):
    messages = [{"role": message.role, "content": message.content} for message in request.messages]
    return "".join(
        write_script(Config(tokens=None), {"messages": messages, "options": {"num_predict": request.max_tokens}}).tokens
    )


@asynccontextmanager
async def load_on(pool, *, at_once=AT_ONCE, timeouts=PATIENT):
    """Keep calls coming while the block runs; afterwards all have been answered in full."""
    load = Load(pool, timeouts)
    workers = [asyncio.create_task(load.worker()) for _ in range(at_once)]
    try:
        await load.more()
        yield load
        await load.more()
        load.ending = True
        async with asyncio.timeout(60):
            await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    check(load.answers)


@asynccontextmanager
async def children(count=3, **config):
    async with AsyncExitStack() as stack:
        nodes = [child_node(**{**NODE, **config}) for _ in range(count)]
        yield await asyncio.gather(*(stack.enter_async_context(node) for node in nodes))


@asynccontextmanager
async def neighbours(count=3, **config):
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(FaultyNode(**{**NODE, **config})) for _ in range(count)]


async def until(condition, seconds=60.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def hold_calls(trial, node, victim, phase):
    """Have all places of a node taken by calls that have come as far as ``phase``."""
    await node.control(fault=PHASES[phase])
    await until(lambda: trial.state(victim).in_flight == trial.state(victim).limit)
    await asyncio.sleep(0.1)


async def used_again(trial, victim):
    served = trial.pool.members[victim].served
    await until(lambda: trial.pool.members[victim].served > served + 2)


async def test_each_node_in_turn_is_killed_at_each_moment():
    async with children() as nodes, pool_over(nodes, parallel=PLACES) as trial, load_on(trial.pool) as load:
        for phase in PHASES:
            for victim, node in enumerate(nodes):
                await hold_calls(trial, node, victim, phase)
                node.kill()
                await until(lambda: trial.state(victim).cap == 0)  # noqa: B023  (awaited here)
                await load.more()
                await node.restart()
                await used_again(trial, victim)
        assert min(member.errors for member in trial.pool.members.values()) >= len(PHASES)
        assert sum(bool(answer.continued) for _, answer in load.answers) >= len(nodes)


async def test_each_node_in_turn_is_started_again_under_its_calls():
    async with children() as nodes, pool_over(nodes, parallel=PLACES) as trial, load_on(trial.pool) as load:
        for victim, (phase, node) in enumerate(zip(PHASES, nodes, strict=True)):
            await hold_calls(trial, node, victim, phase)
            await node.restart()
            await used_again(trial, victim)
        assert any(answer.restarts or answer.continued for _, answer in load.answers)


@pytest.mark.parametrize("phase", PHASES)
async def test_a_node_is_frozen_and_goes_on(phase):
    async with children() as nodes, pool_over(nodes, parallel=PLACES) as trial, load_on(trial.pool) as load:
        victim = list(PHASES).index(phase)
        await hold_calls(trial, nodes[victim], victim, phase)
        nodes[victim].stop_signal()
        try:
            await until(lambda: trial.state(victim).in_flight == 0)
            assert trial.state(victim).cap == 0
            await load.more(60)
        finally:
            nodes[victim].cont()
        await nodes[victim].control(fault=None)
        await used_again(trial, victim)
        assert any(answer.continued or answer.restarts for _, answer in load.answers)


async def test_all_nodes_die_and_one_comes_back_then_the_others():
    async with children() as nodes, pool_over(nodes, parallel=PLACES) as trial, load_on(trial.pool) as load:
        for node in nodes:
            node.kill()
        await until(lambda: all(trial.state(index).cap == 0 for index in range(3)))
        before = len(load.answers)
        await nodes[1].restart()
        await load.more()
        assert {answer.node for _, answer in load.answers[before:]} == {"n1"}
        for other in (0, 2):
            await nodes[other].restart()
            await used_again(trial, other)


async def test_a_name_that_does_not_resolve_costs_nothing():
    async with neighbours(2) as nodes:
        lost = SimpleNamespace(url="http://no-such-host.invalid:11434")
        async with pool_over([lost, *nodes], parallel=PLACES) as trial, load_on(trial.pool) as load:
            await load.more(200)
        assert "does not resolve" in trial.pool.statuses()[0].reason


async def test_headers_that_come_byte_by_byte_keep_no_call_for_ever():
    async with neighbours() as nodes, pool_over(nodes, parallel=PLACES) as trial:
        async with load_on(trial.pool, timeouts=IMPATIENT) as load:
            nodes[0].fail("slow_headers", seconds=0.1)
            await until(lambda: trial.state(0).cap == 0)
            await load.more(100)
            nodes[0].heal()
            await used_again(trial, 0)
        assert trial.pool.members[0].errors >= 3


async def test_a_node_that_lies_about_its_memory_takes_its_share_of_the_calls():
    async with neighbours() as nodes, pool_over(nodes, parallel=PLACES) as trial, load_on(trial.pool) as load:
        nodes[0].fail("lie_in_ps")
        await load.more(300)
        assert min(member.served for member in trial.pool.members.values()) > 30
        nodes[0].heal()


HARMLESS_ALONE = ("not_found",)
"""Faults that end a call where every node has them, and rightly so: only the first node gets them."""


@pytest.mark.parametrize("seed", range(2))
async def test_faults_of_every_kind_come_and_go(seed):
    """One node of three behaves at any time; which one changes."""
    rng = random.Random(seed)
    kinds = sorted(get_args(Kind))
    rng.shuffle(kinds)
    async with neighbours() as nodes, pool_over(nodes, parallel=PLACES, failovers=30) as trial:
        async with load_on(trial.pool, timeouts=IMPATIENT) as load:
            faulty = []
            for kind in kinds * 2:
                node = nodes[0] if kind in HARMLESS_ALONE else rng.choice([one for one in nodes if one not in faulty])
                node.fail(kind, after=rng.randrange(6), seconds=rng.choice([0.0, 0.02]), reset=rng.random() < 0.5)
                faulty = [*faulty, node][-2:] if node not in faulty else faulty
                for other in nodes:
                    if other not in faulty:
                        other.heal()
                await asyncio.sleep(rng.uniform(0.05, 0.35))
            for node in nodes:
                node.heal()
        assert len(load.answers) > 100


async def test_ten_thousand_waiting_calls_are_cancelled_while_a_hundred_run():
    async with neighbours(4, parallel=25, seconds_per_call=4.0) as nodes:
        async with pool_over(nodes, parallel=25, queue=20_000) as trial:
            running = [asyncio.create_task(ask(trial.pool, question(f"Running {n}"))) for n in range(100)]
            await until(lambda: sum(len(node.asked) for node in nodes) == 100)  # before the loop has much to do
            waiting = [asyncio.create_task(ask(trial.pool, question(f"Waiting {n}"))) for n in range(10_000)]
            await until(lambda: len(trial.pool.dispatcher.waiting) == 10_000)
            for task in waiting:
                task.cancel()
            left = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(one, asyncio.CancelledError) for one in left)
            assert len(trial.pool.dispatcher.waiting) == 0
            answers = await asyncio.gather(*running)
            check((question(f"Running {n}"), answer) for n, answer in enumerate(answers))
            assert all(not answer.restarts and not answer.continued for answer in answers)
        assert sum(len(node.asked) for node in nodes) == 100


async def test_a_loop_that_is_blocked_blames_no_node():
    tight = Timeouts(first_token=0.9, idle=0.7)
    async with children() as nodes, pool_over(nodes, parallel=PLACES) as trial:
        async with load_on(trial.pool, timeouts=tight) as load:
            for _ in range(4):
                time.sleep(1.1)  # noqa: ASYNC251  (that is the point)
                await load.more(30)
        assert all(not answer.restarts and not answer.continued for _, answer in load.answers)
        assert [member.errors for member in trial.pool.members.values()] == [0, 0, 0]
