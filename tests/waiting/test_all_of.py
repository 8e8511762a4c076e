"""Several calls at once, as one."""

from __future__ import annotations

import asyncio

import pytest

from synaptic.waiting import all_of


async def test_what_each_comes_to_is_in_their_order():
    ended = asyncio.Event()

    async def first() -> int:
        await ended.wait()
        return 1

    async def second() -> int:
        ended.set()
        return 2

    assert await all_of(call() for call in (first, second)) == [1, 2]
    assert await all_of([]) == []


async def test_the_first_that_fails_cancels_the_others_and_is_raised_as_it_is():
    cancelled: list[str] = []

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append("the other one")
            raise

    async def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as failed:
        await all_of([hangs(), fails()])
    assert cancelled == ["the other one"]
    assert failed.value.__cause__ is None
