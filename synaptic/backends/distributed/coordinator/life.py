"""The state machine of a coordinator: what it is, why, and who is told when that changes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synaptic.backends.distributed.coordinator.states import FOLLOWERS, CoordinatorState
from synaptic.waiting import ChangeSignal

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state; ``reason`` is for people."""

    model: str
    before: CoordinatorState
    after: CoordinatorState
    reason: str


class Life:
    """The state of the coordinator of one model.

    Args:
        model: What it serves.
        hear: Told of every transition, at once.
    """

    def __init__(self, model: str, hear: Callable[[Transition], None]) -> None:
        self.model = model
        self.state = CoordinatorState.STOPPED
        self.reason = ""
        self.since = time.time()
        self._hear = hear
        self._change = ChangeSignal()

    def move(self, to: CoordinatorState, reason: str = "") -> None:
        """Go on to another state.

        Raises:
            ValueError: If that may not follow; the coordinator is wrong about itself then.
        """
        if to not in FOLLOWERS[self.state]:
            raise ValueError(f"a coordinator that is {self.state} cannot become {to}")
        transition = Transition(self.model, self.state, to, reason)
        self.state, self.reason, self.since = to, reason, time.time()
        self._change.notify()
        self._hear(transition)

    async def change(self) -> None:
        """Wait for the next transition."""
        await self._change.wait()
