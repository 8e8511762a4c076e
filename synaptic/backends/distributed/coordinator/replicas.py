"""The replicas of one model: coordinators over workers of their own; a call goes to the one with the fewest calls."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from synaptic.backends.distributed.coordinator.coordinator import Coordinator
from synaptic.backends.distributed.coordinator.states import CoordinatorState
from synaptic.errors import SynapticError
from synaptic.waiting import Rules

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Iterator, Sequence

    from synaptic.backends.distributed.coordinator.coordinators import Coordinators
    from synaptic.messages import ChatRequest, ReplyChunk
    from synaptic.models import ModelShape
    from synaptic.waiting import Deadline, Deadlines

_S = CoordinatorState
_NEAREST: Final = (
    *(_S.READY, _S.LOADING, _S.SLEEPING, _S.PREFLIGHT, _S.STOPPED),
    *(_S.RESTARTING, _S.DEGRADED, _S.FAILED),
)
"""The states, by how soon a call can be expected to be served. What has lost a worker waits for it in preflight."""
_DOWN: Final = frozenset({_S.SLEEPING, _S.STOPPED, _S.FAILED})


def least_loaded(standings: Sequence[tuple[CoordinatorState, int]]) -> int:
    """Return which of the replicas gets the next call, by their states and calls in flight; of equals, the first."""
    return min(range(len(standings)), key=lambda one: (_NEAREST.index(standings[one][0]), standings[one][1], one))


class Replicas:
    """The coordinators of one model.

    The first is brought up when the model is first asked; a further one when all that serve have a call, or by
    :meth:`begin_others`.

    Attributes:
        all: At least one, whether they run or not.
    """

    def __init__(self, shape: ModelShape, coordinators: Coordinators) -> None:
        self._coordinators = coordinators
        count = coordinators.settings.model_replicas
        self.all = tuple(Coordinator(shape, coordinators, number) for number in range(1, count + 1))
        self._places: dict[ReplicaCall, Coordinator] = {}

    async def load(self) -> Coordinator:
        """Return one that serves, once there is one.

        Raises:
            SynapticError: Why none comes up.
        """
        with self.call() as call:
            await call.ready()
            return call.at

    def begin_others(self) -> None:
        """Bring up all that were never loaded, or gave way, without waiting; what keeps one from it is reported."""
        for one in self.all:
            if one.state is _S.STOPPED or (one.state is _S.FAILED and _may_try(one)):
                one.begin()

    async def stop(self) -> None:
        """End them all."""
        await asyncio.gather(*(one.stop() for one in self.all))

    @contextmanager
    def call(self) -> Iterator[ReplicaCall]:
        """Give what serves one call; it counts for the replica that serves it until the end of the block."""
        call = ReplicaCall(self)
        try:
            yield call
        finally:
            self.leave(call)

    def leave(self, call: ReplicaCall) -> None:
        """Note that a call is at no replica."""
        if self._places.pop(call, None) is not None:
            self._coordinators.notify()

    async def enter(self, call: ReplicaCall, failed: Collection[Coordinator]) -> Coordinator | None:
        """Choose a replica for a call, once one has room; ``None`` if after a failure there is no other that runs."""
        self.leave(call)
        while True:
            self._begin_another()
            those = [one for one in self.all if not failed or (one not in failed and one.state not in _DOWN)]
            if not those:
                return None
            chosen = those[least_loaded([(one.state, self._calls(one)) for one in those])]
            if len(self.all) == 1 or not self._full(chosen):
                self._places[call] = chosen
                return chosen
            await self._coordinators.wait_change()

    async def ready(self, chosen: Coordinator, *, plain: bool) -> Any:
        """Return what serves once the chosen one does; ``None`` if another has room before it does.

        Raises:
            SynapticError: Why the chosen one does not come up.
        """
        if chosen.serves or len(self.all) == 1:
            return await chosen.ready(plain=plain)
        trying = asyncio.create_task(chosen.ready(plain=plain))
        other = asyncio.create_task(self._other_serves(chosen))
        try:
            await asyncio.wait((trying, other), return_when=asyncio.FIRST_COMPLETED)
            return trying.result() if trying.done() else None
        finally:
            for task in (trying, other):
                task.cancel()
            await asyncio.gather(trying, other, return_exceptions=True)

    async def _other_serves(self, chosen: Coordinator) -> None:
        while not any(one.serves and not self._full(one) for one in self.all if one is not chosen):
            await self._coordinators.wait_change()

    def _begin_another(self) -> None:
        """Bring up one more where all that serve have a call; none while one is on its way."""
        serving = [one for one in self.all if one.serves]
        if not serving or not all(self._calls(one) for one in serving):
            return
        others = [one for one in self.all if not one.serves]
        if any(one.state not in _DOWN for one in others):
            return
        for one in others:
            if one.state is not _S.FAILED or _may_try(one):
                one.begin()
                return

    def _calls(self, coordinator: Coordinator) -> int:
        return sum(place is coordinator for place in self._places.values())

    def _full(self, coordinator: Coordinator) -> bool:
        return coordinator.serves and self._calls(coordinator) >= coordinator.slots


def _may_try(failed: Coordinator) -> bool:
    return time.time() - failed.since > Rules.REPLICA.longest


class ReplicaCall:
    """One call's view of the replicas. Where the one that serves it is lost, another goes on.

    Attributes:
        at: The one that serves it now, or is to.
    """

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self.at = replicas.all[0]

    @property
    def model(self) -> str:
        """What they serve."""
        return self.at.model

    @property
    def token_seconds(self) -> float:
        """What generating a token takes, about."""
        return self.at.token_seconds

    @property
    def waits(self) -> Deadlines[Deadline]:
        """The deadlines of the calls of the one that serves."""
        return self.at.waits

    async def ready(self, *, plain: bool = False) -> Any:
        """Return what serves, once one does.

        Raises:
            SynapticError: Why the first that was tried does not, if no other runs.
        """
        failed: dict[Coordinator, SynapticError] = {}
        while (chosen := await self._replicas.enter(self, failed)) is not None:
            self.at = chosen
            try:
                serving = await self._replicas.ready(chosen, plain=plain)
            except SynapticError as error:
                failed[chosen] = error
            else:
                if serving is not None:
                    return serving
        raise next(iter(failed.values()))

    def stream(self, serving: Any, request: ChatRequest) -> AsyncGenerator[ReplyChunk, None]:
        """Yield the reply of what serves."""
        return self.at.stream(serving, request)

    async def goes_on_with(self, serving: Any, request: ChatRequest) -> bool:
        """Return whether what serves goes on with the last message of a request, which is the assistant's."""
        return await self.at.goes_on_with(serving, request)

    async def count_tokens(self, serving: Any, text: str) -> int:
        """Return how many tokens of what serves a text is."""
        return await self.at.count_tokens(serving, text)

    async def lost(self, serving: Any) -> str | None:
        """Return why a broken call is to be continued, ``None`` if what served it still does."""
        return await self.at.lost(serving)
