"""Over however many workers, the model says what it says without any."""

import pytest
from real_distributed import Local, distributed, engine_in_home, local_answers, spread  # noqa: F401 - two are fixtures

pytestmark = [pytest.mark.real_model, pytest.mark.usefixtures("engine_here")]


@pytest.mark.parametrize("workers", [1, 2, 3])
async def test_greedy_output_over_workers_is_the_local_one(workers: int, local: Local):
    prompt = "Tell me how bread is baked, step by step."
    async with distributed(**await spread(workers)) as watched:
        answer = await watched.answer(prompt, tokens=60)

        assert len(watched.status.workers) == workers
        assert len(watched.status.placement.shares) == workers
    assert answer.text == local.says(prompt, tokens=60)
    assert answer.breaks == 0
