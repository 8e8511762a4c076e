"""Binding waiting calls to nodes: late, in order, never above a cap, and each exactly once."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synaptic.backends.pool.calls.waiter import Waiter
from synaptic.backends.pool.dispatch import Dispatcher, Limits
from synaptic.backends.pool.learned.rates import Sample
from synaptic.backends.pool.node.state import CallShape, ModelState, NodeState
from synaptic.errors import BackendUnavailable, ModelNotFound, PoolSaturated

MODEL = "m:latest"


def node(key, *, cap=1, seconds=None, models=(MODEL,), cold=()):
    state = NodeState(key, f"node{key}", limit=cap, cap=cap)
    for name in models:
        model = state.models[name] = ModelState(name, resident=name not in cold)
        if seconds is not None:
            model.rates.learn(Sample(first_token=seconds, total=seconds, prompt_tokens=0, output_tokens=0))
    return state


def dispatcher(*nodes, **limits):
    return Dispatcher(list(nodes), Limits(**limits), rng=random.Random(7))


def call(tag="", *, model=MODEL, priority=0, rank=0):
    return Waiter(CallShape(model), tag=tag, priority=priority, rank=rank)


async def turns(count=3):
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_free_node_is_taken_at_once_and_given_back_once():
    desk = node(0)
    pool = dispatcher(desk)
    lease = await pool.acquire(call())
    assert (lease.node, desk.in_flight, desk.busy_models) == (desk, 1, {MODEL: 1})
    lease.release()
    lease.release()
    assert (desk.in_flight, desk.ends, desk.busy_models) == (0, [], {})


async def test_calls_wait_in_one_queue_and_go_by_priority():
    desk = node(0)
    pool = dispatcher(desk)
    held = await pool.acquire(call())
    order = []

    async def one(tag, **options):
        lease = await pool.acquire(call(tag, **options))
        order.append(tag)
        await turns()
        lease.release()

    tasks = [
        asyncio.create_task(one("run")),
        asyncio.create_task(one("critical", rank=5)),
        asyncio.create_task(one("batch", priority=-1000)),
        asyncio.create_task(one("interactive", priority=1000)),
    ]
    await turns()
    held.release()
    await asyncio.gather(*tasks)
    assert order == ["interactive", "critical", "run", "batch"]


async def test_a_fast_busy_node_is_waited_for_and_a_long_queue_fills_the_slow_one():
    fast, slow = node(0, seconds=0.1), node(1, seconds=1.0)
    pool = dispatcher(fast, slow)
    first = await pool.acquire(call())
    assert first.node is fast
    second = asyncio.create_task(pool.acquire(call()))
    await turns()
    assert not second.done()  # 0.2 s at the fast one is better than 1 s at the slow one
    more = [asyncio.create_task(pool.acquire(call())) for _ in range(12)]
    await turns()
    assert slow.in_flight == 1  # the eleventh in the line is served earlier by the slow one
    assert len(pool.waiting) == 12
    for task in (second, *more):
        task.cancel()
    await asyncio.gather(second, *more, return_exceptions=True)
    assert len(pool.waiting) == 0


async def test_calls_of_a_model_that_cannot_go_do_not_hold_up_those_of_another():
    desk, attic = node(0, models=("a",)), node(1, models=("b",))
    pool = dispatcher(desk, attic)
    held = await pool.acquire(call(model="a"))
    stuck = [asyncio.create_task(pool.acquire(call(model="a", priority=9))) for _ in range(200)]
    await turns()
    lease = await asyncio.wait_for(pool.acquire(call(model="b")), 20)
    assert lease.node is attic
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)
    held.release()
    lease.release()


async def test_the_queue_is_bounded_and_says_how_long_it_would_take():
    pool = dispatcher(node(0, seconds=2.0), queue=2)
    await pool.acquire(call())
    waiting = [asyncio.create_task(pool.acquire(call())) for _ in range(2)]
    await turns()
    with pytest.raises(PoolSaturated, match="2 calls of m:latest wait already") as refused:
        await pool.acquire(call())
    assert refused.value.estimated_wait == pytest.approx(6.0)
    assert refused.value.retry_after == refused.value.estimated_wait
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_who_waits_too_long_is_told_so():
    pool = dispatcher(node(0), wait=0.05)
    lease = await pool.acquire(call())
    with pytest.raises(PoolSaturated, match="no node had a free place for m:latest"):
        await pool.acquire(call())
    lease.release()
    assert len(pool.waiting) == 0
    (await pool.acquire(call())).release()


async def test_a_model_that_nobody_has_is_refused_at_once():
    with pytest.raises(ModelNotFound, match=r"no node can serve 'x:1'.*node0: does not have the model"):
        await dispatcher(node(0)).acquire(call(model="x:1"))


async def test_while_all_are_down_calls_wait_for_one_to_come_back():
    desk = node(0)
    desk.cap, desk.why_closed = 0, "nothing answers there"
    pool = dispatcher(desk, recovery=30.0)
    waiting = asyncio.create_task(pool.acquire(call()))
    await turns()
    assert not waiting.done()
    desk.cap = 1
    pool.touched(desk)
    (await asyncio.wait_for(waiting, 20)).release()


async def test_but_not_for_ever():
    desk = node(0)
    desk.cap, desk.why_closed = 0, "nothing answers there"
    pool = dispatcher(desk, recovery=0.05)
    with pytest.raises(BackendUnavailable, match=r"came back within 0\.05 s \(node0: nothing answers there\)"):
        await asyncio.wait_for(pool.acquire(call()), 20)
    assert len(pool.waiting) == 0


async def test_ten_thousand_waiting_calls_are_cancelled_at_once():
    desk = node(0)
    pool = dispatcher(desk)
    held = await pool.acquire(call())
    tasks = [asyncio.create_task(pool.acquire(call(str(n)))) for n in range(10_000)]
    await turns()
    assert len(pool.waiting) == 10_000
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    assert len(pool.waiting) == 0
    assert desk.in_flight == 1
    held.release()
    (await pool.acquire(call())).release()


async def test_a_place_that_is_granted_to_a_cancelled_call_goes_to_the_next():
    desk = node(0)
    pool = dispatcher(desk)
    held = await pool.acquire(call())
    first, second = asyncio.create_task(pool.acquire(call())), asyncio.create_task(pool.acquire(call()))
    await turns()
    held.release()
    await asyncio.sleep(0)  # the pass is made: the first has its place, and does not know it yet
    first.cancel()
    lease = await asyncio.wait_for(second, 20)
    assert desk.in_flight == 1
    lease.release()
    assert first.cancelled() or isinstance(first.exception(), asyncio.CancelledError)


async def test_a_closed_pool_turns_everybody_away():
    pool = dispatcher(node(0))
    lease = await pool.acquire(call())
    waiting = asyncio.create_task(pool.acquire(call()))
    await turns()
    pool.close()
    with pytest.raises(BackendUnavailable, match="closed"):
        await waiting
    with pytest.raises(BackendUnavailable, match="closed"):
        await pool.acquire(call())
    lease.release()


async def test_decisions_are_kept_with_everybody_who_was_considered():
    pool = dispatcher(node(0, seconds=1.0), node(1, seconds=5.0))
    lease = await pool.acquire(call("write"))
    (past,) = pool.decisions
    assert (past.tag, past.model, past.pick.node) == ("write", MODEL, lease.node)
    assert [verdict.node.name for verdict in past.pick.verdicts] == ["node0", "node1"]
    lease.release()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_caps_hold_and_every_call_ends_once_whatever_happens(data):
    """Random nodes, calls, cancellations and caps that change while calls run."""
    nodes = [
        node(
            key,
            cap=data.draw(st.integers(1, 3)),
            seconds=data.draw(st.sampled_from([None, 0.001, 0.01])),
            models=data.draw(st.sampled_from([("a",), ("b",), ("a", "b")])),
            cold=data.draw(st.sampled_from([(), ("a",)])),
        )
        for key in range(data.draw(st.integers(1, 4)))
    ]
    models = sorted({name for one in nodes for name in one.models})
    calls = data.draw(
        st.lists(st.tuples(st.sampled_from(models), st.integers(-1, 1), st.booleans(), st.integers(0, 4)), max_size=40)
    )
    shrink = data.draw(st.integers(0, len(nodes) - 1))
    ended: list[int] = []

    async def one(pool, number, model, priority, turns_held):
        lease = await pool.acquire(call(str(number), model=model, priority=priority))
        try:
            assert all(each.in_flight <= each.limit for each in nodes)
            assert sum(lease.node.busy_models.values()) == lease.node.in_flight == len(lease.node.ends)
            await turns(turns_held)
        finally:
            lease.release()
        ended.append(number)

    async def play():
        pool = dispatcher(*nodes)
        tasks = []
        for number, (model, priority, cancelled, held) in enumerate(calls):
            tasks.append((asyncio.create_task(one(pool, number, model, priority, held)), cancelled))
            if number == len(calls) // 2:
                nodes[shrink].cap = max(1, nodes[shrink].cap - 1)
                pool.touched(nodes[shrink])
            if number % 3 == 0:
                await asyncio.sleep(0)
        for task, cancelled in tasks:
            if cancelled:
                task.cancel()
        async with asyncio.timeout(60):
            results = await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
        assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results), results
        assert len(ended) == len(set(ended)) == sum(result is None for result in results)
        assert len(pool.waiting) == 0
        assert pool.in_flight == 0

    asyncio.run(play())
