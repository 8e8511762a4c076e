"""Loading a model ahead of its first call: joined, not repeated, and only where it disturbs nobody."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from synaptic.backends.ollama_api import NAME
from synaptic.backends.pool.picker import footprint
from synaptic.errors import BackendError
from synaptic.messages import BackendNotice

if TYPE_CHECKING:
    from collections.abc import Callable

    from synaptic.backends.pool.member import Member
    from synaptic.messages import Reporter

USUAL_LOAD_SECONDS = 5.0


class Warmer:
    """Loads models of one pool ahead.

    Args:
        changed: Called when a load has begun or ended.
        loaded: Called with a node and a model that is loaded now, and its context length.
        report: Hears of loads that failed.

    """

    def __init__(
        self,
        *,
        changed: Callable[[Member], None],
        loaded: Callable[[Member, str, int | None], None],
        report: Reporter,
    ) -> None:
        self._changed = changed
        self._loaded = loaded
        self._report = report
        self._loads: dict[int, tuple[str, asyncio.Task[None]]] = {}

    @property
    def loading(self) -> dict[int, str]:
        """Node's key -> the model that is being loaded there."""
        return {key: model for key, (model, _) in self._loads.items()}

    def prepare(self, member: Member, model: str, *, num_ctx: int | None, keep_alive: str | None) -> bool:
        """Begin to load ``model`` on a node; return whether it is, or will be, in memory.

        It is not begun where another load is under way, or where it could push out a model that is in use.
        """
        key = member.state.key
        if key in self._loads:
            return self._loads[key][0] == model
        state = member.state.models.get(model)
        if state is None or member.state.cap == 0:
            return False
        if state.resident:
            return True
        if not _disturbs_nobody(member, model, num_ctx):
            return False
        now = asyncio.get_running_loop().time()
        state.loading_until = now + (state.rates.load_seconds or USUAL_LOAD_SECONDS)
        task = asyncio.get_running_loop().create_task(self._load(member, model, num_ctx, keep_alive))
        self._loads[key] = (model, task)
        return True

    async def aclose(self) -> None:
        """Give up what is being loaded; a server that has begun may go on."""
        tasks = [task for _, task in self._loads.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _load(self, member: Member, model: str, num_ctx: int | None, keep_alive: str | None) -> None:
        state = member.state.models[model]
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._changed(member)
        try:
            await member.client.load(model, num_ctx=num_ctx, keep_alive=keep_alive)
        except BackendError as exc:
            text = f"{model} could not be loaded ahead on {member.state.name}: {exc.message}"
            self._report(BackendNotice(NAME, text, "warning"))
        else:
            state.resident, state.seen_at = True, loop.time()
            state.rates.load_seconds = state.rates.load_seconds or loop.time() - began
            self._loaded(member, model, num_ctx)
        finally:
            state.loading_until = 0.0
            del self._loads[member.state.key]
            self._changed(member)


def _disturbs_nobody(member: Member, model: str, num_ctx: int | None) -> bool:
    """Return whether a load leaves alone what is in use: nothing is, or memory holds both for certain."""
    state = member.state
    others = [name for name in state.busy_models if name != model]
    if not others:
        return True
    if state.memory_bytes is None:
        return False
    used = sum(other.loaded_bytes for other in state.models.values() if other.resident)
    need = footprint(state.models[model], num_ctx)
    return need > 0 and used + need <= state.memory_bytes
