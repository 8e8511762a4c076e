"""A placement is what llama-server makes of it: two real workers, the real model, and where its layers then are."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from engine_support import real_files
from placement_support import GIB, MEASURED, MIB, make_offer, make_shape

from synaptic.backends.distributed.coordinator.buffer_report import check_buffers, parse_buffer_sizes
from synaptic.backends.distributed.coordinator.llama_process import LlamaProcess
from synaptic.backends.distributed.engine.engine import Engine
from synaptic.backends.distributed.engine.store import look_at
from synaptic.backends.distributed.placement.decide import place
from synaptic.backends.distributed.placement.server_arguments import buffer_name, server_arguments
from synaptic.backends.distributed.placement.types import Offer, Placement, ServingNeeds
from synaptic.backends.distributed.workers.managed import ManagedWorker
from synaptic.messages import ignore_report
from synaptic.models.download import ModelStore
from synaptic.models.model_source import open_model
from synaptic.processes.child import ChildProcess
from synaptic.processes.ports import free_port

pytestmark = pytest.mark.real_model

WANTED = ServingNeeds(context=1000, slots=2, ubatch=128)


@pytest.fixture(name="engine")
async def real_engine() -> Engine:
    return await look_at(real_files(), "built")


@pytest.fixture
async def workers(engine: Engine) -> AsyncIterator[list[ManagedWorker]]:
    started = [
        ManagedWorker(engine, threads=1, memory_bytes=None, cache_dir=None, name=f"w{number}") for number in range(2)
    ]
    try:
        for worker in started:
            await worker.start()
        yield started
    finally:
        for worker in started:
            await worker.stop()


def offers_of(workers: list[ManagedWorker], layers: list[int | None]) -> list[Offer]:
    return [
        Offer(
            endpoint=worker.endpoint,
            device=0,
            memory_bytes=GIB,
            measurement=MEASURED,
            managed=True,
            layers=count,
        )
        for worker, count in zip(workers, layers, strict=True)
    ]


async def loaded(engine: Engine, placement: Placement, tmp_path: Path) -> list[str]:
    """Load it, generate a token, and return what it wrote."""
    process = await LlamaProcess.start(engine, server_arguments(placement), port=free_port(), log_file=tmp_path / "log")
    try:
        await process.loaded(lambda _: None, stall=60)
        await process.client.generate_one_token(within=30)
        return list(process.lines)
    finally:
        await process.stop()


async def test_the_layers_are_where_the_placement_puts_them(
    engine: Engine,
    workers: list[ManagedWorker],
    tmp_path: Path,
):
    shape = await open_model(str(await ModelStore().ensure(ignore_report)))
    placement = place(shape, offers_of(workers, [10, None]), WANTED)
    by_worker = {share.endpoint: share for share in placement.shares}
    assert (by_worker[workers[0].endpoint].layers, by_worker[workers[1].endpoint].layers) == (10, 20)

    lines = await loaded(engine, placement, tmp_path)

    weights, kv = parse_buffer_sizes(lines), parse_buffer_sizes(lines, "KV")
    scratch = parse_buffer_sizes(lines, "compute")
    for share in placement.shares:
        name = buffer_name(share)
        assert weights[name] == pytest.approx(share.weight_bytes, rel=0.01, abs=MIB / 50)
        assert kv[name] == pytest.approx(share.kv_bytes, rel=0.01)
        assert scratch[name] <= share.compute_bytes <= 3 * scratch[name]
    # Shared embeddings stay here.
    assert weights["CPU"] == pytest.approx(shape.input_bytes, rel=0.01)
    assert not any("pipeline parallelism enabled" in line for line in lines)
    assert check_buffers(placement, lines) == ""
    first, *others = placement.shares
    turned = replace(placement, shares=(replace(first, weight_bytes=first.weight_bytes + 40 * MIB), *others))
    assert buffer_name(first) in check_buffers(turned, lines)


async def test_the_order_of_the_shares_is_the_order_of_the_devices(
    engine: Engine,
    workers: list[ManagedWorker],
    tmp_path: Path,
):
    """The head goes to the worker that sends fastest, whichever comes first by name."""
    shape = await open_model(str(await ModelStore().ensure(ignore_report)))
    for fast in range(2):
        offers = offers_of(workers, [None, None])
        offers[fast] = replace(offers[fast], layers=7, measurement=replace(MEASURED, download=5e9))
        offers[1 - fast] = replace(offers[1 - fast], measurement=replace(MEASURED, download=1e6))
        placement = place(shape, offers, WANTED)
        assert [share.layers for share in placement.shares] == [23, 7]
        assert placement.shares[-1].endpoint == workers[fast].endpoint
        assert check_buffers(placement, await loaded(engine, placement, tmp_path)) == ""


async def test_all_arguments_are_arguments_of_this_build(engine: Engine):
    child = await ChildProcess.start(engine.llama_server("--help"))
    lines = []
    while (line := await child.read_line()) is not None:
        lines.append(line)
    assert await child.wait() == 0
    await child.stop()
    known = set(re.findall(r"(?<![\w-])--[a-z-]+", "\n".join(lines)))
    used = {
        argument
        for argument in server_arguments(place(make_shape(), [make_offer(1, 8)], WANTED))
        if argument.startswith("--")
    }
    assert used <= known


async def test_embeddings_that_the_head_does_not_share_are_on_the_first_worker(
    engine: Engine,
    workers: list[ManagedWorker],
    tmp_path: Path,
):
    import gguf_support  # noqa: F401 - it knows where the next one is
    from synthetic_gguf import write_synthetic

    model = write_synthetic(tmp_path / "untied.gguf", gigabytes=0.04, layers=6)
    shape = await open_model(str(model))
    assert not shape.tied
    placement = place(shape, offers_of(workers, [2, None]), ServingNeeds(context=256, slots=1))
    assert placement.shares[0].embeddings
    lines = await loaded(engine, placement, tmp_path)
    weights = parse_buffer_sizes(lines)
    assert check_buffers(placement, lines) == ""
    assert sum(weights.values()) == pytest.approx(shape.weight_bytes, rel=0.01)
    # Nothing of the model is with the coordinator.
    assert weights.get("CPU", 0) < MIB / 10


@pytest.mark.parametrize("tied", [True, False])
async def test_an_output_that_stays_is_with_the_coordinator(
    engine: Engine, workers: list[ManagedWorker], tmp_path: Path, *, tied: bool
):
    import gguf_support  # noqa: F401 - it knows where the next one is
    from synthetic_gguf import write_synthetic

    if tied:
        shape = await open_model(str(await ModelStore().ensure(ignore_report)))
    else:
        shape = await open_model(str(write_synthetic(tmp_path / "untied.gguf", gigabytes=0.4, layers=6)))
    assert shape.tied == tied
    offers = [replace(one, measurement=replace(MEASURED, download=1e5)) for one in offers_of(workers, [2, None])]
    placement = place(shape, offers, ServingNeeds(context=256, slots=1))
    assert placement.output_here
    lines = await loaded(engine, placement, tmp_path)
    weights = parse_buffer_sizes(lines)
    assert check_buffers(placement, lines) == ""
    for share in placement.shares:
        assert weights[buffer_name(share)] == pytest.approx(share.weight_bytes, rel=0.01, abs=MIB / 50)
    held = shape.input_bytes if tied else shape.output_bytes
    assert weights["CPU"] == pytest.approx(held, rel=0.01, abs=MIB / 10)
