"""Who calls next: places in several buckets at once, by priority and rank, cancelled anywhere, starving nobody."""

import asyncio
from collections import Counter

import pytest
from chunk_support import collected
from hypothesis import given
from hypothesis import strategies as st

from synaptic.backends.scripted import Failure, ScriptedBackend
from synaptic.messages import ChatRequest, Message
from synaptic.runtime.policies.slots import Limited, Slots
from synaptic.waiting import PATIENCE

NODE = (("node", 1),)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Queue:
    """Starts callers that note their name when they get in, and leave when they are told to."""

    def __init__(self) -> None:
        self.slots = Slots()
        self.entered: list[str] = []
        self.inside: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def arrive(self, name: str, places: tuple = NODE, priority: int = 0, rank: int = 0) -> None:
        async def call() -> None:
            await self.slots.take(places, priority=priority, rank=rank)
            try:
                self.entered.append(name)
                await self.inside.setdefault(name, asyncio.Event()).wait()
            finally:
                self.slots.release(places)

        self.tasks[name] = asyncio.create_task(call())
        await turns(2)

    async def leave(self, name: str) -> None:
        self.inside[name].set()
        await turns()

    async def cancel(self, name: str) -> None:
        self.tasks[name].cancel()
        await asyncio.wait([self.tasks[name]])
        await turns()

    async def empty(self) -> None:
        """Let everybody through, and see that nothing is left behind."""
        while any(not task.done() for task in self.tasks.values()):
            for name in list(self.inside):
                self.inside[name].set()
            await turns(1)
        assert not self.slots._used
        assert not self.slots._queues


async def test_priority_goes_before_rank_and_rank_before_arrival():
    queue = Queue()
    await queue.arrive("first")
    await queue.arrive("early", rank=1)
    await queue.arrive("late", rank=1)
    await queue.arrive("critical", rank=7)
    await queue.arrive("urgent", priority=1, rank=1)

    await queue.empty()

    assert queue.entered == ["first", "urgent", "critical", "early", "late"]


async def test_nobody_waits_where_there_is_room():
    slots = Slots()

    assert slots.take_at_once((("node", 2), ("model", 1)))
    assert slots.take_at_once((("node", 2),))
    assert not slots.take_at_once((("node", 2),))
    assert (slots.used("node"), slots.used("model"), slots.used("other")) == (2, 1, 0)


async def test_a_place_in_every_bucket_or_in_none():
    queue = Queue()
    await queue.arrive("model", (("big", 1),))
    await queue.arrive("both", (("node", 1), ("big", 1)))

    assert queue.slots.used("node") == 0
    await queue.arrive("node", (("node", 1),))

    assert queue.entered == ["model", "node"]
    await queue.leave("model")
    assert queue.entered == ["model", "node"]
    await queue.leave("node")
    assert queue.entered == ["model", "node", "both"]
    await queue.empty()


async def test_who_is_blocked_elsewhere_does_not_block_who_comes_after():
    queue = Queue()
    await queue.arrive("big", (("run", 2), ("big", 1)))
    await queue.arrive("big again", (("run", 2), ("big", 1)), priority=9)
    await queue.arrive("small", (("run", 2),))

    assert queue.entered == ["big", "small"]
    await queue.empty()


async def test_two_that_want_the_same_two_buckets_the_other_way_round_do_not_wait_for_each_other():
    queue = Queue()
    await queue.arrive("ab", (("a", 1), ("b", 1)))
    await queue.arrive("ba", (("b", 1), ("a", 1)))
    await queue.arrive("ab again", (("a", 1), ("b", 1)))

    await queue.empty()

    assert sorted(queue.entered) == ["ab", "ab again", "ba"]


async def test_who_is_cancelled_while_waiting_takes_no_place():
    queue = Queue()
    await queue.arrive("inside")
    await queue.arrive("cancelled", priority=5)
    await queue.arrive("next")

    await queue.cancel("cancelled")
    await queue.leave("inside")

    assert queue.entered == ["inside", "next"]
    await queue.empty()


async def test_a_place_granted_in_the_turn_of_the_cancellation_is_given_back():
    queue = Queue()
    await queue.arrive("inside")
    await queue.arrive("cancelled")
    await queue.arrive("next")

    queue.slots.release(NODE)  # as if "inside" had left: the place is granted to "cancelled", who has not woken yet
    queue.tasks["cancelled"].cancel()
    await turns()
    assert queue.entered == ["inside", "next"]

    queue.slots.take_at_once((("node", 3),))
    await queue.empty()


async def test_a_place_that_is_free_in_the_turn_of_the_cancellation_goes_to_the_next():
    queue = Queue()
    await queue.arrive("inside")
    await queue.arrive("cancelled")
    await queue.arrive("next")

    queue.tasks["cancelled"].cancel()  # it has not woken yet
    await queue.leave("inside")

    assert queue.entered == ["inside", "next"]
    await queue.empty()


