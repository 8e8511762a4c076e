"""Loading a model ahead of its first call: joined, not repeated, and only where it evicts no model in use."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from synaptic.backends.ollama import NAME
from synaptic.backends.pool.node import judge
from synaptic.backends.pool.policy import footprint
from synaptic.errors import BackendError
from synaptic.messages import BackendNotice
from synaptic.waiting import Rules

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synaptic.backends.pool.node import ModelState, PoolNode
    from synaptic.messages import ChatRequest, Reporter

USUAL_LOAD_SECONDS = 5.0
TOGETHER_SECONDS = 0.05
"""Steps that begin together have their calls bound within this; only then it shows which nodes are left."""


class PreloadRequests:
    """Loads that are requested, until the calls of the steps that begin now are bound to their nodes.

    A load that is begun before may go to the very node that the call of a running step is about to take, and push its
    model out of memory there.

    Args:
        begin: Begins one load.
    """

    def __init__(self, begin: Callable[[ChatRequest], None]) -> None:
        self._begin = begin
        self._preloads: dict[str, ChatRequest] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, model: str, request: ChatRequest) -> None:
        """Note a request; the latest for a model counts."""
        self._preloads[model] = request

    def call_was_bound(self) -> None:
        """Take note that a node has got a call: the loads can begin shortly."""
        if self._preloads and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TOGETHER_SECONDS, self._grant)

    def close(self) -> None:
        """Forget them."""
        self._preloads.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _grant(self) -> None:
        self._timer = None
        requests, self._preloads = self._preloads, {}
        for request in requests.values():
            self._begin(request)


class Preloader:
    """Loads models of one pool ahead.

    Args:
        look: Reads what a node has in memory now.
        changed: Called when a load has begun or ended.
        loaded: Called with a node and a model that is loaded now, and its context length.
        report: Hears of loads that failed.
    """

    def __init__(
        self,
        *,
        look: Callable[[PoolNode], Awaitable[None]],
        changed: Callable[[PoolNode], None],
        loaded: Callable[[PoolNode, str, int | None], None],
        report: Reporter,
    ) -> None:
        self._look = look
        self._changed = changed
        self._loaded = loaded
        self._report = report
        self._loads: dict[int, tuple[str, asyncio.Task[None]]] = {}
        self._not_before: dict[tuple[int, str], float] = {}

    @property
    def loading(self) -> dict[int, str]:
        """Node's key -> the model that is being loaded there."""
        return {key: model for key, (model, _) in self._loads.items()}

    def prepare(self, member: PoolNode, model: str, *, num_ctx: int | None, keep_alive: str | None) -> bool:
        """Begin to load ``model`` on a node; return whether it is, or will be, in memory.

        It is not begun where another load is under way, or where it could push out a model that is in use.
        """
        key = member.state.key
        if key in self._loads:
            return self._loads[key][0] == model
        state = member.state.models.get(model)
        if state is None or member.state.cap == 0:
            return False
        if state.resident and not state.reloads(num_ctx):
            return True
        loop = asyncio.get_running_loop()
        now = loop.time()
        if max(state.refused_until, self._not_before.get((key, model), 0.0)) > now:
            return False
        if not _evicts_nothing_in_use(member, state, num_ctx):
            return False
        state.loading_until = now + (state.rates.load_seconds or USUAL_LOAD_SECONDS)
        task = loop.create_task(self._load(member, state, num_ctx, keep_alive))
        self._loads[key] = (model, task)
        return True

    async def aclose(self) -> None:
        """Give up what is being loaded; a server that has begun may go on."""
        tasks = [task for _, task in self._loads.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _load(self, member: PoolNode, state: ModelState, wanted: int | None, keep_alive: str | None) -> None:
        loop = asyncio.get_running_loop()
        self._changed(member)
        await self._look(member)
        model, began, num_ctx = state.name, loop.time(), state.context_for(wanted)
        state.load_begins(num_ctx, state.loading_until)
        try:
            await member.client.load(state.shown, num_ctx=num_ctx, keep_alive=keep_alive)
        except BackendError as exc:
            self._failed(member, state, exc)
        else:
            now = loop.time()
            state.resident, state.seen_at = True, now
            state.rates.load_seconds = state.rates.load_seconds or now - began
            self._not_before.pop((member.state.key, model), None)
            self._loaded(member, model, num_ctx)
        finally:
            state.loading_until = 0.0
            del self._loads[member.state.key]
            self._changed(member)

    def _failed(self, member: PoolNode, state: ModelState, error: BackendError) -> None:
        """Back off from a model that cannot be loaded there: calls would fail, too."""
        until = asyncio.get_running_loop().time() + Rules.LOAD_AHEAD.longest
        self._not_before[member.state.key, state.name] = until
        if judge(error).blame == "model":
            state.refused_until, state.refused_why = until, error.message
        text = f"{state.shown} could not be loaded ahead on {member.state.name}: {error.message}"
        self._report(BackendNotice(NAME, text, "warning"))


def _evicts_nothing_in_use(member: PoolNode, model: ModelState, num_ctx: int | None) -> bool:
    """Return whether a load leaves alone what is in use: nothing is, or memory holds both for certain."""
    state = member.state
    if model.name in state.busy_models:
        return False  # it is loaded, or about to be, and a load with another context would wait for its calls
    if not state.busy_models:
        return True
    if state.memory_bytes is None:
        return False
    used = sum(other.loaded_bytes for other in state.models.values() if other.resident and other is not model)
    need = footprint(model, num_ctx)
    return need > 0 and used + need <= state.memory_bytes
