"""The order in which entries go, and that none starves."""

from __future__ import annotations

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from synaptic.waiting import PATIENCE, PriorityQueue, QueueEntry


class Named(QueueEntry):
    def __init__(self, name, *, priority=0, rank=0, lane="m"):
        super().__init__(priority=priority, rank=rank, lane=lane)
        self.name = name


def queue_of(*entries, numbers=None):
    queue = PriorityQueue(numbers)
    for entry in entries:
        queue.add(entry)
    return queue


def order(queue, most=100):
    return [entry.name for entry in queue.in_order(most)]


def test_priority_goes_before_rank_and_rank_before_arrival():
    queue = queue_of(
        Named("first"),
        Named("second"),
        Named("long way to go", rank=3),
        Named("interactive", priority=1000),
        Named("batch", priority=-1000, rank=9),
    )
    assert order(queue) == ["interactive", "long way to go", "first", "second", "batch"]


def test_the_order_holds_across_lanes():
    queue = queue_of(Named("a1", lane="a"), Named("b1", lane="b", priority=1), Named("a2", lane="a", priority=2))
    assert order(queue) == ["a2", "b1", "a1"]
    assert queue.next().name == "a2"
    assert queue.length("a") == 2
    assert queue.length("c") == 0
    assert sorted(queue.lanes()) == ["a", "b"]


def test_of_one_lane_no_more_are_looked_at_than_asked_for():
    queue = queue_of(*(Named(f"a{n}", lane="a") for n in range(5)), Named("b", lane="b", priority=-1))
    assert order(queue, most=2) == ["a0", "a1", "b"]


def test_an_entry_that_comes_again_keeps_its_arrival():
    early, late = Named("early"), Named("late")
    queue = queue_of(early, late)
    queue.remove(early, served=True)
    queue.add(early)
    assert order(queue) == ["early", "late"]
    assert queue.oldest is early
    assert early.arrival == 1


def test_an_entry_that_was_overtaken_too_often_goes_next():
    patient = Named("patient")
    queue = queue_of(patient)
    for n in range(PATIENCE):
        faster = Named(f"urgent{n}", priority=1)
        queue.add(faster)
        assert order(queue)[0] == queue.next().name == faster.name
        queue.remove(faster, served=True)
    queue.add(Named("one more", priority=1))
    assert order(queue) == ["patient", "one more"]
    assert queue.next() is patient
    queue.remove(patient, served=True)
    queue.add(Named("later"))
    assert order(queue) == ["one more", "later"]  # the next one begins with all its patience


def test_entries_that_give_up_do_not_count_as_overtaking():
    queue = queue_of(Named("patient"))
    for n in range(2 * PATIENCE):
        gone = Named(f"gone{n}", priority=1)
        queue.add(gone)
        queue.remove(gone, served=False)
    queue.add(Named("urgent", priority=1))
    assert order(queue)[0] == "urgent"


def test_later_arrivals_in_another_queue_overtake_and_earlier_ones_do_not():
    numbers = count(1)
    other = queue_of(*(Named(f"before{n}") for n in range(PATIENCE)), numbers=numbers)
    queue = queue_of(Named("patient"), Named("urgent", priority=1), numbers=numbers)
    for entry in list(other):
        queue.overtaken_by(entry)
    assert not queue.is_impatient
    for n in range(PATIENCE):
        later = Named(f"later{n}")
        other.add(later)
        queue.overtaken_by(later)
    assert queue.is_impatient
    assert order(queue) == ["patient", "urgent"]


@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 3), st.sampled_from("abc"))), st.data())
def test_it_stays_sorted_whatever_comes_and_goes(arrivals, data):
    queue = PriorityQueue()
    inside = []
    for priority, rank, lane in arrivals:
        entry = Named("", lane=lane, priority=priority, rank=rank)
        queue.add(entry)
        inside.append(entry)
        if data.draw(st.booleans()):
            gone = inside.pop(data.draw(st.integers(0, len(inside) - 1)))
            queue.remove(gone, served=False)
            assert gone not in queue
    assert list(queue.in_order(1000)) == sorted(inside)
    assert len(queue) == len(inside)
    assert list(queue) == sorted(inside, key=lambda entry: entry.arrival)
