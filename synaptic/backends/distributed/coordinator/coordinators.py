"""What the coordinators of one program share: the workers, which coordinator has which, and which one makes room."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from synaptic.backends.distributed.coordinator.states import CoordinatorState
from synaptic.backends.distributed.workers import Fleet, WorkerRegistry
from synaptic.waiting import ChangeSignal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from synaptic.backends.distributed.coordinator.states import Transition
    from synaptic.backends.distributed.placement import WorkerName
    from synaptic.backends.distributed.workers import Endpoint
    from synaptic.messages import Reporter
    from synaptic.settings import Settings


class Preemptible(Protocol):
    """A coordinator as the others see it: one that is idle may have to give its workers to another model."""

    @property
    def model(self) -> str:
        """What it serves; its replicas serve the same."""
        ...

    @property
    def idle(self) -> bool:
        """Whether it serves no call, so that its workers may be taken."""
        ...

    @property
    def last_used(self) -> float:
        """When its last call ended, by the steady clock."""
        ...

    async def stop(self) -> None:
        """End it, and give its workers back."""
        ...


class Coordinators:
    """The coordinators of one program, and which of them has which worker: a worker serves one at a time.

    Args:
        settings: Of the program.
        report: Hears what coordinators and workers do.
        on_transition: Told of every change of a coordinator's state.
    """

    def __init__(self, settings: Settings, report: Reporter, on_transition: Callable[[Transition], None]) -> None:
        self.settings = settings
        self.report = report
        self.fleet = Fleet(settings, report)
        self.registry = WorkerRegistry()
        self.placing = asyncio.Lock()
        self.by_name: dict[str, Preemptible] = {}
        self.width = 0  # calls at once, of the widest pipeline so far
        self._taken: dict[WorkerName, str] = {}
        self._on_transition = on_transition
        self._change = ChangeSignal()

    def moved(self, transition: Transition) -> None:
        """Take note of a coordinator's new state; one that sleeps, was stopped or failed gives its workers back."""
        if transition.after in {CoordinatorState.SLEEPING, CoordinatorState.STOPPED, CoordinatorState.FAILED}:
            self.give_back(transition.model)
        self._on_transition(transition)
        self.notify()

    def notify(self) -> None:
        """Wake the coordinators that wait for workers."""
        self._change.notify()

    async def wait_change(self) -> None:
        """Wait until a coordinator has changed its state, or a call has ended."""
        await self._change.wait()

    def take(self, endpoints: Iterable[Endpoint], name: str) -> None:
        """Note that a coordinator has these workers and no others."""
        self.give_back(name)
        self._taken.update(dict.fromkeys(endpoints, name))

    def give_back(self, name: str) -> None:
        """Note that a coordinator has given its workers back."""
        self._taken = {endpoint: owner for endpoint, owner in self._taken.items() if owner != name}

    def owner(self, endpoint: WorkerName) -> str | None:
        """Return the name of the coordinator that has a worker."""
        return self._taken.get(endpoint)

    def others_have_workers(self, model: str) -> bool:
        """Return whether room could be made for a model; its replicas make none for each other."""
        return any(self.by_name[owner].model != model for owner in self._taken.values())

    def unplaced(self, name: str) -> int:
        """Return how many replicas of a model have no workers yet, that one included."""
        model = self.by_name[name].model
        placed = {owner for owner in self._taken.values() if owner != name and self.by_name[owner].model == model}
        return max(self.settings.model_replicas - len(placed), 1)

    def longest_idle(self, model: str) -> Preemptible | None:
        """Return the coordinator, not that of ``model``, that has been idle for longest; a busy one never."""
        idle = [
            coordinator
            for name, coordinator in self.by_name.items()
            if coordinator.model != model and coordinator.idle and name in self._taken.values()
        ]
        return min(idle, key=lambda coordinator: coordinator.last_used, default=None)
