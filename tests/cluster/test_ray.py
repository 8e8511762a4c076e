"""The nodes of a real Ray cluster as workers: two nodes on the loopback hold a model, and one of them is killed."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import psutil
import pytest
from ray_nodes import add_node, kill_with_all, ray_nodes, raylet_of
from real_distributed import (  # noqa: F401 - two are fixtures
    MODEL,
    Local,
    Watched,
    engine_in_home,
    local_answers,
    memory_for,
    real_shape,
    settings_of,
    until,
)

from synaptic.backends.distributed.backend import DistributedBackend
from synaptic.backends.distributed.coordinator.states import CoordinatorState
from synaptic.backends.distributed.engine import current_engine
from synaptic.backends.distributed.workers import Elsewhere, machines_elsewhere
from synaptic.cluster import RayWorkers, passes
from synaptic.cluster.ray_cluster import joined, nodes, start_actor
from synaptic.errors import EngineUnavailable, NoPlacement
from synaptic.messages import BackendNotice
from synaptic.settings import Settings

ray: Any = pytest.importorskip("ray")

PROMPT = "Tell me a story of a lighthouse."

pytestmark = [
    pytest.mark.real_model,
    pytest.mark.usefixtures("engine_here"),
    pytest.mark.filterwarnings("default"),  # Ray has its own
]


@pytest.fixture
def cluster(own_home: Any) -> Iterator[Any]:
    with ray_nodes({"one": {}, "two": {}, "three": {}}) as made:
        yield made


def heard() -> tuple[list[BackendNotice], Any]:
    """Return a reporter, and the notices that it hears; a failed test shows them."""
    notices: list[BackendNotice] = []

    def report(news: Any) -> None:
        if isinstance(news, BackendNotice):
            logging.getLogger(__name__).warning(news.message)
            notices.append(news)

    return notices, report


def workers(cluster: Any) -> dict[int, list[psutil.Process]]:
    """Return the workers of each node by the process of its raylet; other tests have workers, too."""
    found: dict[int, list[psutil.Process]] = {}
    for node in cluster.list_all_nodes():
        with contextlib.suppress(psutil.NoSuchProcess):
            raylet = raylet_of(node)
            below = raylet.children(recursive=True)
            found[raylet.pid] = [one for one in below if named(one) == "ggml-rpc-server"]
    return found


def named(process: psutil.Process) -> str:
    """Return the name of a process; none once it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.name()
    return ""


def kill_node(cluster: Any) -> None:
    """Kill a node, not the head, whose worker holds layers, with all that runs there."""
    head = raylet_of(cluster.head_node).pid
    held = {raylet: sum(one.memory_info().rss for one in its) for raylet, its in workers(cluster).items()}
    kill_with_all(psutil.Process(max(held.keys() - {head}, key=lambda pid: held[pid])))


