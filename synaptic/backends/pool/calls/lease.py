"""A place on a node, held by one call; it is given back exactly once, whatever happens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from synaptic.backends.pool.node import NodeState
    from synaptic.backends.pool.policy import Pick


@dataclass(slots=True, eq=False)
class Lease:
    """One claimed place.

    Attributes:
        model: What it was claimed for.
        end: When the call is expected to end, by the clock of the event loop.
        cold: Whether the model was expected to be loaded first.
        pick: Why this node.

    """

    node: NodeState
    model: str
    end: float
    cold: bool
    pick: Pick
    returned: Callable[[Lease], None]
    held: bool = True

    def release(self) -> None:
        """Give the place back; a second time does nothing."""
        if self.held:
            self.held = False
            self.node.release(self.model, self.end)
            self.returned(self)
