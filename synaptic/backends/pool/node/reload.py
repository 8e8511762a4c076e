"""Where a model landed: in video memory, or on the processor of a machine that has better.

``/api/ps`` tells after a load how much of the model is in video memory. A model that did not get all of it because
others lie idle there is loaded once more without them. Ollama's API offers nothing else, as
``num_gpu`` would have to be sent with every later call, or force a reload itself. Only models that this pool has used
count as idle: the API does not tell whether another program needs the rest.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from synaptic.backends.pool.learned import Rates
from synaptic.backends.pool.node.facts import read_facts
from synaptic.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.backends.pool.node.facts import LoadedModel
    from synaptic.backends.pool.node.node import PoolNode
    from synaptic.backends.pool.node.state import ModelState, NodeState

WHOLE = 0.98
"""Part in video memory from which a model counts as all there: its output layer may be kept elsewhere."""

MOVED = 0.1
"""By how much that part must have changed for what was learned of the model's speed to be void."""

USUAL_LOAD_SECONDS = 5.0


class Say(Protocol):
    """Tells people."""

    def __call__(self, message: str, *, warning: bool = False) -> None:
        """Tell them."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """A model to be loaded once more, and the idle ones to be taken out of memory before."""

    model: str
    num_ctx: int | None
    idle: tuple[str, ...]


class Reloads:
    """Verifies placements.

    Args:
        say: Tells people.
    """

    def __init__(self, say: Say) -> None:
        self._say = say
        self._expected: dict[tuple[int, str], int | None] = {}
        self._has_gpu: set[int] = set()
        self._told: set[tuple[int, str]] = set()
        self._helped: set[tuple[int, str]] = set()
        self._shares: dict[tuple[int, str], float] = {}

    def expect(self, member: PoolNode, model: str, num_ctx: int | None) -> None:
        """Take note that ``model`` was loaded just now: the next look at the node verifies it."""
        self._expected[member.state.key, model] = num_ctx

    def verify(self, member: PoolNode, loaded: Mapping[str, LoadedModel]) -> list[Remedy]:
        """Look at where models landed that were loaded since the last time; return what can be done about it."""
        key = member.state.key
        if any(entry.size_vram for entry in loaded.values()):
            self._has_gpu.add(key)
        remedies = []
        for place in [place for place in self._expected if place[0] == key]:
            num_ctx, model = self._expected.pop(place), place[1]
            entry = loaded.get(model)
            if entry is None or not entry.size:
                continue
            self._learn(member, model, entry.vram_share)
            if key not in self._has_gpu or entry.vram_share >= WHOLE:
                continue
            idle = tuple(name for name, other in loaded.items() if name != model and _lies_idle(member, name, other))
            self._tell(member, model, entry, idle)
            if idle and not member.state.in_flight and place not in self._helped:
                self._helped.add(place)
                remedies.append(Remedy(model, num_ctx, idle))
        return remedies

    async def apply(self, member: PoolNode, remedy: Remedy) -> None:
        """Take the idle models out, and the model in again; tell what came of it."""
        model, node = remedy.model, member.state
        shown = _shown(node, model)
        names = ", ".join(_shown(node, name) for name in remedy.idle)
        state = node.models.get(model)
        for name in (*remedy.idle, model):
            if (other := node.models.get(name)) is not None:
                other.resident = False
        if state is not None:
            expected = state.rates.load_seconds or USUAL_LOAD_SECONDS
            state.loading_until = asyncio.get_running_loop().time() + expected
        try:
            for name in (*remedy.idle, model):
                await member.client.unload(_shown(node, name))
            await member.client.load(shown, num_ctx=remedy.num_ctx)
            loaded = read_facts(*await member.client.listings()).loaded or {}
        except BackendError as exc:
            self._say(f"{shown} could not be loaded again on {node.name}: {exc.message}", warning=True)
            return
        finally:
            if state is not None:
                state.loading_until = 0.0
        if state is not None:
            state.resident = model in loaded
        if (entry := loaded.get(model)) is not None:
            self._learn(member, model, entry.vram_share)
            share = round(100 * entry.vram_share)
            self._say(f"{shown} was loaded again on {node.name} without {names}: {share} % is in video memory now")

    def _learn(self, member: PoolNode, model: str, share: float) -> None:
        """Forget what was learned of a model's speed where it lies otherwise than before."""
        before = self._shares.get((member.state.key, model))
        self._shares[member.state.key, model] = share
        state = member.state.models.get(model)
        if state is not None and before is not None and abs(share - before) > MOVED:
            state.rates = Rates(load_seconds=state.rates.load_seconds)

    def _tell(self, member: PoolNode, model: str, entry: LoadedModel, idle: tuple[str, ...]) -> None:
        place, name = (member.state.key, model), member.state.name
        if place in self._told:
            return
        self._told.add(place)
        share = round(100 * (1 - entry.vram_share))
        if idle:
            advice = f"in its video memory lies idle: {', '.join(_shown(member.state, other) for other in idle)}"
        elif entry.size_vram:
            advice = "its video memory is too small for the model at this context length, or others use it"
        else:
            advice = "its video memory is full, or its GPU is gone (the log of the Ollama there tells)"
        self._say(f"{_shown(member.state, model)} runs {share} % on the processor of {name}: {advice}", warning=True)


def _shown(node: NodeState, model: str) -> str:
    """Return a model's name as the node writes it."""
    state = node.models.get(model)
    return model if state is None else state.shown


def _lies_idle(member: PoolNode, name: str, loaded: LoadedModel) -> bool:
    """Return whether a model takes video memory and was used by this pool, but is not now."""
    state: ModelState | None = member.state.models.get(name)
    return (
        loaded.size_vram > 0 and name not in member.state.busy_models and state is not None and _was_used_by_us(state)
    )


def _was_used_by_us(state: ModelState) -> bool:
    return state.seen_at > float("-inf")
