"""Ours: ``synaptic.Pool`` as README has it."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import synaptic
from sides.pool_load import laps_of
from synaptic.backends.pool.index import WORTHWHILE, Shortlist
from synaptic.backends.pool.learned.rates import Rates, Sample
from synaptic.backends.pool.node.state import CallShape, ModelState, NodeState
from synaptic.backends.pool.policy import Reservations, pick

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

PACKAGES = ("synapticllamas", "httpx", "aiohttp")


class Ours:
    """Calls ``Pool.chat``."""

    blocking = False

    def __init__(self, pool: synaptic.Pool) -> None:
        self._pool = pool

    async def call(self, prompt: str, tokens: int) -> str:
        """Return the answer's text."""
        return (await self._pool.chat(prompt, max_tokens=tokens)).text


@asynccontextmanager
async def opened(nodes: list[dict[str, Any]], *, hedge: bool = False) -> AsyncGenerator[Ours]:
    """Give a pool over ``nodes`` (``url``, ``parallel``)."""
    async with synaptic.Pool(nodes, model="m", hedge=hedge) as pool:
        yield Ours(pool)


def picker(nodes: int, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of a choice among so many nodes, by repeat: alone, and with the place taken and given back.

    The nodes are of different speed, half of them busy; the way is the pool's own: of many nodes it looks at those of
    its index (:mod:`synaptic.backends.pool.index`) only.
    """
    rng = random.Random(1)
    states = [_state(key, rng) for key in range(nodes)]
    shortlist = Shortlist(states) if nodes > WORTHWHILE else None
    call = CallShape("m:latest", prompt_tokens=500, output_tokens=200, num_ctx=4096)
    nobody, unknown = Reservations(), Rates()

    def choose() -> NodeState | None:
        among = states if shortlist is None else shortlist.candidates(call, rng)
        return pick(call, among, 1.0, nobody, rng, unknown).node

    def take() -> None:
        node = choose()
        assert node is not None
        node.claim("m:latest", 2.0)
        if shortlist is not None:
            shortlist.touch(node)
        node.release("m:latest", 2.0)
        if shortlist is not None:
            shortlist.touch(node)

    return {"choice": laps_of(choose, repeats), "claim": laps_of(take, repeats)}


def _state(key: int, rng: random.Random) -> NodeState:
    """Return a node with four places that has the model and a speed of its own."""
    model = ModelState("m:latest", size_bytes=10**9, context_length=8192, resident=True, loaded_context=4096)
    seconds = rng.uniform(1.0, 10.0)
    for _ in range(3):
        model.rates.learn(Sample(seconds / 10, seconds, prompt_tokens=500, output_tokens=200))
    node = NodeState(key, f"node {key}", limit=4, cap=4, models={"m:latest": model})
    for _ in range(rng.choice((0, 2))):
        node.claim("m:latest", rng.uniform(1.0, 5.0))
    return node
