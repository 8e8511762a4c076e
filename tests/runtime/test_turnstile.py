"""Leaves that are known end in their old order, and before anything new."""

import asyncio

from synaptic.runtime.turnstile import Turnstile


async def passing(turnstile: Turnstile, order: float | None, name: str, said: list[str]) -> None:
    await (turnstile.pass_as() if order is None else turnstile.pass_as(order))
    said.append(name)


async def test_they_pass_in_their_order_and_what_is_new_behind_them():
    turnstile, said = Turnstile(), []
    arriving = [(None, "new"), (3, "c"), (1, "a"), (None, "newer"), (2, "b")]
    async with asyncio.TaskGroup() as group:
        for order, name in arriving:
            group.create_task(passing(turnstile, order, name, said))
    assert said == ["a", "b", "c", "new", "newer"]
    assert turnstile.is_empty


async def test_what_follows_from_one_comes_before_a_later_one():
    turnstile, said = Turnstile(), []

    async def chain() -> None:
        await passing(turnstile, 1, "a", said)
        async with asyncio.TaskGroup() as group:
            group.create_task(passing(turnstile, 2, "b", said))

    async with asyncio.TaskGroup() as group:
        group.create_task(passing(turnstile, 3, "c", said))
        group.create_task(chain())
    assert said == ["a", "b", "c"]


async def test_one_that_is_cancelled_holds_up_nobody():
    turnstile, said = Turnstile(), []
    gone = asyncio.create_task(passing(turnstile, 1, "gone", said))
    await asyncio.sleep(0)
    gone.cancel()
    async with asyncio.timeout(20):
        await passing(turnstile, 2, "b", said)
        await passing(turnstile, None, "new", said)
    assert said == ["b", "new"]
