"""How many calls a coordinator serves at once. They share each round trip to the workers, and each takes memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from synaptic.settings import Settings

FEWEST: Final = 4
MOST: Final = 16


def slot_count(settings: Settings, width: int = 0) -> int:
    """Return the calls at once: as set, else as many as a pipeline is wide, within bounds.

    Args:
        settings: ``distributed_parallel`` goes before everything else.
        width: Calls that the pipeline makes at once; 0 where that is not known.

    """
    return settings.distributed_parallel or max(FEWEST, min(width, MOST))
