"""Deadlines of streams: what ends a wait, and that a cancellation from outside always wins."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from math import inf

import pytest

from synaptic.errors import BackendUnavailable, CallTimeout, FirstTokenTimeout, IdleTimeout
from synaptic.messages import Timeouts
from synaptic.waiting import Deadline, Deadlines
from synaptic.waiting.deadline import GRACE_SECONDS, LATE_SECONDS

SHORT = 0.02
TURNS = range(1, 13)
GONE = BackendUnavailable("the node is gone")


def bounded(first=None, idle=None, total=None, **options):
    return Deadline(Timeouts(first, idle, total), backend="test", **options)


class Stream:
    """Yields items, each after some turns of the loop, then stalls; notes that it was closed."""

    def __init__(self, items=3, turns=2):
        self.closed = False
        self.items = self._items(items, turns)

    async def _items(self, items, turns):
        try:
            for item in range(items):
                for _ in range(turns):
                    await asyncio.sleep(0)
                yield item
            await asyncio.sleep(60)
        finally:
            self.closed = True


async def read(stream, deadline, got):
    async with aclosing(stream.items) as items:
        with deadline:
            while True:
                got.append(await deadline.next(items))


def timers():
    return [
        handle for handle in asyncio.get_running_loop()._scheduled if "_ring" in repr(handle) and not handle.cancelled()
    ]


@pytest.mark.parametrize(
    ("limits", "items", "error", "text"),
    [
        ((SHORT, 60.0, 60.0), 0, FirstTokenTimeout, "no token came within 0.02 s"),
        ((60.0, SHORT, 60.0), 2, IdleTimeout, "the stream stalled for 0.02 s"),
        ((60.0, 60.0, SHORT), 0, CallTimeout, "the call took longer than 0.02 s"),
        ((None, None, SHORT), 2, CallTimeout, "the call took longer than 0.02 s"),
        ((None, SHORT, None), 2, IdleTimeout, "the stream stalled for 0.02 s"),
    ],
)
async def test_each_bound_has_its_own_error(limits, items, error, text):
    stream, got = Stream(items), []
    with pytest.raises(error) as caught:
        await read(stream, bounded(*limits), got)
    assert (caught.value.message, caught.value.backend) == (text, "test")
    assert caught.value.hint
    assert got == list(range(items))
    assert stream.closed
    assert asyncio.current_task().cancelling() == 0


async def test_an_error_names_what_the_stream_comes_from():
    with pytest.raises(FirstTokenTimeout, match="no token came from attic within") as caught:
        await read(Stream(0), bounded(SHORT, source="attic", node="http://attic"), [])
    assert caught.value.node == "http://attic"


async def test_an_end_that_has_passed_before_the_wait_ends_a_wait_and_nothing_that_is_there_already():
    end = asyncio.get_running_loop().time() - 1.0
    got = []
    with pytest.raises(CallTimeout):
        await read(Stream(2, turns=0), bounded(end=end), got)
    assert got == [0, 1]


async def test_any_work_may_be_bounded():
    with bounded(total=60.0) as deadline:
        assert await deadline.wait(lambda: asyncio.sleep(0, "done")) == "done"
    with bounded(total=SHORT) as deadline, pytest.raises(CallTimeout):
        await deadline.wait(lambda: asyncio.sleep(60))


@pytest.mark.parametrize("turns", TURNS)
async def test_a_cancellation_from_outside_ends_it_at_every_turn(turns):
    stream, got = Stream(), []
    task = asyncio.create_task(read(stream, bounded(60.0, 60.0, 60.0), got))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert stream.closed
    assert timers() == []


@pytest.mark.parametrize("ours_first", [True, False], ids=["ours first", "theirs first"])
@pytest.mark.parametrize("turns", TURNS)
async def test_a_cancellation_from_outside_wins_over_a_deadline_in_the_same_turn(turns, ours_first):
    stream, deadline = Stream(), bounded(60.0, 60.0, 60.0)
    task = asyncio.create_task(read(stream, deadline, []))
    for _ in range(turns):
        await asyncio.sleep(0)
    for act in (lambda: deadline.give_up(GONE), task.cancel)[:: 1 if ours_first else -1]:
        act()
    await asyncio.wait([task])
    assert task.cancelled()
    assert timers() == []


@pytest.mark.parametrize("turns", TURNS)
async def test_a_timeout_around_it_at_every_turn_is_the_one_that_is_told(turns):
    deadline, began = bounded(60.0, 60.0, 60.0), asyncio.Event()

    async def call():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as around:
                began.set()
                asyncio.get_running_loop().call_soon(lambda: count_down(turns, around))
                await read(Stream(), deadline, [])
        return asyncio.current_task().cancelling()

    def count_down(left, around):
        if left:
            asyncio.get_running_loop().call_soon(count_down, left - 1, around)
        else:
            around.reschedule(0)
            asyncio.get_running_loop().call_soon(deadline.give_up, GONE)

    assert await call() == 0


@pytest.mark.parametrize("turns", TURNS)
async def test_a_call_that_is_given_up_at_any_turn_gets_the_error(turns):
    stream, deadline = Stream(), bounded()
    task = asyncio.create_task(read(stream, deadline, []))
    for _ in range(turns):
        await asyncio.sleep(0)
    deadline.give_up(GONE)
    deadline.give_up(BackendUnavailable("the second reason does not count"))
    with pytest.raises(BackendUnavailable, match="the node is gone"):
        await task
    assert task.cancelling() == 0


async def test_work_that_takes_the_cancellation_for_nothing_gives_its_result():
    async def stubborn():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "still here"

    with bounded(SHORT) as deadline:
        assert await deadline.wait(stubborn) == "still here"
        assert await deadline.wait(lambda: asyncio.sleep(0, "and on")) == "and on"
    assert asyncio.current_task().cancelling() == 0


async def test_the_time_between_two_waits_does_not_count_as_silence():
    with bounded(60.0, 0.3) as deadline:
        stream = Stream(3)
        async with aclosing(stream.items) as items:
            for item in range(3):
                assert await deadline.next(items) == item
                await asyncio.sleep(0.4)
            with pytest.raises(IdleTimeout):
                await deadline.next(items)


async def test_deadlines_share_a_timer_and_each_ends_in_its_own_time():
    shared = Deadlines()
    slow, quick = bounded(60.0, timers=shared), bounded(SHORT, timers=shared)
    patient = asyncio.create_task(read(Stream(0), slow, []))
    with pytest.raises(FirstTokenTimeout):
        await read(Stream(0), quick, [])
    assert list(shared) == [slow]
    assert len(timers()) == 1
    patient.cancel()
    await asyncio.wait([patient])
    assert len(shared) == 0
    assert timers() == []


async def test_a_prompt_that_is_being_read_is_no_silence_before_the_first_items_that_come_from_there():
    shared = Deadlines()
    one, other, begun = (bounded(60.0, 60.0, timers=shared) for _ in range(3))
    await begun.next(Stream(1).items)
    before = [deadline.since for deadline in (one, other, begun)]

    shared.heard(generates=True)
    assert [deadline.since for deadline in (one, other, begun)] == before
    shared.heard(generates=False)

    assert one.since == other.since > before[1]
    assert begun.since == before[2]
    for deadline in (one, other, begun):
        deadline.close()


async def test_a_loop_that_was_held_up_reads_what_has_arrived_before_it_gives_up():
    loop = asyncio.get_running_loop()
    arrived = loop.create_future()

    async def items():
        yield await arrived

    def hold_up():
        loop.call_soon(arrived.set_result, "late")  # as what lies in a socket is read after the loop turns again
        time.sleep(2 * LATE_SECONDS)

    loop.call_later(0, hold_up)
    with bounded(LATE_SECONDS / 4) as deadline:
        assert await deadline.next(items()) == "late"


async def test_what_a_loop_was_held_up_is_added_to_the_end_of_the_call():
    loop = asyncio.get_running_loop()
    arrived = loop.create_future()

    def hold_up():
        time.sleep(2 * LATE_SECONDS)
        loop.call_later(GRACE_SECONDS + SHORT, arrived.set_result, None)  # after the deadlines were looked at again

    loop.call_later(0, hold_up)
    with bounded(total=LATE_SECONDS) as deadline:
        end = deadline.end
        await deadline.wait(lambda: arrived)
        assert deadline.end >= end + LATE_SECONDS


async def test_without_bounds_there_is_no_timer():
    with bounded() as deadline:
        assert deadline.due(0.0) == inf
        assert timers() == []
        assert await deadline.next(Stream(1).items) == 0
        assert timers() == []
