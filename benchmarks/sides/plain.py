"""The floor: dependency counting over a dict with bare asyncio tasks. No state, no events, no checks, no errors."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING

from sides.shapes import (
    LIMIT,
    STEP_SECONDS,
    Lap,
    Laps,
    Stopwatch,
    contended_steps,
    expect,
    lane_steps,
    pause,
    runs_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PACKAGES: tuple[str, ...] = ()


async def run(needs: Mapping[str, Sequence[str]], seconds: Mapping[str, float], limit: int | None = None) -> int:
    """Run every step once, first come, first served, and return how many ran."""
    waiting = {name: len(before) for name, before in needs.items()}
    dependents: dict[str, list[str]] = {name: [] for name in needs}
    for name, before in needs.items():
        for need in before:
            dependents[need].append(name)
    outputs: dict[str, str] = {}
    places = nullcontext() if limit is None else asyncio.Semaphore(limit)

    async def step(name: str) -> None:
        async with places:
            outputs[name] = await pause(seconds.get(name, 0.0))
        for after in dependents[name]:
            waiting[after] -= 1
            if not waiting[after]:
                tasks.create_task(step(after))

    async with asyncio.TaskGroup() as tasks:
        for name in [name for name, count in waiting.items() if not count]:
            tasks.create_task(step(name))
    return len(outputs)


async def timed(
    needs: Mapping[str, Sequence[str]], seconds: Mapping[str, float] | None = None, limit: int | None = None
) -> Lap:
    """Return how long one lap's runs took, by the run."""
    runs = runs_of(len(needs)) if seconds is None else 1
    watch = Stopwatch()
    counts = [await run(needs, seconds or {}, limit) for _ in range(runs)]
    lap = watch.lap()
    expect("plain asyncio", sum(counts), runs * len(needs))
    return Lap(lap.wall / runs, lap.cpu / runs)


async def chain(steps: int) -> Laps:
    """One step after the other."""
    return {"run": await timed({f"s{index}": [f"s{index - 1}"] if index else [] for index in range(steps)})}


async def fan(width: int, *, seconds: float = 0.0, mapped: bool = False) -> Laps:
    """One step, ``width`` steps beside each other, one step; without a map there is only the written form."""
    del mapped
    leaves = [f"b{index}" for index in range(width)]
    needs = {"first": [], **{leaf: ["first"] for leaf in leaves}, "last": leaves}
    return {"run": await timed(needs, dict.fromkeys(needs, seconds) if seconds else None)}


async def stagger() -> Laps:
    """Two lanes."""
    steps = lane_steps()
    needs = {name: [before] if before else [] for name, before, _ in steps}
    return {"run": await timed(needs, {name: seconds for name, _, seconds in steps})}


async def contended() -> Laps:
    """More ready steps than places, first come, first served."""
    needs = {name: [before] if before else [] for name, before in contended_steps()}
    return {"run": await timed(needs, dict.fromkeys(needs, STEP_SECONDS), LIMIT)}


CASES = {"chain": chain, "fan": fan, "stagger": stagger, "contended": contended}