async def test_the_lowest_priority_is_not_overtaken_for_ever():
    queue = Queue()
    await queue.arrive("0")
    await queue.arrive("low", priority=-5)
    for number in range(1, PATIENCE + 10):
        await queue.arrive(str(number), priority=5)
        await queue.leave(str(number - 1) if str(number - 1) in queue.inside else "low")

    assert queue.entered.index("low") == PATIENCE + 1
    await queue.empty()


async def test_who_needs_two_places_is_not_kept_out_by_those_who_need_one():
    """Without ageing, ``node`` and ``big`` would never be free at the same time."""
    queue = Queue()
    node, big = (("node", 1),), (("big", 1),)
    await queue.arrive("n0", node)
    await queue.arrive("b0", big)
    await queue.arrive("both", (("node", 1), ("big", 1)))
    for number in range(1, 2 * PATIENCE):
        for name, places in (("n", node), ("b", big)):
            await queue.arrive(f"{name}{number}", places)
            if "both" not in queue.entered and f"{name}{number - 1}" in queue.inside:
                await queue.leave(f"{name}{number - 1}")
    await queue.empty()

    assert queue.entered.index("both") == PATIENCE + 2


@given(
    st.lists(
        st.tuples(
            st.sets(st.sampled_from("abc"), min_size=1, max_size=3),
            st.integers(-2, 2),
            st.integers(0, 4),
            st.sampled_from(["stay", "cancel early", "cancel late"]),
        ),
        max_size=30,
    )
)
def test_no_limit_is_ever_broken_and_no_place_is_ever_lost(callers: list):
    capacities = {"a": 1, "b": 2, "c": 3}

    async def scenario() -> None:
        slots = Slots()
        inside: Counter[str] = Counter()
        finished: list[int] = []

        async def call(number: int, buckets: set[str], priority: int, rank: int) -> None:
            places = tuple((bucket, capacities[bucket]) for bucket in sorted(buckets))
            await slots.take(places, priority=priority, rank=rank)
            try:
                inside.update(buckets)
                assert all(inside[bucket] <= capacities[bucket] for bucket in buckets)
                await turns(2)
                finished.append(number)
            finally:
                inside.subtract(buckets)
                slots.release(places)

        tasks = []
        for number, (buckets, priority, rank, fate) in enumerate(callers):
            tasks.append(asyncio.create_task(call(number, buckets, priority, rank)))
            if fate != "stay":
                await turns(1 if fate == "cancel early" else number % 5)
                tasks[-1].cancel()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
        stayed = {number for number, caller in enumerate(callers) if caller[3] == "stay"}
        assert stayed <= set(finished)
        assert not [error for error in results if error and not isinstance(error, asyncio.CancelledError)]
        assert not slots._used
        assert not slots._queues

    asyncio.run(scenario())


def ask(**fields: object) -> ChatRequest:
    return ChatRequest(messages=(Message("user", "hello there"),), **fields)


async def read(backend: Limited, request: ChatRequest) -> str:
    return collected([chunk async for chunk in backend.stream(request)])


async def test_a_model_has_a_limit_of_its_own_under_both_of_its_names():
    inner = ScriptedBackend(token_delay=0.001)
    backend = Limited(inner, Slots(), models={"big": 2})
    running: Counter[str | None] = Counter()
    most: Counter[str | None] = Counter()

    async def call(model: str) -> None:
        async for _ in backend.stream(ask(model=model)):
            base = model.removesuffix(":latest")
            running[base] = inner.active
            most[base] = max(most[base], inner.active)

    async with asyncio.TaskGroup() as tasks:
        for number in range(8):
            tasks.create_task(call("big" if number % 2 else "big:latest"))
    assert most["big"] == 2
    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(call("small"))
    assert most["small"] == 8


async def test_calls_on_the_critical_path_go_first():
    gate = asyncio.Event()

    async def answer(_: ChatRequest) -> str:
        await gate.wait()
        return "done"

    inner = ScriptedBackend(answer)
    backend = Limited(inner, Slots(), NODE)
    async with asyncio.TaskGroup() as tasks:
        for tag, rank in [("first", 1), ("side", 1), ("critical", 9), ("middle", 4)]:
            tasks.create_task(read(backend, ask(tag=tag, rank=rank)))
            await turns(2)
        gate.set()

    assert [request.tag for request in inner.requests] == ["first", "critical", "middle", "side"]


@pytest.mark.parametrize("how", ["fails", "is left", "is cancelled"])
async def test_every_way_out_of_a_call_gives_its_place_back(how: str):
    inner = ScriptedBackend([Failure("crash") if how == "fails" else Failure("stall", after_tokens=1), "fine"])
    slots = Slots()
    backend = Limited(inner, slots, NODE)
    stream = backend.stream(ask())
    if how == "fails":
        with pytest.raises(Exception, match="died"):
            await anext(stream)
    elif how == "is left":
        await anext(stream)
        await stream.aclose()
    else:
        task = asyncio.create_task(read(backend, ask()))
        await turns()
        task.cancel()
        await asyncio.wait([task])
    assert slots.used("node") == 0
    assert await read(backend, ask()) == "fine"
