"""A ``llama-server`` that serves a model, with what watches it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synaptic.backends.distributed.coordinator.llama_process import LlamaProcess
    from synaptic.backends.distributed.coordinator.watchdog import Watchdog
    from synaptic.backends.distributed.placement import Placement
    from synaptic.backends.distributed.workers import Endpoint


@dataclass(slots=True, eq=False)
class RunningServer:
    """A ``llama-server`` that serves.

    Attributes:
        generations: Of the workers that we started: which start of each it is connected to.
        addresses: Of all its workers, as the system shows them.
        others: Calls of other programs that were running at the last look, while there was none of ours.
    """

    process: LlamaProcess
    placement: Placement
    watchdog: Watchdog
    generations: dict[Endpoint, int]
    addresses: dict[tuple[str, int], Endpoint]
    others: int = 0
