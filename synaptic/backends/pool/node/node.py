"""One node of a pool: its client, what is known of it, and how it fares."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synaptic.backends.ollama import InstalledModel, OllamaBackend
    from synaptic.backends.pool.node.health import Health
    from synaptic.backends.pool.node.state import NodeState
    from synaptic.errors import BackendError

KEPT_ERRORS = 20


@dataclass(frozen=True, slots=True)
class PastError:
    """A failure of a node: when (Unix time), and what."""

    at: float
    message: str


@dataclass(slots=True, eq=False)
class PoolNode:
    """One node of the pool.

    Attributes:
        url: Without secrets.
        version: Of its server, once it was asked.
        identity: What two addresses of one machine have in common, once it was asked.
        memory_at: When it last told what it has in memory, by the same clock as ``checked_at``.
        checked_at: When its facts were last read, by the clock of the event loop; 0 for never.
        installed: Its models, as it lists them.
        trouble: Why it is down, as the last probe or call said; ``None`` once it has answered.
        served: Calls that it has completed.
    """

    url: str
    client: OllamaBackend
    state: NodeState
    health: Health
    version: str | None = None
    identity: str | None = None
    checked_at: float = 0.0
    memory_at: float = 0.0
    installed: tuple[InstalledModel, ...] = ()
    trouble: BackendError | None = None
    served: int = 0
    errors: int = 0
    history: deque[PastError] = field(default_factory=lambda: deque(maxlen=KEPT_ERRORS))
