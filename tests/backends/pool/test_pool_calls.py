"""The way of a call through the pool: whatever is done to it, it ends once, and nothing is left of it."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from chunk_support import collected, finished, of_kind
from faulty_node import FaultyNode
from pool_support import ask, ask_many, pool_over, question, whole_text

from synaptic.backends.pool.calls.retry_budget import RetryBudget
from synaptic.backends.pool.node.health import Health
from synaptic.backends.pool.node.state import NodeState
from synaptic.backends.schema_sample import sample_value
from synaptic.errors import BackendError, BackendUnavailable, CallTimeout, FirstTokenTimeout
from synaptic.messages import Chunk, Continued, Finished, Restarted, Timeouts

FAST = {"seconds_per_call": 0.002, "seconds_per_token": 0.001, "tokens": None}
SHORT = Timeouts(first_token=0.5, idle=0.3)
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a", "b"]}
FAULTS = (
    "ok", "ok", "error", "busy_503", "flaky", "not_found", "slow", "hang_before_headers", "slow_headers",
    "hang_after_n", "drop_after_n", "error_line_after_n", "malformed_json", "no_done", "lie_in_ps", "refuse",
)  # fmt: skip


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


class nodes_of(AsyncExitStack):  # noqa: N801  (reads like a function)
    def __init__(self, count, **config):
        super().__init__()
        self.nodes = [FaultyNode(**{**FAST, **config}) for _ in range(count)]

    async def __aenter__(self):
        await super().__aenter__()
        for node in self.nodes:
            await self.enter_async_context(node)
        return self.nodes


def nothing_is_left(pool):
    """Check what no call may leave behind, beside what the trial checks itself."""
    parts = pool._services
    assert (parts.budget.active, parts.budget.retrying, len(parts.budget._waiting)) == (0, 0, 0)
    assert len(parts.sentinel) == 0


@dataclass
class Reader:
    """Reads one call as a consumer may: to its end, or only so far, quickly or not."""

    pool: object
    request: object
    most: int | None = None
    pause: float = 0.0
    chunks: list[Chunk] = field(default_factory=list)
    ends: int = 0
    after_the_end: list[object] = field(default_factory=list)

    @property
    def text(self) -> str:
        return collected(self.chunks)

    async def read(self):
        stream = self.pool.stream(self.request)
        seen = 0
        try:
            async for chunk in stream:
                if self.ends:
                    self.after_the_end.append(chunk)
                self.chunks.append(chunk)
                self.ends += isinstance(chunk, Finished)
                seen += 1
                if self.most is not None and seen >= self.most:
                    return "left"
                if self.pause:
                    await asyncio.sleep(self.pause)
        finally:
            await stream.aclose()
        return "read"


def right_answer(node, request):
    return json.dumps(sample_value(SCHEMA)) if request.schema else whole_text(node, request)


async def disturb(task, rng):
    """Cancel a call at some moment, now and then twice in a row."""
    await asyncio.sleep(rng.choice([0.0, rng.uniform(0.0, 0.05), rng.uniform(0.0, 0.5)]))
    for _ in range(rng.choice([1, 1, 2, 3])):
        task.cancel()
        for _ in range(rng.randrange(3)):
            await asyncio.sleep(0)


async def change_faults(nodes, rng):
    while True:
        node = rng.choice(nodes)
        node.fail(
            rng.choice(FAULTS),
            after=rng.randrange(7),
            times=rng.choice([None, 1, 2]),
            seconds=rng.choice([0.0, 0.01]),
            reset=rng.random() < 0.5,
            factor=4.0,
        )
        await asyncio.sleep(rng.uniform(0.01, 0.2))


@pytest.mark.parametrize("seed", range(24))
async def test_random_faults_cancellations_and_readers(seed):
    """Every call is read whole, fails with one of our errors, or is cancelled; nothing is left of any."""
    rng = random.Random(seed)
    hedge, failovers, parallel = seed % 2 == 1, seed // 2 % 4, rng.randrange(1, 4)
    async with nodes_of(rng.randrange(1, 4)) as nodes:
        options = {"hedge": hedge, "failovers": failovers, "recovery": 1.5, "wait": 6.0}
        async with pool_over(nodes, parallel=parallel, **options) as trial:
            if hedge:
                assert all(answer.error is None for answer in await ask_many(trial.pool, 40))
            readers, tasks, disturbing = [], [], []
            faults = asyncio.create_task(change_faults(nodes, rng))
            for number in range(40):
                request = question(
                    f"{seed}/{number}",
                    **({"schema": SCHEMA, "tokens": 40} if rng.random() < 0.25 else {"tokens": rng.randrange(1, 12)}),
                    timeouts=SHORT,
                )
                most = rng.randrange(1, 6) if rng.random() < 0.15 else None
                readers.append(Reader(trial.pool, request, most, pause=rng.choice([0.0, 0.0, 0.01])))
                tasks.append(asyncio.create_task(readers[-1].read()))
                if rng.random() < 0.3:
                    disturbing.append(asyncio.create_task(disturb(tasks[-1], rng)))
                await asyncio.sleep(rng.choice([0.0, 0.0, 0.02]))
            async with asyncio.timeout(60):
                results = await asyncio.gather(*tasks, return_exceptions=True)
                await asyncio.gather(*disturbing)
            faults.cancel()
            await asyncio.gather(faults, return_exceptions=True)
            for node in nodes:
                node.heal()
            for reader, result in zip(readers, results, strict=True):
                assert reader.after_the_end == []
                assert reader.ends <= 1
                if result == "read":
                    assert reader.ends == 1
                if reader.ends:
                    assert reader.text == right_answer(nodes[0], reader.request)
                assert isinstance(result, str | BackendError | asyncio.CancelledError), repr(result)
            await trial.settled()
            nothing_is_left(trial.pool)


async def break_off_at(trial, nodes, request, **fault):
    """Have the call begin at the first node, and break off there; the second one is free by then."""
    nodes[0].fail(**fault)
    trial.state(1).cap = 0
    async with aclosing(trial.pool.stream(request)) as chunks:
        async for chunk in chunks:
            if trial.state(1).cap == 0:
                trial.state(1).cap = 1
                trial.pool.dispatcher.touched(trial.state(1))
            yield chunk


@pytest.mark.parametrize("schema", [None, SCHEMA], ids=["continued", "begun anew"])
async def test_whoever_leaves_at_any_chunk_leaves_nothing_behind(schema):
    request = question(schema=schema, tokens=40)
    async with nodes_of(2, seconds_per_token=0.002) as nodes, pool_over(nodes) as trial:
        seen, most = [], 0
        while len(seen) == most:
            seen, most = [], most + 1
            async with aclosing(break_off_at(trial, nodes, request, kind="drop_after_n", after=2)) as chunks:
                async for chunk in chunks:
                    seen.append(chunk)
                    if len(seen) == most:
                        break
            assert trial.pool.dispatcher.in_flight == 0
            nothing_is_left(trial.pool)
            nodes[0].heal()
            for index in (0, 1):  # as good as new
                member = trial.pool.members[index]
                member.health = Health(1)
                member.health.answered(0.0)
                trial.pool._changed(member)
        assert finished(seen).finish_reason == "stop"
        assert len(of_kind(Restarted, seen)) == (schema is not None)
        assert len(of_kind(Continued, seen)) == (schema is None)


async def test_a_slow_reader_is_not_the_nodes_silence():
    async with nodes_of(1) as nodes, pool_over(nodes, failovers=0) as trial:
        reader = Reader(trial.pool, question(timeouts=Timeouts(first_token=0.3, idle=0.3)), pause=0.5)
        assert await reader.read() == "read"
        assert reader.text == whole_text(nodes[0], question())
        assert trial.pool.members[0].errors == 0


async def test_a_pool_that_is_closed_ends_what_runs_and_what_waits():
    async with nodes_of(2) as nodes, pool_over(nodes, parallel=2) as trial:
        nodes[0].fail("hang_before_headers")
        nodes[1].fail("hang_after_n", after=2)
        tasks = [asyncio.create_task(ask(trial.pool, question(f"{n}"))) for n in range(20)]
        async with asyncio.timeout(60):
            while trial.pool.dispatcher.in_flight < 4:
                await asyncio.sleep(0.01)
        await trial.pool.aclose()
        async with asyncio.timeout(60):
            answers = await asyncio.gather(*tasks)
        assert {type(answer.error) for answer in answers} == {BackendUnavailable}
        assert all("closed" in answer.error.message for answer in answers)
        nothing_is_left(trial.pool)
        assert isinstance((await ask(trial.pool, question())).error, BackendUnavailable)


async def test_calls_of_equal_priority_are_served_in_the_order_in_which_they_came():
    async with nodes_of(1) as nodes, pool_over(nodes) as trial:
        answers = await ask_many(trial.pool, 50, priority=3, rank=2)
        assert all(answer.error is None for answer in answers)
        assert [call.messages[0]["content"] for call in nodes[0].asked] == [f"Question {n}" for n in range(50)]


async def test_a_call_that_a_node_has_failed_keeps_its_place_and_is_not_turned_away_by_a_full_queue():
    async with nodes_of(1, seconds_per_call=0.2) as nodes, pool_over(nodes, queue=6) as trial:
        nodes[0].fail("error", times=1)
        answers = await ask_many(trial.pool, 7)
        assert [answer.error for answer in answers] == [None] * 7
        said = [call.messages[0]["content"] for call in nodes[0].asked]
        assert said.index("Question 0", 1) <= 4  # the pause before it is asked again lets one or two pass


async def test_all_who_wait_are_told_when_nobody_comes_back():
    async with nodes_of(2) as nodes, pool_over(nodes, recovery=0.5) as trial:
        for node in nodes:
            node.fail("refuse")
        async with asyncio.timeout(60):
            answers = await ask_many(trial.pool, 300)
        assert {type(answer.error) for answer in answers} == {BackendUnavailable}


async def test_a_node_that_is_listed_twice_is_used_once_and_its_cap_holds():
    async with nodes_of(2) as nodes:
        twice = [nodes[0], SimpleNamespace(url=nodes[0].url.replace("127.0.0.1", "localhost")), nodes[1]]
        async with pool_over(twice, parallel=[1, 2, 1]) as trial:
            assert all(answer.error is None for answer in await ask_many(trial.pool, 40))
            assert len(trial.pool.members) == 2
            assert nodes[0].counters.peak_in_flight <= 2


async def test_time_spent_waiting_for_another_node_is_not_the_calls():
    async with nodes_of(2) as nodes, pool_over(nodes) as trial:
        nodes[0].fail("drop_after_n", after=2)
        trial.state(1).cap = 0
        task = asyncio.create_task(ask(trial.pool, question(timeouts=Timeouts(total=0.8))))
        await nodes[0].wait_for(lambda: nodes[0].asked)
        nodes[0].fail("refuse")
        await asyncio.sleep(1.5)
        trial.state(1).cap = 1
        trial.pool.dispatcher.touched(trial.state(1))
        answer = await asyncio.wait_for(task, 60)
        assert (answer.error, answer.text) == (None, whole_text(nodes[1], question()))
        nodes[0].heal()


async def test_the_total_timeout_goes_on_over_failovers():
    async with nodes_of(3, seconds_per_token=0.02) as nodes, pool_over(nodes, failovers=9) as trial:
        for node in nodes:
            node.fail("drop_after_n", after=20)
        answer = await asyncio.wait_for(ask(trial.pool, question(tokens=400, timeouts=Timeouts(total=1.0))), 60)
        assert isinstance(answer.error, CallTimeout)
        assert len(answer.continued) >= 1
        for node in nodes:
            node.heal()


async def test_each_node_has_the_whole_time_to_its_first_token():
    async with nodes_of(3) as nodes, pool_over(nodes, failovers=1) as trial:
        for node in nodes:
            node.fail("hang_before_headers")
        answer = await asyncio.wait_for(ask(trial.pool, question(timeouts=Timeouts(first_token=0.3))), 60)
        assert isinstance(answer.error, FirstTokenTimeout)
        assert sum(len(node.asked) for node in nodes) == 2
        for node in nodes:
            node.heal()


async def test_a_text_that_reached_its_limit_needs_no_other_node():
    async with nodes_of(1) as nodes, pool_over(nodes, recovery=5.0) as trial:
        nodes[0].fail("drop_after_n", after=5)
        task = asyncio.create_task(ask(trial.pool, question(tokens=5)))
        await nodes[0].wait_for(lambda: nodes[0].asked and nodes[0].counters.in_flight == 0)
        nodes[0].fail("refuse")
        answer = await asyncio.wait_for(task, 20)
        assert (answer.error, answer.finish, answer.ends) == (None, "length", 1)
        assert answer.text == whole_text(nodes[0], question(tokens=5))
        nodes[0].heal()


async def test_a_node_that_fails_a_hedged_call_is_held_to_account():
    async with nodes_of(2, loaded=["m"]) as nodes, pool_over(nodes, hedge=True, parallel=4) as trial:
        assert all(answer.error is None for answer in await ask_many(trial.pool, 60))
        for node in nodes:
            node.gate.clear()
        nodes[0].fail("error")
        trial.state(1).cap = 0
        task = asyncio.create_task(ask(trial.pool, question("hedged")))
        for node in nodes:
            await node.wait_for(lambda node=node: node.asked[-1].messages[0]["content"] == "hedged")
            trial.state(1).cap = 4
            trial.pool.dispatcher.touched(trial.state(1))
        nodes[0].gate.set()
        await nodes[0].wait_until_idle()
        for _ in range(100):  # turns of the loop, which reads what has arrived in the first
            await asyncio.sleep(0)
        nodes[1].gate.set()
        answer = await asyncio.wait_for(task, 60)
        assert (answer.error, answer.node, answer.restarts) == (None, "n1", [])
        assert trial.pool.members[0].errors == 1
        nodes[0].heal()


async def test_a_turn_in_the_budget_that_is_given_and_cancelled_at_once_is_a_cancellation():
    budget = RetryBudget(at_least=1)
    await budget.enter()
    task = asyncio.create_task(budget.enter())
    await asyncio.sleep(0)
    task.cancel()
    budget.leave()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert budget.retrying == 0
