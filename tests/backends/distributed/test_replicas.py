"""Replicas of one split model: each over workers of its own, calls to the one with fewest, a loss costs only one."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from real_distributed import (  # noqa: F401 - two are fixtures
    MODEL,
    Local,
    Watched,
    distributed,
    engine_in_home,
    kill,
    local_answers,
    real_model,
    spread,
    until,
)

from synaptic.backends.base import BackendContext
from synaptic.backends.distributed.backend_kind import examine
from synaptic.backends.distributed.coordinator.replicas import least_loaded
from synaptic.backends.distributed.coordinator.states import CoordinatorState as State
from synaptic.backends.distributed.coordinator.states import CoordinatorStatus
from synaptic.settings import Settings
from synaptic.ui.screen.coordinator_view import headline

LONG = 120


@pytest.mark.parametrize(
    ("standings", "chosen"),
    [
        ([(State.READY, 0), (State.READY, 0)], 0),
        ([(State.READY, 1), (State.READY, 0)], 1),
        ([(State.READY, 2), (State.READY, 2)], 0),
        ([(State.READY, 3), (State.STOPPED, 0)], 0),
        ([(State.PREFLIGHT, 0), (State.READY, 9)], 1),
        ([(State.PREFLIGHT, 0), (State.SLEEPING, 0)], 1),
        ([(State.PREFLIGHT, 1), (State.STOPPED, 0)], 0),
        ([(State.STOPPED, 0), (State.STOPPED, 0)], 0),
        ([(State.FAILED, 0), (State.RESTARTING, 0)], 1),
    ],
)
def test_who_gets_the_next_call(standings: list[tuple[State, int]], chosen: int):
    assert least_loaded(standings) == chosen


def test_a_replica_is_named_where_coordinators_are_shown():
    first = CoordinatorStatus(model=MODEL, state=State.READY, since=0.0)
    second = CoordinatorStatus(model=MODEL, state=State.READY, since=0.0, replica=2)
    assert headline(first, 1.0).startswith(f"{MODEL}: ready")
    assert headline(second, 1.0).startswith(f"{MODEL} (replica 2): ready")


@pytest.mark.parametrize(("workers", "status"), [(1, "note"), (2, "ok")])
async def test_doctor_says_whether_there_are_workers_for_them(workers: int, status: str):
    settings = Settings(model_replicas=2, local_workers=workers)
    findings = await examine(BackendContext(settings=settings))
    (found,) = [finding for finding in findings if finding.name == "replicas"]
    assert found.status == status


def one(watched: Watched, number: int) -> CoordinatorStatus:
    return watched.backend.coordinators()[number - 1]


async def both_ready(watched: Watched) -> list[CoordinatorStatus]:
    await watched.backend.start()
    assert one(watched, 1).state is State.READY
    await until(lambda: one(watched, 2).state is State.READY)
    return watched.backend.coordinators()


def workers_of(status: CoordinatorStatus) -> set[int | None]:
    return {worker.pid for worker in status.workers}


async def both_busy(watched: Watched, prompts: list[str], hurt: Callable[[], object] | None = None) -> list[str]:
    """Ask two things at once, and do something when the first has come so far; return the answers."""
    first = asyncio.create_task(watched.answer(prompts[0], hurt, tokens=LONG))
    await until(lambda: one(watched, 1).calls == 1)
    second = asyncio.create_task(watched.answer(prompts[1], tokens=LONG))
    await until(lambda: one(watched, 2).calls == 1 or second.done())
    assert not second.done()
    return [(await first).text, (await second).text]


@pytest.mark.real_model
@pytest.mark.usefixtures("engine_here")
async def test_two_replicas_have_two_workers_each_and_calls_go_to_the_one_with_fewer(local: Local):
    prompts = ["Write a long tale of a miller.", "Write a long tale of a sailor."]
    options = await spread(2)
    async with distributed(**{**options, "local_workers": 4}, model_replicas=2) as watched:
        first, second = await both_ready(watched)
        assert len(workers_of(first)) == len(workers_of(second)) == 2
        assert workers_of(first).isdisjoint(workers_of(second))
        assert watched.backend.capabilities.capacity == 2
        assert await both_busy(watched, prompts) == [local.says(prompt, tokens=LONG) for prompt in prompts]


@pytest.mark.real_model
@pytest.mark.usefixtures("engine_here")
@pytest.mark.parametrize("who", ["coordinator", "worker"])
async def test_the_loss_of_a_replica_costs_only_that_one_and_its_call_goes_on(who: str, local: Local):
    options = await spread(2)
    prompt = "Describe a storm."
    async with distributed(**{**options, "local_workers": 4}, model_replicas=2) as watched:
        lost, kept = await both_ready(watched)
        victim = lost.pid if who == "coordinator" else lost.workers[0].pid
        assert victim is not None
        answer = await watched.answer(prompt, lambda: kill(victim), tokens=LONG)

        assert answer.text == local.says(prompt, tokens=LONG)
        assert answer.breaks == 1
        assert one(watched, 2).pid == kept.pid
        assert one(watched, 2).tokens_per_second is not None, "it went on elsewhere"
        await until(lambda: one(watched, 1).state is State.READY)
        assert one(watched, 1).pid != lost.pid
        moved = [transition for transition in watched.backend.transitions if transition.model != MODEL]
        assert [transition.after for transition in moved].count(State.READY) == 1


@pytest.mark.real_model
@pytest.mark.usefixtures("engine_here")
async def test_where_fewer_fit_there_are_fewer_and_that_is_said_once(local: Local):
    async with distributed(**await spread(2), model_replicas=2) as watched:
        await watched.backend.start()
        await until(lambda: one(watched, 2).state is State.FAILED)
        await watched.backend.start()
        answer = await watched.answer("Name a bird.", tokens=10)

        assert [status.state for status in watched.backend.coordinators()] == [State.READY, State.FAILED]
        told = [notice for notice in watched.notices if "(replica 2): failed" in notice.message]
        assert len(told) == 1
    assert answer.text == local.says("Name a bird.", tokens=10)


@pytest.mark.real_model
@pytest.mark.usefixtures("engine_here")
async def test_a_replica_begins_when_calls_overlap_and_gives_way_to_another_model(tmp_path: Path, local: Local):
    other = tmp_path / "other.gguf"
    other.symlink_to(real_model())
    options = await spread(1)
    async with distributed(**{**options, "local_workers": 2}, model_replicas=2) as watched:
        await watched.answer("Name a fish.", tokens=10)
        assert [status.state for status in watched.backend.coordinators()] == [State.READY, State.STOPPED]
        prompts = ["Write a long tale of a miller.", "Name a bird."]
        asked = [asyncio.create_task(watched.answer(prompt, tokens=LONG)) for prompt in prompts]
        await until(lambda: one(watched, 2).state is State.READY)
        assert [(await task).text for task in asked] == [local.says(prompt, tokens=LONG) for prompt in prompts]

        answer = await watched.answer("Name a tree.", model=str(other), tokens=10)
        assert answer.text == local.says("Name a tree.", tokens=10)
        states = {(status.model, status.replica): status.state for status in watched.backend.coordinators()}
        assert sorted(str(states[MODEL, number]) for number in (1, 2)) == ["ready", "stopped"]
