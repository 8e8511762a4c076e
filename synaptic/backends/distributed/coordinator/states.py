"""The life of a coordinator: its states, what may follow what, who is told, how far a load is, how it stands now."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from synaptic.waiting import ChangeSignal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from synaptic.backends.distributed.placement import Placement
    from synaptic.backends.distributed.workers import Endpoint
    from synaptic.backends.drafts import DraftStanding


class CoordinatorState(StrEnum):
    """How a coordinator is."""

    STOPPED = "stopped"
    PREFLIGHT = "preflight"
    LOADING = "loading"
    READY = "ready"
    SLEEPING = "sleeping"
    DEGRADED = "degraded"
    RESTARTING = "restarting"
    FAILED = "failed"


_S = CoordinatorState
FOLLOWERS: Final[dict[CoordinatorState, frozenset[CoordinatorState]]] = {
    _S.STOPPED: frozenset({_S.PREFLIGHT}),
    _S.PREFLIGHT: frozenset({_S.LOADING, _S.RESTARTING, _S.FAILED, _S.STOPPED}),
    _S.LOADING: frozenset({_S.READY, _S.RESTARTING, _S.FAILED, _S.STOPPED}),
    _S.READY: frozenset({_S.SLEEPING, _S.RESTARTING, _S.DEGRADED, _S.FAILED, _S.STOPPED}),
    _S.SLEEPING: frozenset({_S.PREFLIGHT, _S.STOPPED}),
    _S.DEGRADED: frozenset({_S.RESTARTING, _S.FAILED, _S.STOPPED}),
    _S.RESTARTING: frozenset({_S.PREFLIGHT, _S.FAILED, _S.STOPPED}),
    _S.FAILED: frozenset({_S.PREFLIGHT, _S.STOPPED}),
}
"""What may come after each state."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadProgress:
    """How far a load is.

    Attributes:
        fraction: From 0 to 1.
        bytes_done: Of the weights.
        bytes_total: All weights.
        seconds_left: Estimated; ``None`` while that cannot be told.
    """

    fraction: float
    bytes_done: int
    bytes_total: int
    seconds_left: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStanding:
    """One worker of a coordinator.

    Attributes:
        alive: Whether it runs, as far as can be told without contacting it; ``None`` where it cannot.
        resident_bytes: Memory of a managed worker's process; ``None`` for others.
        log_file: What a managed worker says.
    """

    endpoint: Endpoint
    managed: bool
    alive: bool | None
    pid: int | None = None
    resident_bytes: int | None = None
    restarts: int = 0
    log_file: Path | None = None


def called(model: str, replica: int) -> str:
    """Return a model's name, with the replica where that is not the first."""
    return model if replica == 1 else f"{model} (replica {replica})"


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorStatus:
    """How a coordinator stands.

    Attributes:
        since: When it came into its state, in seconds since the epoch.
        reason: Why it is in that state, "" where that needs no words.
        url: Where its ``llama-server`` listens, while it does.
        placement: Which layers are where; ``None`` before the first preflight.
        waiting: How many wait for it.
        replica: Which of the model's coordinators it is, from 1 on.
        restarts: How often it was rebuilt.
        tokens_per_second: Measured over the latest calls, one stream; ``None`` before the first.
        log_file: What ``llama-server`` says.
        drafts: Whether it drafts, and what came of that; ``None`` before the first start.
    """

    model: str
    state: CoordinatorState
    since: float
    reason: str = ""
    url: str | None = None
    pid: int | None = None
    placement: Placement | None = None
    progress: LoadProgress | None = None
    workers: tuple[WorkerStanding, ...] = ()
    calls: int = 0
    waiting: int = 0
    restarts: int = 0
    tokens_per_second: float | None = None
    log_file: Path | None = None
    drafts: DraftStanding | None = None
    replica: int = 1

    def called(self, model: str) -> str:
        """Return its name, where the model is called ``model``."""
        return called(model, self.replica)