@pytest.mark.timeout(600)
async def test_nodes_hold_a_model_and_the_loss_of_one_is_the_loss_of_a_worker(
    cluster: Any, local: Local, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("real_distributed.PATIENCE", 200.0)  # three processes of Ray load this package first
    gib = memory_for(await real_shape(), 2)
    notices, report = heard()
    settings = settings_of(
        local_workers=0,
        rpc_backends=[],
        ray_address=cluster.address,
        ray_worker_memory_gib=gib,
        worker_return_wait=0.5,
        worker_recovery_wait=60.0,
    )
    backend = DistributedBackend(settings, report)
    watched = Watched(backend, notices)
    try:
        first = await watched.answer("Why is the sky blue?")
        assert "Ray's node" not in watched.said  # all three are reached; one that is gone may be asked once more
        answer = await watched.answer(PROMPT, lambda: kill_node(cluster))
        assert first.text == local.says("Why is the sky blue?")
        assert answer.text == local.says(PROMPT)
        assert len(watched.status.workers) == 2
        assert "did not come back" in watched.said
    finally:
        await backend.aclose()
    await until(lambda: not any(workers(cluster).values()))


@pytest.mark.timeout(600)
async def test_replicas_have_nodes_of_their_own_and_the_loss_of_one_costs_only_that_replica(
    cluster: Any, local: Local, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("real_distributed.PATIENCE", 200.0)
    notices, report = heard()
    settings = settings_of(
        local_workers=0,
        rpc_backends=[],
        ray_address=cluster.address,
        ray_worker_memory_gib=memory_for(await real_shape(), 1),
        model_replicas=2,
        worker_return_wait=0.5,
    )
    backend = DistributedBackend(settings, report)
    watched = Watched(backend, notices)
    try:
        await backend.start()
        await until(lambda: all(status.state is CoordinatorState.READY for status in backend.coordinators()), 200.0)
        first, second = backend.coordinators()
        answer = await watched.answer(PROMPT, lambda: kill_node(cluster))
        assert answer.text == local.says(PROMPT)
        assert {one.endpoint for one in first.workers}.isdisjoint(one.endpoint for one in second.workers)
        before = {first.pid, second.pid}
        # The one goes on as it was, the other has the third node.
        await until(lambda: len({one.pid for one in backend.coordinators()} - {None} - before) == 1, 200.0)
        assert len({one.pid for one in backend.coordinators()} & before) == 1
    finally:
        await backend.aclose()
    await until(lambda: not any(workers(cluster).values()))


@pytest.mark.timeout(600)
async def test_a_node_that_joins_later_holds_layers_after_the_next_placement(
    own_home: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("real_distributed.PATIENCE", 200.0)  # processes of Ray load this package first
    gib = memory_for(await real_shape(), 2)
    notices, report = heard()
    with ray_nodes({"one": {}}) as cluster:
        settings = settings_of(local_workers=0, rpc_backends=[], ray_address=cluster.address, ray_worker_memory_gib=gib)
        backend = DistributedBackend(settings, report)
        watched = Watched(backend, notices)
        try:
            with pytest.raises(NoPlacement, match="does not fit"):
                await watched.answer(PROMPT)
            add_node(cluster, "two")
            await until(lambda: "ray-2-two is reached now" in watched.said, 200.0)
            await watched.answer(PROMPT)

            assert len(watched.status.workers) == 2
            assert len([its for its in workers(cluster).values() if its]) == 2
        finally:
            await backend.aclose()
        await until(lambda: not any(workers(cluster).values()))


async def test_what_is_not_reached_is_the_reason_why_a_model_has_no_place(engine_here: Any):
    settings = settings_of(local_workers=0, rpc_backends=[], ray_address="127.0.0.1:9")
    backend = DistributedBackend(settings)
    try:
        with pytest.raises(NoPlacement, match=r"the Ray cluster 127\.0\.0\.1:9 is not reached.*ray status"):
            await backend.load(MODEL)
    finally:
        await backend.aclose()


@pytest.mark.timeout(300)
async def test_a_cluster_that_comes_up_after_the_start_is_used_and_a_node_that_is_gone_for_long_forgotten(
    engine_here: Any, monkeypatch: pytest.MonkeyPatch
):
    said: list[str] = []
    found = RayWorkers(Settings(ray_address="127.0.0.1:9"), lambda news: said.append(news.message))
    try:
        await found.start(await current_engine())
        assert found.reached() == []
        with ray_nodes({"one": {}}) as cluster:
            monkeypatch.setattr("synaptic.cluster.ray_workers.joined", lambda _: joined(cluster.address))
            await until(lambda: bool(found.reached()), 200.0)
            assert found.unreached() == []

            other = add_node(cluster, "two")
            await until(lambda: len(found.reached()) == 2, 200.0)
            monkeypatch.setattr("synaptic.cluster.ray_workers.FORGOTTEN_SECONDS", 0.0)
            kill_with_all(raylet_of(other))
            await until(lambda: len(found.reached()) == 1, 200.0)
            await found.aclose()
    finally:
        await found.aclose()
    assert "is not reached" in said[0] and "it is tried again" in said[0]
    assert said[1:3] == ["the Ray cluster 127.0.0.1:9 is reached now", "ray-2-two is reached now"]


async def test_a_node_without_this_package_is_for_a_person_to_see_to(own_home: Any, monkeypatch: pytest.MonkeyPatch):
    class Unknown:
        """What only this process can import."""

    Unknown.__module__, Unknown.__qualname__ = "synaptic.nowhere", "Unknown"
    nowhere = ModuleType("synaptic.nowhere")
    nowhere.Unknown = Unknown  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "synaptic.nowhere", nowhere)
    with ray_nodes({"one": {}}) as cluster:
        async with joined(cluster.address):
            (node,) = await nodes()
            with pytest.raises(
                EngineUnavailable, match=r"node one starts nothing: .*No module named 'synaptic"
            ) as error:
                await start_actor(Unknown, node)
    assert "pip install" in str(error.value.hint)
    assert not passes(error.value)


async def test_without_a_cluster_the_workers_of_the_settings_do(engine_here: Any):
    notices, report = heard()
    settings = Settings(ray_address="127.0.0.1:9", rpc_backends=["127.0.0.1:50052"])
    found = Elsewhere(report)
    try:
        await found.start(settings, await current_engine())
        assert found.joined_to(settings).rpc_backends == settings.rpc_backends
    finally:
        await found.aclose()
    assert "the Ray cluster 127.0.0.1:9 is not reached" in notices[0].message
    assert machines_elsewhere(settings) == 1
