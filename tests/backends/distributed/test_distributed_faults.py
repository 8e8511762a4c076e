"""Workers and coordinators are killed, stopped and brought back at every moment: the answers are those of calm days."""

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import replace

import pytest
from real_distributed import (  # noqa: F401 - two are fixtures
    External,
    Local,
    Watched,
    distributed,
    engine_in_home,
    externals,
    freeze,
    gone,
    in_order,
    kill,
    local_answers,
    memory_for,
    real_shape,
    spread,
    until,
)
from rpc_support import stand_in_process

from synaptic.backends.distributed.coordinator.states import CoordinatorState as State
from synaptic.errors import CoordinatorFailed, NoPlacement
from synaptic.waiting import Rules

pytestmark = [pytest.mark.real_model, pytest.mark.usefixtures("engine_here")]

RECOVERY = (State.READY, State.DEGRADED, State.RESTARTING, State.PREFLIGHT, State.LOADING, State.READY)


def kill_a_worker(watched: Watched) -> None:
    kill(watched.worker(0))


def freeze_a_worker(watched: Watched) -> None:
    freeze(watched.worker(0))


def kill_all_workers(watched: Watched) -> None:
    for number in range(len(watched.status.workers)):
        kill(watched.worker(number))


def kill_the_server(watched: Watched) -> None:
    kill(watched.pid)


def freeze_the_server(watched: Watched) -> None:
    freeze(watched.pid)


def end_the_server_without_a_worker(watched: Watched) -> None:
    """It wants to free its buffers at a worker that is gone, and aborts."""
    worker, server = watched.worker(0), watched.pid
    os.kill(server, signal.SIGSTOP)  # else it may end of the loss before it is told to end
    kill(worker)
    os.kill(server, signal.SIGTERM)
    os.kill(server, signal.SIGCONT)


FAULTS = [
    kill_a_worker,
    freeze_a_worker,
    kill_all_workers,
    kill_the_server,
    freeze_the_server,
    end_the_server_without_a_worker,
]


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_breaks_while_an_answer_is_generated_leaves_the_answer_as_it_was(
    fault: Callable[[Watched], None], local: Local
):
    prompt = f"Write a short story in which the words '{fault.__name__}' occur."
    async with distributed(**await spread(2)) as watched:
        answer = await watched.answer(prompt, lambda: fault(watched), after=12)

        assert watched.status.restarts == 1
    assert answer.text == local.says(prompt)
    assert answer.breaks == 1
    assert in_order(RECOVERY, watched.states)


@pytest.mark.parametrize(
    "fault", [kill_a_worker, freeze_a_worker, kill_the_server, freeze_the_server, end_the_server_without_a_worker]
)
async def test_what_breaks_while_nobody_asks_is_mended_before_somebody_does(
    fault: Callable[[Watched], None], local: Local
):
    prompt = f"What would you do with '{fault.__name__}'?"
    async with distributed(**await spread(2)) as watched:
        await watched.backend.load("smollm2:135m")
        before = watched.pid
        fault(watched)
        await until(lambda: gone(before))
        await watched.until(State.READY)
        answer = await watched.answer(prompt)

    assert answer.text == local.says(prompt)
    assert answer.breaks == 0
    assert in_order(RECOVERY, watched.states)


@pytest.mark.parametrize("fault", [kill_a_worker, kill_the_server])
async def test_what_breaks_just_before_a_call_costs_it_nothing_but_time(fault: Callable[[Watched], None], local: Local):
    prompt = f"Who would say '{fault.__name__}', and to whom?"
    async with distributed(**await spread(2)) as watched:
        await watched.backend.load("smollm2:135m")
        fault(watched)
        answer = await watched.answer(prompt)

    assert answer.text == local.says(prompt)
    assert answer.breaks == 0  # nothing had been delivered


LONG = "Summarise this list of words: " + " ".join(f"word{number}" for number in range(45)) + ". "


@pytest.mark.parametrize("fault", [kill_a_worker, freeze_a_worker])
async def test_what_breaks_while_a_prompt_is_read_has_it_read_again(fault: Callable[[Watched], None], local: Local):
    prompt = LONG + f"Mind '{fault.__name__}'."
    async with distributed(**await spread(2)) as watched:
        await watched.backend.load("smollm2:135m")
        hurt_before_any_text = []

        def hurt() -> None:
            hurt_before_any_text.append(fault)
            fault(watched)

        answer = await watched.answer(prompt, when_reading=hurt)

        assert watched.status.restarts == 1
    assert hurt_before_any_text == [fault]
    assert answer.text == local.says(prompt)
    assert answer.breaks == 0


@pytest.mark.parametrize(
    "fault", [kill_a_worker, freeze_a_worker, kill_the_server, freeze_the_server, kill_all_workers]
)
async def test_what_breaks_while_the_model_loads_has_it_loaded_again(fault: Callable[[Watched], None], local: Local):
    prompt = f"Is '{fault.__name__}' the name of a flower?"
    async with distributed(**await spread(2)) as watched:
        answer = await watched.answer(prompt, when_loading=lambda: hurt_while_loading(fault, watched))

    assert answer.text == local.says(prompt)
    assert answer.breaks == 0
    assert in_order((State.LOADING, State.RESTARTING, State.LOADING, State.READY), watched.states)
    assert State.DEGRADED not in watched.states


