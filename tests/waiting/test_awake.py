"""Time for which this process was awake: what it was stopped for is held against nobody."""

from __future__ import annotations

import asyncio
import time

import pytest

from synaptic.waiting import AwakeClock, awake, awake_timeout
from synaptic.waiting.awake import GAP_SECONDS

HELD = 0.3


def test_gaps_between_two_looks_do_not_count():
    now = 100.0
    clock = AwakeClock(lambda: now)
    for gap, told in ((0.0, 0.0), (0.5, 0.5), (GAP_SECONDS, 2.5), (GAP_SECONDS + 0.1, 2.5), (3600.0, 2.5), (1.0, 3.5)):
        now += gap
        assert clock() == told


async def test_a_block_that_takes_too_long_is_ended():
    with pytest.raises(TimeoutError):
        async with awake_timeout(0.01):
            await asyncio.get_running_loop().create_future()
    async with awake_timeout(60.0):
        pass
    assert [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()] == []


async def test_a_program_that_was_stopped_reads_what_has_arrived_meanwhile(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(awake, "GAP_SECONDS", HELD / 3)
    loop = asyncio.get_running_loop()
    arrived = loop.create_future()

    def stopped() -> None:
        time.sleep(HELD)
        loop.call_soon(loop.call_soon, arrived.set_result, "a line")  # as what lies in a pipe is read later

    loop.call_later(0, stopped)
    async with awake_timeout(HELD / 2):
        assert await arrived == "a line"
