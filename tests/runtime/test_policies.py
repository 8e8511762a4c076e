"""Policies around a backend: timeouts, the limit on calls at once, retries, and how they are put together."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from chunk_support import collected, of_kind
from fault_server import FaultServer, sse_reply

from synaptic.backends.base import Backend, Capabilities, capabilities_of
from synaptic.backends.llama_server import LlamaServerBackend
from synaptic.backends.scripted import Failure, Reply, ScriptedBackend
from synaptic.errors import (
    BackendBusy,
    BackendUnavailable,
    BudgetExceeded,
    CallTimeout,
    EngineCrashed,
    EngineUnavailable,
    FirstTokenTimeout,
    IdleTimeout,
    ModelNotFound,
    ServerError,
)
from synaptic.messages import ChatRequest, Chunk, Delta, Finished, Message, ModelInfo, Restarted, Timeouts
from synaptic.pipeline.graph import PLAIN, CallPolicy
from synaptic.pipeline.spec.parts import BudgetSpec, RetryCause
from synaptic.runtime.policies import BackendWrapper, Retrying, Timed
from synaptic.runtime.policies.budget import BudgetMeter
from synaptic.runtime.policies.call_cache import Cached, CallCache
from synaptic.runtime.policies.reply_store import ReplyStore
from synaptic.runtime.policies.retrying import CAUSES, wait_after
from synaptic.runtime.policies.slots import Limited, Slots
from synaptic.runtime.policies.stacks import Bounds, Stacks
from synaptic.settings import Settings
from synaptic.waiting import Backoff, Rules

SHORT = 0.05
NO_WAIT = Backoff((0.0,))


def ask(tag: str = "", **timeouts: float) -> ChatRequest:
    return ChatRequest(messages=(Message("user", "hello there"),), tag=tag, timeouts=Timeouts(**timeouts))


async def text_of(backend: Backend, request: ChatRequest) -> str:
    """Return the text of a reply, as a consumer that honours restarts collects it."""
    return collected([chunk async for chunk in backend.stream(request)])


async def test_a_reply_in_time_passes_unchanged():
    backend = Timed(ScriptedBackend(["a b c"]))

    assert await text_of(backend, ask(first_token=5, idle=5, total=5)) == "a b c"
    assert backend.name == "scripted"


@pytest.mark.parametrize(
    ("answer", "timeouts", "error"),
    [
        (Failure("stall"), {"first_token": SHORT}, FirstTokenTimeout),
        (Failure("stall", after_tokens=2), {"first_token": 60.0, "idle": SHORT}, IdleTimeout),
        (Failure("stall", after_tokens=2), {"total": SHORT}, CallTimeout),
        (Failure("stall"), {"first_token": 60.0, "total": SHORT}, CallTimeout),
        (Reply(text="a " * 1000, token_delay=0.01), {"idle": 60.0, "total": SHORT}, CallTimeout),
    ],
)
async def test_each_bound_has_its_own_error(answer: object, timeouts: dict, error: type[Exception]):
    inner = ScriptedBackend([answer])

    with pytest.raises(error, match=r"0\.05 s") as caught:
        await text_of(Timed(inner), ask(**timeouts))

    assert caught.value.hint
    assert inner.active == 0


async def test_without_bounds_a_stream_may_take_as_long_as_it_likes():
    reply = Reply(text="a b c", token_delay=SHORT)

    assert await text_of(Timed(ScriptedBackend([reply], first_token_delay=SHORT)), ask()) == "a b c"


async def test_a_timeout_of_the_caller_is_not_taken_for_ours():
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SHORT):
            await text_of(Timed(ScriptedBackend([Failure("stall")])), ask(first_token=60))


async def test_a_backends_own_timeout_error_is_not_taken_for_ours():
    with pytest.raises(TimeoutError):
        await text_of(Timed(ScriptedBackend([TimeoutError()])), ask(first_token=60))


async def test_a_stream_that_is_slow_but_steady_may_take_longer_than_one_pause():
    reply = Reply(text="a " * 12, token_delay=0.1)

    assert (await text_of(Timed(ScriptedBackend([reply])), ask(first_token=60, idle=1.0))).count("a") == 12


async def test_the_time_that_the_consumer_takes_is_not_the_streams():
    chunks = []
    async for chunk in Timed(ScriptedBackend([Reply(text="a b", token_delay=0.001)])).stream(ask(idle=0.5)):
        chunks.append(chunk)
        await asyncio.sleep(0.6)

    assert collected(chunks) == "a b"


class Pausing(ScriptedBackend):
    """Lets the loop turn once before each chunk."""

    async def stream(self, request: ChatRequest) -> AsyncIterator[Chunk]:
        async with aclosing(super().stream(request)) as chunks:
            async for chunk in chunks:
                await asyncio.sleep(0)
                yield chunk


@pytest.mark.parametrize(("backend", "most"), [(ScriptedBackend, 2), (Pausing, 2)])
async def test_many_chunks_need_few_timers(backend: type[ScriptedBackend], most: int, monkeypatch: pytest.MonkeyPatch):
    loop = asyncio.get_running_loop()
    set_timers: list[object] = []
    real = loop.call_at
    monkeypatch.setattr(loop, "call_at", lambda *args, **options: set_timers.append(args) or real(*args, **options))

    await text_of(Timed(backend(["a " * 1000])), ask(first_token=300.0, idle=60.0, total=600.0))

    assert len(set_timers) <= most


async def test_after_a_timeout_the_task_is_not_cancelled():
    task = asyncio.current_task()
    for _ in range(2):
        with pytest.raises(FirstTokenTimeout):
            await text_of(Timed(ScriptedBackend([Failure("stall")])), ask(first_token=SHORT))
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)


async def test_a_cancellation_from_outside_and_ours_at_once_is_a_cancellation():
    inner = ScriptedBackend([Failure("stall")])

    async def call() -> None:
        await text_of(Timed(inner), ask(first_token=SHORT))

    task = asyncio.create_task(call())
    while not inner.active:
        await asyncio.sleep(0)
    # The timer's callback runs in the turn before the task wakes; the other one comes right behind it.
    loop = asyncio.get_running_loop()
    (timer,) = [handle for handle in loop._scheduled if "_ring" in repr(handle)]
    loop.call_at(timer.when(), task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_backend_that_takes_a_timeout_for_nothing_leaves_the_task_as_it_was():
    class Stubborn(ScriptedBackend):
        async def stream(self, request: ChatRequest) -> AsyncIterator[Chunk]:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                yield Delta("still here")
            yield Finished("stop")

    assert await text_of(Timed(Stubborn()), ask(first_token=SHORT)) == "still here"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_leaving_a_timed_stream_early_closes_it_and_its_timer_rings_once_more():
    inner = Pausing(["a b c"])
    stream = Timed(inner).stream(ask(idle=SHORT, total=60.0))
    await anext(stream)
    await stream.aclose()

    assert inner.active == 0
    loop = asyncio.get_running_loop()
    while [handle for handle in loop._scheduled if "_ring" in repr(handle) and not handle.cancelled()]:
        await asyncio.sleep(SHORT)  # kept for a call that follows; it finds none, and is not set again


async def test_calls_that_follow_one_another_share_a_timer_and_a_later_loop_gets_one_of_its_own():
    timed = Timed(ScriptedBackend(["a b"] * 6))

    async def three() -> int:
        loop = asyncio.get_running_loop()
        before = len(loop._scheduled)
        for _ in range(3):
            assert [chunk async for chunk in timed.stream(ask(idle=60.0, total=60.0))]
        return len(loop._scheduled) - before

    assert await three() <= 2
    assert await asyncio.to_thread(lambda: asyncio.run(three())) in {1, 2}


async def test_no_more_calls_than_the_limit_run_at_once():
    inner = ScriptedBackend([Reply(text="a b", token_delay=0.001)] * 12)
    backend = Limited(inner, Slots(), (("node", 3),))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(12):
            tasks.create_task(text_of(backend, ask()))

    assert inner.max_active == 3


async def test_a_cancelled_call_gives_its_place_back():
    inner = ScriptedBackend([Failure("stall"), "fine"])
    backend = Limited(inner, Slots(), (("node", 1),))
    stalled = asyncio.create_task(text_of(backend, ask()))
    while inner.active == 0:
        await asyncio.sleep(0)

    stalled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stalled

    assert await text_of(backend, ask()) == "fine"


@pytest.mark.parametrize("kind", ["unavailable", "busy", "server_error", "truncated", "crash"])
async def test_what_may_pass_is_asked_again(kind: str):
    inner = ScriptedBackend([Failure(kind), "fine"])

    assert await text_of(Retrying(inner, 1, NO_WAIT), ask()) == "fine"


@pytest.mark.parametrize("kind", ["not_found", "rejected", "protocol", "stream_failed"])
async def test_what_would_fail_again_is_not_asked_again(kind: str):
    inner = ScriptedBackend([Failure(kind), "never"])

    with pytest.raises(Exception, match="scripted"):
        await text_of(Retrying(inner, 5, NO_WAIT), ask())

    assert len(inner.requests) == 1


@pytest.mark.parametrize(
    ("cause", "kind", "again"),
    [
        ("unavailable", "unavailable", True),
        ("busy", "busy", True),
        ("server", "server_error", True),
        ("server", "protocol", True),
        ("stream", "truncated", True),
        ("stream", "stream_failed", True),
        ("crash", "crash", True),
        ("busy", "crash", False),
        ("crash", "busy", False),
        ("timeout", "truncated", False),
    ],
)
async def test_a_step_names_what_is_asked_again_after(cause: str, kind: str, *, again: bool):
    inner = ScriptedBackend([Failure(kind), "fine"])
    backend = Retrying(inner, 1, NO_WAIT, causes=[cause])

    if again:
        assert await text_of(backend, ask()) == "fine"
    else:
        with pytest.raises(Exception, match="scripted"):
            await text_of(backend, ask())
    assert len(inner.requests) == 1 + again


async def test_a_timeout_may_be_named_too():
    inner = ScriptedBackend([Failure("stall"), "fine"])

    assert await text_of(Retrying(Timed(inner), 1, NO_WAIT, causes=["timeout"]), ask(first_token=SHORT)) == "fine"


def test_every_cause_of_the_language_is_known():
    assert set(CAUSES) == set(get_args(RetryCause))


async def test_an_engine_that_cannot_be_started_is_not_asked_again_whatever_is_named():
    inner = ScriptedBackend([EngineUnavailable("no engine"), "never"])

    with pytest.raises(EngineUnavailable):
        await text_of(Retrying(inner, 1, NO_WAIT, causes=["unavailable"]), ask())


async def test_a_restart_in_the_middle_voids_what_came_before():
    inner = ScriptedBackend([Failure("crash", after_tokens=3), "fine words"])
    chunks = [chunk async for chunk in Retrying(inner, 1, NO_WAIT).stream(ask())]

    (restart,) = of_kind(Restarted, chunks)
    assert restart.attempt == 2
    assert "died" in restart.reason
    assert collected(chunks[4:]) == "fine words"


async def test_the_last_failure_is_raised_when_the_retries_are_used_up():
    inner = ScriptedBackend([Failure("server_error")] * 4)

    with pytest.raises(ServerError):
        await text_of(Retrying(inner, 3, NO_WAIT), ask())

    assert len(inner.requests) == 4


async def test_no_retries_means_one_request():
    inner = ScriptedBackend([Failure("crash"), "never"])

    with pytest.raises(EngineCrashed):
        await text_of(Retrying(inner, 0), ask())

    assert len(inner.requests) == 1


def test_the_wait_doubles_within_its_bounds():
    error = BackendUnavailable("x")

    for failures, full in [(1, 0.5), (2, 1), (3, 2), (6, 16), (7, 30), (10, 30)]:
        assert full / 2 <= wait_after(failures, error, Rules.RETRY) <= full


def test_a_servers_own_wish_is_the_wait():
    backoff = Backoff((1.0, 8.0), jitter=(0.5, 1.0))

    assert wait_after(1, BackendBusy("x", retry_after=3.0), backoff) == 3.0
    assert wait_after(1, BackendBusy("x", retry_after=300.0), backoff) == 8.0
    assert wait_after(1, BackendBusy("x"), backoff) <= 1.0


class Silent:
    """A backend whose stream ends at once."""

    name = "silent"

    async def stream(self, request: ChatRequest) -> AsyncIterator[Chunk]:
        for chunk in ():
            yield chunk

    async def models(self) -> list[ModelInfo]:
        raise ModelNotFound("none")

    async def aclose(self) -> None:
        raise ModelNotFound("closed")


async def test_a_wrapper_hands_everything_on():
    wrapper = BackendWrapper(Timed(Retrying(Silent(), 1)))

    assert [chunk async for chunk in wrapper.stream(ask())] == []
    with pytest.raises(ModelNotFound, match="none"):
        await wrapper.models()
    with pytest.raises(ModelNotFound, match="closed"):
        await wrapper.aclose()


async def test_a_wrapper_has_the_capabilities_of_what_it_wraps_but_for_what_it_does_itself(tmp_path: Path):
    inner = ScriptedBackend()
    cache = CallCache(ReplyStore(tmp_path / "replies", lambda _: None))

    timed = Timed(inner).capabilities
    cached = Cached(Retrying(Timed(inner), 1), cache, 60.0)

    assert timed == replace(inner.capabilities, keeps_deadlines=True)
    assert cached.capabilities == replace(timed, forget=cached.forget)
    assert inner.capabilities.count_tokens is not None
    await cache.store.aclose()


async def test_a_server_that_reads_a_long_prompt_is_not_silent():
    read = [{"choices": [], "prompt_progress": {"total": 5, "processed": n}} for n in range(5)]
    reply = [*read, {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}]
    request = ask(first_token=1.2)
    async with FaultServer(sse_reply(reply, delay=0.4)) as server:
        backend = LlamaServerBackend(server.url)
        text = [chunk.text async for chunk in Timed(backend).stream(request) if isinstance(chunk, Delta)]
        await backend.aclose()

    assert "".join(text) == "Hi"
    assert json.loads(server.requests[0].body)["return_progress"] is True


async def test_a_backend_that_says_nothing_of_its_capabilities_has_none():
    class Inherits(Backend):
        name = "inherits"

    assert not hasattr(Silent(), "capabilities")
    assert capabilities_of(Silent()) == Capabilities()
    assert Inherits().capabilities == Capabilities()
    assert Timed(Silent()).capabilities == Capabilities(keeps_deadlines=True)


# All together.


def layers(backend: Backend) -> list[str]:
    """Return the names of the wrappers, outermost first."""
    names = []
    while isinstance(backend, BackendWrapper):
        names.append(type(backend).__name__)
        backend = backend.inner
    return names


async def test_a_call_gets_the_layers_that_it_needs_in_their_order(tmp_path: Path):
    everything = CallPolicy(fallback_models=("b",), cache_seconds=60.0, overflow="summarise", attempts=4)
    stacks = Stacks(
        ScriptedBackend(), Settings(max_parallel=2), capacity=3, node="here", cache_file=tmp_path / "replies"
    )
    bounds = Bounds(BudgetMeter(BudgetSpec(tokens=100)), (("pipeline:p", 2),))

    assert layers(stacks.of(everything, bounds)) == [
        "Cached",
        "FallingBack",
        "Fitting",
        "Retrying",
        "Metered",
        "Limited",
        "Awaiting",
        "Timed",
    ]
    assert layers(Stacks(Silent(), Settings(retries=0)).of(PLAIN, Bounds(BudgetMeter()))) == ["Awaiting", "Timed"]
    assert layers(Stacks(ScriptedBackend(), Settings()).of(PLAIN, Bounds(BudgetMeter()))) == [
        "Fitting",
        "Retrying",
        "Awaiting",
        "Timed",
    ]
    await stacks.aclose()


async def test_a_stack_is_remembered_as_long_as_its_run():
    stacks = Stacks(ScriptedBackend(), Settings())
    bounds = Bounds(BudgetMeter())
    policy = CallPolicy(attempts=2, retry_on=frozenset({"busy"}))

    assert stacks.of(policy, bounds) is stacks.of(replace(policy), bounds)
    assert stacks.of(PLAIN, bounds) is not stacks.of(policy, bounds)
    assert stacks.of(PLAIN, Bounds(BudgetMeter())) is not stacks.of(PLAIN, bounds)
    assert len(stacks._stacks) == 1


async def test_the_number_of_attempts_is_the_steps_else_the_settings():
    for attempts, sent in [(None, 2), (1, 1), (3, 3)]:
        inner = ScriptedBackend([ServerError("boom")] * 5)
        stack = Stacks(inner, Settings(retries=1)).of(CallPolicy(attempts=attempts), Bounds(BudgetMeter()))
        with pytest.raises(ServerError):
            await text_of(stack, ask())
        assert len(inner.requests) == sent


async def most_at_once(inner: ScriptedBackend, *stacks: Backend) -> int:
    async with asyncio.TaskGroup() as tasks:
        for stack in stacks * 6:
            tasks.create_task(text_of(stack, replace(ask(), model="m")))
    return inner.max_active


@pytest.mark.parametrize(
    ("settings", "capacity", "limits", "one_run", "two_runs"),
    [
        ({}, None, (), 6, 12),
        ({"max_parallel": 2}, None, (), 2, 4),
        ({"max_parallel": 2}, 3, (), 2, 3),
        ({"model_parallel": {"m": 1}}, 3, (), 1, 1),
        ({"model_parallel": {"other": 1}}, 3, (), 3, 3),
        ({}, 5, (("pipeline:p", 2),), 2, 4),
    ],
)
async def test_the_limits_of_run_pipeline_model_and_node(
    settings: dict, capacity: int | None, limits: tuple, one_run: int, two_runs: int
):
    for runs, most in ((1, one_run), (2, two_runs)):
        inner = ScriptedBackend(lambda _: Reply(text="a b", token_delay=0.002))
        stacks = Stacks(inner, Settings(**settings), capacity=capacity, node="here")
        each = [stacks.of(PLAIN, bounds) for bounds in [Bounds(BudgetMeter(), limits) for _ in range(runs)]]
        assert await most_at_once(inner, *each) == most


async def test_a_pipeline_inside_a_run_shares_the_runs_limit():
    inner = ScriptedBackend(lambda _: Reply(text="a b", token_delay=0.002))
    stacks = Stacks(inner, Settings(max_parallel=2))
    run = Bounds(BudgetMeter())
    part = Bounds(BudgetMeter(None, run.meter))

    assert await most_at_once(inner, stacks.of(PLAIN, run), stacks.of(PLAIN, part)) == 2


async def test_a_backend_that_a_step_names_is_opened_once_and_closed_with_the_session():
    opened: list[ScriptedBackend] = []
    routed = ScriptedBackend(["routed"])
    routed.name = "routed"

    def open_backend(name: str) -> ScriptedBackend:
        opened.append(ScriptedBackend([name, name]))
        return opened[-1]

    stacks = Stacks(routed, Settings(), open_backend=open_backend)
    bounds = Bounds(BudgetMeter())
    assert not opened
    for policy in (CallPolicy(backend="other"), CallPolicy(backend="other", attempts=1)):
        assert await text_of(stacks.of(policy, bounds), ask()) == "other"
    assert await text_of(stacks.of(CallPolicy(backend="routed"), bounds), ask()) == "routed"

    await stacks.aclose()

    assert (len(opened), opened[0].closed, routed.closed) == (1, True, False)


async def test_all_backends_are_closed_although_one_fails_to():
    class Broken(ScriptedBackend):
        async def aclose(self) -> None:
            raise ModelNotFound("cannot close")

    opened = {"a": Broken(), "b": ScriptedBackend(), "c": ScriptedBackend()}
    stacks = Stacks(Silent(), Settings(), open_backend=opened.__getitem__)
    for name in opened:
        stacks.of(CallPolicy(backend=name), Bounds(BudgetMeter()))

    with pytest.raises(ModelNotFound, match="cannot close"):
        await stacks.aclose()
    assert (opened["b"].closed, opened["c"].closed) == (True, True)


async def test_a_backend_says_itself_how_many_calls_it_takes():
    named = ScriptedBackend(lambda _: Reply(text="a b", token_delay=0.002))
    named.capabilities = replace(named.capabilities, capacity=2)
    stacks = Stacks(Silent(), Settings(), open_backend=lambda _: named)

    assert await most_at_once(named, stacks.of(CallPolicy(backend="named"), Bounds(BudgetMeter()))) == 2
    assert await most_at_once(named, Stacks(named, Settings()).of(PLAIN, Bounds(BudgetMeter()))) == 2


async def test_a_cached_reply_takes_no_place_and_costs_nothing(tmp_path: Path):
    inner = ScriptedBackend(lambda _: "a b c")
    stacks = Stacks(inner, Settings(), capacity=1, cache_file=tmp_path / "replies")
    meter = BudgetMeter(BudgetSpec(calls=1))
    stack = stacks.of(CallPolicy(cache_seconds=60.0), Bounds(meter))

    assert [await text_of(stack, ask()) for _ in range(3)] == ["a b c"] * 3
    assert (len(inner.requests), meter.calls) == (1, 1)
    await stacks.aclose()


async def test_a_long_prompt_goes_to_the_model_that_can_hold_it():
    class TwoModels(ScriptedBackend):
        async def context_length(self, request: ChatRequest) -> int | None:
            return 100 if request.model == "small" else 1000

    inner = TwoModels(["fine"])
    stack = Stacks(inner, Settings()).of(CallPolicy(fallback_models=("large",)), Bounds(BudgetMeter()))
    request = replace(ask(), model="small", messages=(Message("user", "word " * 200),))

    assert await text_of(stack, request) == "fine"
    assert [asked.model for asked in inner.requests] == ["large"]


async def test_a_budget_ends_every_call_of_the_run():
    inner = ScriptedBackend(lambda _: Reply(text="a " * 100, token_delay=0.001))
    stacks = Stacks(inner, Settings())
    stack = stacks.of(CallPolicy(fallback_models=("other",)), Bounds(BudgetMeter(BudgetSpec(tokens=50))))

    results = await asyncio.gather(*(text_of(stack, ask()) for _ in range(3)), return_exceptions=True)

    assert [type(result) for result in results] == [BudgetExceeded] * 3
    assert (inner.active, len(inner.requests)) == (0, 3)
