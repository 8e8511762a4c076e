"""Over however many workers, the model says what it says without any."""

import psutil
import pytest
from real_distributed import (  # two are fixtures
    Local,
    distributed,
    engine_in_home,  # noqa: F401
    externals,
    local_answers,  # noqa: F401
    memory_for,
    real_shape,
    spread,
)

from synaptic.backends.distributed.workers.measure import Measurement
from synaptic.backends.distributed.workers.probe import probe
from synaptic.backends.distributed.workers.worker_facts import remember

pytestmark = [pytest.mark.real_model, pytest.mark.usefixtures("engine_here")]


@pytest.mark.parametrize("workers", [1, 2, 3])
async def test_greedy_output_over_workers_is_the_local_one(workers: int, local: Local):
    prompt = "Tell me how bread is baked, step by step."
    async with distributed(**await spread(workers)) as watched:
        answer = await watched.answer(prompt, tokens=60)

        assert len(watched.status.workers) == workers
        assert len(watched.status.placement.shares) == workers
        ours = psutil.Process().cpu_affinity()
        assert len(psutil.Process(watched.pid).cpu_affinity()) == 1 or len(ours) == 1
    assert answer.text == local.says(prompt, tokens=60)
    assert answer.breaks == 0


async def test_so_it_is_with_the_output_at_the_coordinator(local: Local):
    prompt = "Tell me how cheese is made, step by step."
    slow = Measurement(round_trip=5e-3, upload=117e6, download=10e6, weight_reading=(5e9,))
    with externals(2) as workers:
        for worker in workers:
            remember(worker.endpoint, await probe(worker.endpoint), slow)
        memory = memory_for(await real_shape(), 2)
        async with distributed(rpc_backends=[worker.settings(memory) for worker in workers]) as watched:
            answer = await watched.answer(prompt, tokens=60)

            assert watched.status.placement.output_here
            assert len(watched.status.placement.shares) == 2
    assert answer.text == local.says(prompt, tokens=60)
