"""Several models share the workers: what idles makes room, what is busy does not, what sleeps wakes up."""

import asyncio
from pathlib import Path

import psutil
import pytest
from real_distributed import (  # noqa: F401 - two are fixtures
    MODEL,
    Local,
    Watched,
    distributed,
    engine_in_home,
    gone,
    in_order,
    kill,
    local_answers,
    real_model,
    spread,
    until,
)

from synaptic import paths
from synaptic.backends.distributed.coordinator.states import CoordinatorState as State
from synaptic.backends.distributed.coordinator.states import CoordinatorStatus

pytestmark = [pytest.mark.real_model, pytest.mark.usefixtures("engine_here")]


@pytest.fixture
def other(tmp_path: Path) -> str:
    """The same model under another name, which is another model to the program."""
    path = tmp_path / "other.gguf"
    path.symlink_to(real_model())
    return str(path)


def status_of(watched: Watched, model: str) -> CoordinatorStatus:
    return next(status for status in watched.backend.coordinators() if status.model == model)


def states_of(watched: Watched, model: str) -> list[State]:
    return [transition.after for transition in watched.backend.transitions if transition.model == model]


async def test_a_model_that_idles_makes_room_for_another_and_comes_back(other: str, local: Local):
    prompts = ["Name three rivers.", "Name three lakes.", "Name three hills."]
    async with distributed(**await spread(2)) as watched:
        first = await watched.answer(prompts[0])
        before = status_of(watched, MODEL)
        second = await watched.answer(prompts[1], model=other)

        assert status_of(watched, MODEL).state is State.STOPPED
        assert status_of(watched, other).state is State.READY
        assert {one.pid for one in status_of(watched, other).workers} == {one.pid for one in before.workers}
        assert before.pid is not None
        assert gone(before.pid)

        third = await watched.answer(prompts[2])

        assert status_of(watched, other).state is State.STOPPED
        assert status_of(watched, MODEL).state is State.READY
    assert [answer.text for answer in (first, second, third)] == [local.says(prompt) for prompt in prompts]
    assert [answer.breaks for answer in (first, second, third)] == [0, 0, 0]
    assert states_of(watched, MODEL).count(State.READY) == 2


async def test_a_busy_model_is_never_unloaded_the_other_waits_until_its_call_ends(other: str, local: Local):
    prompts = ["Write a long tale of a miller.", "Who grinds corn?"]
    async with distributed(**await spread(1)) as watched:
        ended: list[str] = []

        async def asked(prompt: str, model: str, tokens: int) -> str:
            answer = await watched.answer(prompt, model=model, tokens=tokens)
            ended.append(model)
            assert answer.breaks == 0
            return answer.text

        busy = asyncio.create_task(asked(prompts[0], MODEL, 120))
        await until(lambda: bool(watched.backend.coordinators()) and watched.status.calls == 1)
        waits = asyncio.create_task(asked(prompts[1], other, 20))
        await until(lambda: State.PREFLIGHT in states_of(watched, other))

        assert status_of(watched, MODEL).state is State.READY
        assert await busy == local.says(prompts[0], tokens=120)
        assert await waits == local.says(prompts[1], tokens=20)
    assert ended == [MODEL, other]


async def test_models_that_fit_beside_each_other_are_both_served(other: str):
    async with distributed(local_workers=2, prewarm=[other]) as watched:
        await watched.backend.start()
        one, two = status_of(watched, MODEL), status_of(watched, other)

        assert (one.state, two.state) == (State.READY, State.READY)
        assert {worker.pid for worker in one.workers}.isdisjoint(worker.pid for worker in two.workers)
        answers = await asyncio.gather(
            watched.answer("Name a bird.", tokens=10), watched.answer("Name a fish.", model=other, tokens=10)
        )
        listed = {info.name: info.loaded for info in await watched.backend.models()}
    assert all(answer.ends for answer in answers)
    assert listed[MODEL]
    assert listed[other]


async def test_a_fault_of_one_model_does_not_touch_the_other(other: str):
    async with distributed(local_workers=2, prewarm=[other]) as watched:
        await watched.backend.start()
        untouched = status_of(watched, other)
        answer = await watched.answer("Describe a storm.", lambda: kill(status_of(watched, MODEL).workers[0].pid))

        assert answer.breaks == 1
        assert status_of(watched, other).pid == untouched.pid
        assert states_of(watched, other).count(State.READY) == 1


async def test_prewarm_loads_at_the_start_and_the_first_call_waits_for_nothing(local: Local):
    async with distributed(**await spread(1), prewarm=[MODEL]) as watched:
        await watched.backend.start()
        assert watched.status.state is State.READY
        moves = len(watched.states)
        answer = await watched.answer("What is warm?")

        assert len(watched.states) == moves
    assert answer.text == local.says("What is warm?")


async def test_an_idle_model_sleeps_and_wakes(local: Local):
    async with distributed(**await spread(1), coordinator_idle=0.3) as watched:
        first = await watched.answer("What is a nap?", tokens=20)
        server, worker = watched.pid, watched.worker()
        await watched.until(State.SLEEPING)
        await until(lambda: gone(server))
        # The worker stays, and has given the memory of the model back.
        assert watched.worker() == worker
        assert psutil.Process(worker).memory_info().rss < real_model().stat().st_size / 2
        assert watched.backend.credentials(MODEL) is None
        second = await watched.answer("What is a dream?", tokens=20)

    assert (first.text, second.text) == tuple(
        local.says(prompt, tokens=20) for prompt in ("What is a nap?", "What is a dream?")
    )
    assert in_order((State.READY, State.SLEEPING, State.PREFLIGHT, State.LOADING, State.READY), watched.states)


async def test_a_sleeping_model_whose_worker_dies_wakes_on_the_new_one(local: Local):
    async with distributed(**await spread(1), coordinator_idle=0.3) as watched:
        await watched.backend.load(MODEL)
        worker = watched.worker()
        await watched.until(State.SLEEPING)
        kill(worker)
        await until(lambda: watched.status.workers[0].pid not in {None, worker})
        answer = await watched.answer("What wakes a bear?", tokens=20)

    assert answer.text == local.says("What wakes a bear?", tokens=20)


async def test_an_unloaded_model_is_loaded_when_it_is_asked_again(local: Local):
    async with distributed(**await spread(1)) as watched:
        await watched.backend.load(MODEL)
        server = watched.pid
        await watched.backend.unload(MODEL)

        assert gone(server)
        assert watched.status.state is State.STOPPED
        answer = await watched.answer("What comes back?", tokens=20)

    assert answer.text == local.says("What comes back?", tokens=20)


async def test_two_names_of_one_file_are_one_model():
    async with distributed(**await spread(1)) as watched:
        await watched.backend.load(MODEL)
        status = await watched.backend.load(str(paths.model_cache_dir() / real_model().name))

        assert status.pid == watched.pid
        assert watched.states.count(State.READY) == 1
