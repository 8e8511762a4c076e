"""The order in which waiting calls go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from synaptic.backends.pool.node.state import CallShape
from synaptic.backends.pool.queue import PATIENCE, Waiter, WaitingCalls


def waiter(tag, *, model="m:latest", priority=0, rank=0):
    return Waiter(CallShape(model), tag=tag, priority=priority, rank=rank)


def queue_of(*waiters):
    queue = WaitingCalls()
    for one in waiters:
        queue.add(one)
    return queue


def order(queue, most=100):
    return [one.tag for one in queue.in_order(most)]


def test_priority_goes_before_rank_and_rank_before_arrival():
    queue = queue_of(
        waiter("first"),
        waiter("second"),
        waiter("long way to go", rank=3),
        waiter("interactive", priority=1000),
        waiter("batch", priority=-1000, rank=9),
    )
    assert order(queue) == ["interactive", "long way to go", "first", "second", "batch"]


def test_the_order_holds_across_models():
    queue = queue_of(waiter("a1", model="a"), waiter("b1", model="b", priority=1), waiter("a2", model="a", priority=2))
    assert order(queue) == ["a2", "b1", "a1"]
    assert queue.length("a") == 2
    assert sorted(queue.models()) == ["a", "b"]


def test_of_one_model_no_more_are_looked_at_than_asked_for():
    queue = queue_of(*(waiter(f"a{n}", model="a") for n in range(5)), waiter("b", model="b", priority=-1))
    assert order(queue, most=2) == ["a0", "a1", "b"]


def test_who_was_overtaken_too_often_goes_next():
    patient = waiter("patient")
    queue = queue_of(patient)
    for n in range(PATIENCE):
        faster = waiter(f"urgent{n}", priority=1)
        queue.add(faster)
        assert order(queue)[0] == faster.tag
        queue.remove(faster, served=True)
    queue.add(waiter("one more", priority=1))
    assert order(queue) == ["patient", "one more"]
    queue.remove(patient, served=True)
    queue.add(waiter("later"))
    assert order(queue) == ["one more", "later"]  # patience begins anew with the next


def test_calls_that_give_up_do_not_count_as_overtaking():
    queue = queue_of(waiter("patient"))
    for n in range(2 * PATIENCE):
        gone = waiter(f"gone{n}", priority=1)
        queue.add(gone)
        queue.remove(gone, served=False)
    queue.add(waiter("urgent", priority=1))
    assert order(queue)[0] == "urgent"


@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 3), st.sampled_from("abc"))), st.data())
def test_it_stays_sorted_whatever_comes_and_goes(arrivals, data):
    queue = WaitingCalls()
    inside = []
    for priority, rank, model in arrivals:
        one = waiter("", model=model, priority=priority, rank=rank)
        queue.add(one)
        inside.append(one)
        if data.draw(st.booleans()):
            gone = inside.pop(data.draw(st.integers(0, len(inside) - 1)))
            queue.remove(gone, served=False)
            assert gone not in queue
    assert list(queue.in_order(1000)) == sorted(inside)
    assert len(queue) == len(inside)
    assert list(queue) == sorted(inside, key=lambda one: one.arrival)
