"""Backends with their policies around them: for each call the layers that it needs, and no other."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from synaptic import paths
from synaptic.backends import capabilities_of
from synaptic.messages import Reporter, ignore_report
from synaptic.runtime.policies.awaiting import Awaiting
from synaptic.runtime.policies.budget import BudgetMeter, Metered
from synaptic.runtime.policies.call_cache import Cached, CallCache
from synaptic.runtime.policies.fallback import FallingBack
from synaptic.runtime.policies.fitting import Fitting
from synaptic.runtime.policies.overflowing import OverflowRule
from synaptic.runtime.policies.prompt_size import ContextLengths
from synaptic.runtime.policies.reply_store import ReplyStore
from synaptic.runtime.policies.retrying import Retrying
from synaptic.runtime.policies.slots import Limited, Places, Slots, WaitingBounds
from synaptic.runtime.policies.taking_up import TakingUp
from synaptic.runtime.policies.timed import Timed
from synaptic.waiting import Backoff, Rules

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from synaptic.backends import Backend, Capabilities
    from synaptic.pipeline import CallPolicy
    from synaptic.runtime.policies.summarising import KeptSummaries
    from synaptic.settings import Settings


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Bounds:
    """What bounds the calls of one pipeline inside a run.

    Attributes:
        meter: Counts what the pipeline uses; its outermost meter stands for the run.
        limits: Calls at once, each with the name of what they are counted for; counted for each run by itself.
        summaries: Those that the run has made before; ``None`` where it is not recorded.
    """

    meter: BudgetMeter
    limits: tuple[tuple[str, int], ...] = ()
    summaries: KeptSummaries | None = None


@dataclass(frozen=True, slots=True)
class _Served:
    """A backend, the place where it serves, and how many calls it takes at once there.

    Attributes:
        timed: The backend, with its calls bounded in time, and waited for while it is not ready.
    """

    timed: Backend
    backend: Backend
    node: str
    capacity: int | None
    contexts: ContextLengths


@dataclass(frozen=True, slots=True)
class PromptSizes:
    """How long the prompts of a call may be, how long they are, and what happens to longer ones."""

    backend: str
    capabilities: Capabilities
    contexts: ContextLengths
    rule: OverflowRule


class Stacks:
    """Puts policies around the backends of one session; the order is told in :mod:`synaptic.runtime.policies`.

    Args:
        backend: The one that the session was routed to; its owner closes it.
        settings: ``retries``, ``overflow``, ``max_parallel`` (of one run) and ``model_parallel`` are used.
        capacity: Calls that ``backend`` takes at once, where it was sized for this session; else it says so itself.
        node: Where it serves, where it does not say so itself: calls to one place share its capacity.
        open_backend: Makes a backend that a step names; it is asked once for each name.
        report: Hears of trouble with the cache, and of servers that are waited for.
        cache_file: Where replies are kept; ``None`` is the user's cache.
        backoff: The waits before a call that failed is sent again.
    """

    def __init__(
        self,
        backend: Backend,
        settings: Settings,
        *,
        capacity: int | None = None,
        node: str | None = None,
        open_backend: Callable[[str], Backend] | None = None,
        report: Reporter = ignore_report,
        cache_file: Path | None = None,
        backoff: Backoff = Rules.RETRY,
    ) -> None:
        self._settings = settings
        self._open_backend = open_backend
        self._report = report
        self._cache_file = cache_file
        self._backoff = backoff
        self._cache: CallCache | None = None
        self._slots = Slots()
        self._routed = _served(backend, report, node, capacity)
        self._opened: dict[str, _Served] = {}
        # A run's stacks end with its bounds.
        self._stacks: WeakKeyDictionary[Bounds, dict[CallPolicy, Backend]] = WeakKeyDictionary()

    def of(self, policy: CallPolicy, bounds: Bounds) -> Backend:
        """Return the backend with the policies of one call around it; the same one for equal arguments.

        Raises:
            UsageError: If the policy names a backend that there is none of.
        """
        stacks = self._stacks.get(bounds)
        if stacks is None:
            stacks = self._stacks[bounds] = {}
        stack = stacks.get(policy)
        if stack is None:
            stack = stacks[policy] = self._build(policy, bounds)
        return stack

    def sizes(self, policy: CallPolicy) -> PromptSizes:
        """Return what is known of the length of the prompts of a call.

        Raises:
            UsageError: If the policy names a backend that there is none of.
        """
        served = self._served_by(policy.backend)
        return PromptSizes(served.backend.name, capabilities_of(served.backend), served.contexts, self._rule(policy))

    def direct(self) -> Backend:
        """Return the backend for calls that are no part of a run; they share the limits of single models with runs."""
        settings, backend = self._settings, self._routed.backend
        timed = backend if capabilities_of(backend).keeps_deadlines else Timed(backend)
        admission = WaitingBounds(settings.pool_queue, settings.pool_max_wait)
        return Limited(timed, self._slots, models=settings.model_parallel, admission=admission)

    async def aclose(self) -> None:
        """Close the backends that were opened here, and the cache."""
        opened, self._opened = self._opened, {}
        cache, self._cache = self._cache, None
        self._stacks.clear()
        try:
            if cache is not None:
                await cache.store.aclose()
        finally:
            async with AsyncExitStack() as closing:  # closes each, also where another one fails or is cancelled
                for served in reversed(opened.values()):
                    closing.push_async_callback(served.backend.aclose)

    def _build(self, policy: CallPolicy, bounds: Bounds) -> Backend:
        served = self._served_by(policy.backend)
        attempts = self._settings.retries + 1 if policy.attempts is None else policy.attempts
        stack: Backend = served.timed
        places = self._places(served, bounds)
        if places or self._settings.model_parallel:
            stack = Limited(stack, self._slots, places, models=self._settings.model_parallel)
        if bounds.meter.is_limited:
            stack = Metered(stack, bounds.meter)
        if attempts > 1:
            stack = Retrying(stack, attempts - 1, self._backoff, causes=policy.retry_on)
        if capabilities_of(stack).context_length is not None:
            stack = Fitting(stack, self._rule(policy), served.contexts, bounds.summaries)
        if policy.fallback_models:
            stack = FallingBack(stack, policy.fallback_models)
        if policy.cache_seconds > 0:
            origin = (served.backend.name, served.node, self._rule(policy).how, policy.fallback_models)
            stack = Cached(stack, self._replies(), policy.cache_seconds, origin)
        return stack

    def _rule(self, policy: CallPolicy) -> OverflowRule:
        if policy.overflow is None:
            return OverflowRule(self._settings.overflow, in_file=False)
        return OverflowRule(policy.overflow)

    def _served_by(self, name: str | None) -> _Served:
        if name is None or name == self._routed.backend.name or self._open_backend is None:
            return self._routed
        served = self._opened.get(name)
        if served is None:
            backend = self._open_backend(name)
            served = self._opened[name] = _served(backend, self._report)
        return served

    def _places(self, served: _Served, bounds: Bounds) -> Places:
        run = bounds.meter.root
        places: list[tuple[object, int]] = [((run, name), capacity) for name, capacity in bounds.limits]
        if self._settings.max_parallel is not None:
            places.append(((run, "run"), self._settings.max_parallel))
        if served.capacity is not None:
            places.append((f"node:{served.node}", served.capacity))
        return tuple(places)

    def _replies(self) -> CallCache:
        if self._cache is None:
            self._cache = CallCache(ReplyStore(self._cache_file or paths.call_cache_file(), self._report))
        return self._cache


def _served(backend: Backend, report: Reporter, node: str | None = None, capacity: int | None = None) -> _Served:
    can = capabilities_of(backend)
    asked = backend if can.goes_on_with is None else TakingUp(backend)
    return _Served(
        timed=asked if can.keeps_deadlines else Awaiting(Timed(asked), report),
        backend=backend,
        node=node or can.place or backend.name,
        capacity=can.capacity if capacity is None else capacity,
        contexts=ContextLengths(can),
    )
