"""What the coordinators of one program share: the workers, who has which of them, and whom to ask to make room."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from synaptic.backends.distributed.coordinator.notification import Change
from synaptic.backends.distributed.coordinator.types import CoordinatorState
from synaptic.backends.distributed.workers import Fleet, WorkerRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from synaptic.backends.distributed.coordinator.coordinator import Coordinator
    from synaptic.backends.distributed.coordinator.life import Transition
    from synaptic.backends.distributed.workers import Endpoint
    from synaptic.messages import Reporter
    from synaptic.settings import Settings


class House:
    """A worker serves one coordinator at a time; here it is known which.

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
        self.coordinators: dict[str, Coordinator] = {}
        self.width = 0  # calls at once, of the widest pipeline so far
        self._taken: dict[Endpoint, str] = {}
        self._on_transition = on_transition
        self._change = Change()

    def moved(self, transition: Transition) -> None:
        """Hear that a coordinator has changed its state; one that rests gives its workers back."""
        if transition.after in {CoordinatorState.SLEEPING, CoordinatorState.STOPPED, CoordinatorState.FAILED}:
            self.give_back(transition.model)
        self._on_transition(transition)
        self.changed()

    def changed(self) -> None:
        """Wake whoever waits for room."""
        self._change.tell()

    async def change(self) -> None:
        """Wait until a coordinator has changed its state, or a call has ended."""
        await self._change.wait()

    def take(self, endpoints: Iterable[Endpoint], model: str) -> None:
        """Note that a model has these workers and no others."""
        self.give_back(model)
        self._taken.update(dict.fromkeys(endpoints, model))

    def give_back(self, model: str) -> None:
        """Note that a model has no workers any more."""
        self._taken = {endpoint: owner for endpoint, owner in self._taken.items() if owner != model}

    def owner(self, endpoint: Endpoint) -> str | None:
        """Return the model that has a worker."""
        return self._taken.get(endpoint)

    def others_have_workers(self, model: str) -> bool:
        """Return whether room could be made for a model."""
        return any(owner != model for owner in self._taken.values())

    def longest_idle(self, model: str) -> Coordinator | None:
        """Return the coordinator, not that of ``model``, that has been idle for longest; a busy one never."""
        idle = [
            coordinator
            for name, coordinator in self.coordinators.items()
            if name != model and coordinator.idle and name in self._taken.values()
        ]
        return min(idle, key=lambda coordinator: coordinator.last_used, default=None)