def hurt_while_loading(fault: Callable[[Watched], None], watched: Watched) -> None:
    if fault in {kill_the_server, freeze_the_server}:
        children = [child for child in watched.children() if "llama-server" in child.name()]
        assert len(children) == 1
        (freeze if fault is freeze_the_server else kill)(children[0].pid)
        return
    workers = [child for child in watched.children() if "rpc" in child.name()]
    assert len(workers) == 2
    for worker in workers[: 2 if fault is kill_all_workers else 1]:
        (freeze if fault is freeze_a_worker else kill)(worker.pid)


async def test_a_worker_that_died_before_the_load_is_started_again(local: Local):
    prompt = "Name the colours of a rainbow."
    async with distributed(**await spread(2)) as watched:
        await watched.backend.load("smollm2:135m")
        workers = [watched.worker(0), watched.worker(1)]
        await watched.backend.unload("smollm2:135m")
        for pid in workers:
            kill(pid)
        answer = await watched.answer(prompt)

    assert answer.text == local.says(prompt)
    assert State.FAILED not in watched.states


async def test_an_external_worker_that_comes_back_in_time_is_used_again(local: Local):
    prompt = "What is a lighthouse for?"
    shape = await real_shape()
    with externals(2) as workers:
        gib = memory_for(shape, 2)
        async with distributed(
            rpc_backends=[worker.settings(gib) for worker in workers], worker_return_wait=20.0
        ) as watched:

            def hurt() -> None:
                workers[0].end()
                watched.later(1.0, workers[0].start)

            answer = await watched.answer(prompt, hurt)

            assert {one.endpoint for one in watched.status.workers} == {worker.endpoint for worker in workers}
    assert answer.text == local.says(prompt)
    assert answer.breaks == 1
    assert in_order(RECOVERY, watched.states)


async def test_an_external_worker_that_restarts_while_nobody_asks_is_used_again(local: Local):
    prompt = "Which animals live in a barn?"
    shape = await real_shape()
    with externals(2) as workers:
        gib = memory_for(shape, 2)
        async with distributed(rpc_backends=[worker.settings(gib) for worker in workers]) as watched:
            await watched.backend.load("smollm2:135m")
            before = watched.pid
            workers[1].end()
            workers[1].start()
            await until(lambda: gone(before))
            await watched.until(State.READY)
            answer = await watched.answer(prompt)

    assert answer.text == local.says(prompt)
    assert answer.breaks == 0


async def test_the_survivors_take_over_and_where_they_cannot_the_error_names_the_worker(local: Local):
    prompt = "How does one sharpen a knife?"
    shape = await real_shape()
    with externals(3) as workers:
        gib = memory_for(shape, 2)
        by_endpoint = {worker.endpoint: worker for worker in workers}
        async with distributed(
            rpc_backends=[worker.settings(gib) for worker in workers], worker_return_wait=0.5, worker_recovery_wait=1.0
        ) as watched:
            lost: list[External] = []

            def hurt() -> None:
                worker = by_endpoint[watched.status.workers[0].endpoint]
                lost.append(worker)
                worker.end()

            answer = await watched.answer(prompt, hurt)

            assert len(watched.status.workers) == 2
            assert lost[0].endpoint not in {one.endpoint for one in watched.status.workers}
            assert f"{lost[0].endpoint} did not come back" in watched.said
            assert answer.text == local.says(prompt)

            with pytest.raises(CoordinatorFailed) as caught:
                await watched.answer("How does one fold a paper hat?", hurt)

            assert watched.status.state is State.FAILED
            assert str(lost[1].endpoint) in str(caught.value)
            assert "GiB" in str(caught.value)
    assert in_order((*RECOVERY, State.DEGRADED, State.RESTARTING, State.PREFLIGHT, State.FAILED), watched.states)


async def test_a_call_waits_for_a_worker_without_which_the_model_does_not_fit(local: Local):
    prompt = "Where do storks spend the winter?"
    shape = await real_shape()
    with externals(2) as workers:
        gib = memory_for(shape, 2)
        async with distributed(
            rpc_backends=[worker.settings(gib) for worker in workers], worker_return_wait=0.2
        ) as watched:
            asking = asyncio.create_task(watched.answer(prompt, workers[0].end))
            await until(lambda: "calls wait up to 5 min for it to come back" in watched.said)
            assert not asking.done()
            workers[0].start()
            answer = await asking

    assert f"{workers[0].endpoint} did not come back, and without it" in watched.said
    assert answer.text == local.says(prompt)
    assert answer.breaks == 1


