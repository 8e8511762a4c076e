"""Programs of one person tell each other their calls in flight: with real processes, and with what is left of them."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from faulty_node import FaultyNode
from pool_support import MODEL, ask, pool_over, question

from synaptic import paths
from synaptic.backends.pool import shared_counts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pool_support import Trial

PROGRAM = """
import asyncio, sys
from synaptic import ChatRequest, Message, Settings
from synaptic.backends.pool import PoolBackend
from synaptic.settings import NodeSettings

async def main():
    async with PoolBackend(Settings(), [NodeSettings(url=url, parallel=8) for url in sys.argv[2:]]) as pool:
        await pool.start()
        ask = lambda: pool.stream(ChatRequest(messages=(Message("user", "hold"),), model="m"))
        calls = [asyncio.ensure_future(anext(ask())) for _ in range(int(sys.argv[1]))]
        await asyncio.sleep(0)
        print("asked", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        for call in calls:
            call.cancel()

asyncio.run(main())
"""


@asynccontextmanager
async def another_program(calls: int, *urls: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program that makes calls which nobody answers, until this block ends or a line is written to it."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, str(calls), *urls), stdin=pipe, stdout=pipe
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            assert await process.stdout.readline(), "it ended"
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def elsewhere(trial: Trial, *expected: int) -> None:
    """Wait until the pool knows of so many calls of others at each node."""
    async with asyncio.timeout(30):
        while [status.elsewhere for status in trial.pool.statuses()] != list(expected):
            await asyncio.sleep(0.01)


def files() -> list[str]:
    return sorted(file.name for file in paths.in_flight_dir().iterdir())


async def test_a_call_goes_where_other_programs_have_none_and_a_killed_one_has_none():
    config = {"models": [MODEL], "parallel": 8, "seconds_per_call": 0.1}
    async with FaultyNode(**config) as busy, FaultyNode(**config) as idle:
        named_otherwise = busy.url.replace("127.0.0.1", "localhost")
        async with pool_over([busy, idle], parallel=2) as trial:
            assert len(files()) == 1
            assert all([(await ask(trial.pool, question(f"Learn {n}"))).text for n in range(4)])
            busy.fail("hang_before_headers")
            async with another_program(8, named_otherwise) as other:
                await elsewhere(trial, 8, 0)
                answers = [(await ask(trial.pool, question(f"Question {n}"))).node for n in range(6)]
                assert answers == ["n1"] * 6, "each would have waited behind the calls of the other program"
                assert "other programs have 8 calls there" in trial.pool.decisions()[-1].candidates[1].why
                other.kill()
                await other.wait()
                await elsewhere(trial, 0, 0)
                assert len(files()) == 1, "what a killed program left is removed"
                await busy.wait_for(lambda: busy.counters.in_flight == 0)
            busy.heal()
            busy.counters.peak_in_flight = 0  # most of those were not this pool's
    assert files() == []


async def test_what_ends_in_another_program_counts_no_more():
    async with FaultyNode(models=[MODEL], parallel=4) as node:
        node.fail("hang_before_headers")
        async with pool_over([node], parallel=2) as trial, another_program(1, node.url) as other:
            await elsewhere(trial, 1)
            await node.wait_for(lambda: node.counters.in_flight == 1)
            await other.communicate(b"\n")
            assert other.returncode == 0
            await elsewhere(trial, 0)
            await node.wait_for(lambda: node.counters.in_flight == 0)


async def test_no_call_is_held_back_for_those_of_other_programs():
    async with FaultyNode(models=[MODEL], parallel=4) as node:
        node.fail("hang_before_headers", times=2)
        async with pool_over([node], parallel=2) as trial, another_program(2, node.url):
            await elsewhere(trial, 2)
            assert (await ask(trial.pool, question())).text
            node.counters.peak_in_flight = 0  # most of those were not this pool's


async def test_two_pools_of_one_program_know_of_each_other():
    async with FaultyNode(models=[MODEL], parallel=4) as node:
        node.fail("hang_after_n", after=0)
        async with pool_over([node], parallel=2) as one, pool_over([node], parallel=2) as other:
            call = asyncio.create_task(ask(one.pool, question()))
            await elsewhere(other, 1)
            assert [status.elsewhere for status in one.pool.statuses()] == [0], "its own calls are not those of others"
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            await elsewhere(other, 0)
            await node.wait_until_idle()


async def test_a_folder_that_cannot_be_used_costs_the_knowledge_and_nothing_else():
    paths.state_dir().mkdir(parents=True)
    paths.in_flight_dir().write_text("this is no folder")
    async with FaultyNode(models=[MODEL]) as node, pool_over([node]) as trial:
        assert (await ask(trial.pool, question())).text
    assert paths.in_flight_dir().read_text() == "this is no folder"


async def test_a_folder_that_goes_meanwhile_costs_nothing_either():
    async with FaultyNode(models=[MODEL]) as node, pool_over([node]) as trial:
        for name in files():
            (paths.in_flight_dir() / name).unlink()
        paths.in_flight_dir().rmdir()
        await asyncio.sleep(shared_counts.LIST_EVERY)
        assert (await ask(trial.pool, question())).text


@pytest.mark.parametrize("content", [b"", b"short", os.urandom(1000), b"\xff" * 64])
async def test_what_is_no_count_is_none(content):
    async with FaultyNode(models=[MODEL]) as node, pool_over([node]) as one:
        (own,) = files()
        beginning = own.rpartition("-")[0]
        (paths.in_flight_dir() / f"{beginning}-99{shared_counts.SUFFIX}").write_bytes(content)
        await asyncio.sleep(shared_counts.LIST_EVERY)
        assert (await ask(one.pool, question())).text
        assert [status.elsewhere for status in one.pool.statuses()] == [0]


async def test_files_of_processes_that_are_gone_are_removed_and_those_of_other_containers_when_they_are_old():
    folder = paths.in_flight_dir()
    async with FaultyNode(models=[MODEL]) as node:
        async with pool_over([node]):
            space, pid, *_ = files()[0].split("-")
        young, old = folder / f"0123456789ab-{pid}-ba9876543210-0.calls", folder / "0123456789ab-1-ba9876543210-0.calls"
        earlier = folder / f"{space}-{pid}-ba9876543210-0.calls"  # a process had our number
        for file in (young, old, earlier):
            file.write_bytes(b"")
        month = time.time() - 86400 * shared_counts.KEPT_DAYS - 60
        os.utime(old, (month, month))
        async with pool_over([node]) as trial:
            assert (await ask(trial.pool, question())).text
        assert files() == [young.name]