async def test_ordered_layers_are_given_up_while_a_worker_is_away_and_kept_again_once_it_is_back(local: Local):
    prompt = "Why is the sky blue?"
    with externals(3) as workers:
        backends = [{**worker.settings(), "layers": 10} for worker in workers]
        async with distributed(rpc_backends=backends, worker_return_wait=0.2) as watched:
            answer = await watched.answer(prompt, workers[1].end)
            placement = watched.status.placement

            assert placement is not None
            assert workers[1].endpoint not in placement.endpoints
            assert sum(share.layers for share in placement.shares) == 30
            assert "the numbers of layers that the settings give do not count meanwhile" in watched.said

            workers[1].start()
            await until(lambda: f"{workers[1].endpoint} is back: its layers are placed anew" in watched.said)
            await watched.until(State.READY)
            again = watched.status.placement

            assert again is not None
            assert [share.layers for share in again.shares] == [10, 10, 10]
            assert set(again.endpoints) == {worker.endpoint for worker in workers}
    assert answer.text == local.says(prompt)


async def test_a_worker_that_is_away_at_the_start_is_named_and_used_once_it_is_there(local: Local):
    prompt = "Why is the sky blue?"
    with externals(2) as workers:
        workers[1].end()
        async with distributed(rpc_backends=[worker.settings() for worker in workers]) as watched:
            answer = await watched.answer(prompt)
            assert f"it does without 1 worker: {workers[1].endpoint} refuses the connection" in watched.said

            workers[1].start()
            await until(lambda: f"{workers[1].endpoint} is back: its layers are placed anew" in watched.said)
            await watched.until(State.READY)
            again = await watched.answer(prompt)
            placement = watched.status.placement

    assert placement is not None
    assert not any("refuses the connection" in verdict.reason for verdict in placement.verdicts)
    assert answer.text == again.text == local.says(prompt)


async def test_after_a_failure_the_next_call_tries_anew(local: Local):
    prompt = "What do bees eat?"
    with externals(1) as (worker,):
        async with distributed(
            rpc_backends=[worker.settings()], worker_return_wait=0.0, worker_recovery_wait=0.0
        ) as watched:
            with pytest.raises((NoPlacement, CoordinatorFailed), match=str(worker.endpoint)):
                await watched.answer("What do wasps eat?", worker.end)
            worker.start()
            answer = await watched.answer(prompt)

    assert answer.text == local.says(prompt)


async def test_an_external_worker_that_hangs_is_noticed_by_the_tokens_that_do_not_come(local: Local):
    prompt = "Describe a walk along the sea."
    shape = await real_shape()
    with externals(3) as workers:
        gib = memory_for(shape, 2)
        by_endpoint = {worker.endpoint: worker for worker in workers}
        async with distributed(
            rpc_backends=[worker.settings(gib) for worker in workers], worker_return_wait=0.5
        ) as watched:
            hung: list[External] = []

            def hurt() -> None:
                hung.append(by_endpoint[watched.status.workers[-1].endpoint])
                hung[0].hurt(signal.SIGSTOP)

            answer = await watched.answer(prompt, hurt)

            assert hung[0].endpoint not in {one.endpoint for one in watched.status.workers}
    assert "no token for" in watched.said
    assert answer.text == local.says(prompt)
    assert answer.breaks == 1


@pytest.mark.parametrize(
    ("whom", "hurting", "why"),
    [
        ("rpc", kill, ""),
        ("llama-server", kill, "llama-server was killed by SIGKILL"),
        ("llama-server", freeze, "llama-server was stopped by a signal"),
    ],
)
async def test_what_is_lost_at_every_load_is_given_up(
    whom: str, hurting: Callable[[int], None], why: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Rules, "COORDINATOR", replace(Rules.COORDINATOR, delays=(0.0, 0.1, 0.1)))
    async with distributed(**await spread(2)) as watched:

        def hurt_whoever_loads() -> None:
            for child in watched.children():
                if whom in child.name():
                    hurting(child.pid)

        with pytest.raises(CoordinatorFailed) as caught:
            await watched.answer("What is a merry-go-round?", at_every_load=hurt_whoever_loads)

        assert watched.status.state is State.FAILED
        assert watched.states.count(State.LOADING) <= 3
        assert why in caught.value.message
        assert caught.value.hint
        assert str(watched.status.log_file) in caught.value.hint


async def test_an_external_worker_that_restarts_at_every_load_is_given_up_and_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Rules, "COORDINATOR", replace(Rules.COORDINATOR, delays=(0.0, 0.1, 0.1)))
    with externals(1) as (worker,):
        async with distributed(rpc_backends=[worker.settings()]) as watched:

            def restart() -> None:
                worker.end()
                worker.start()

            with pytest.raises(CoordinatorFailed) as caught:
                await watched.answer("What is a carousel?", at_every_load=restart)

            assert str(worker.endpoint) in str(caught.value)
            assert 1 <= watched.states.count(State.LOADING) <= 3
            assert caught.value.hint
            assert str(watched.status.log_file) in caught.value.hint


async def test_a_worker_that_cannot_give_memory_is_refused_before_anything_is_started():
    with stand_in_process("--fault", "ALLOC_BUFFER=close") as worker:
        async with distributed(rpc_backends=[{"host": "127.0.0.1", "port": worker.port}]) as watched:
            with pytest.raises(NoPlacement, match=f"127.0.0.1:{worker.port}"):
                await watched.answer("What is a roundabout?")

            assert State.LOADING not in watched.states
