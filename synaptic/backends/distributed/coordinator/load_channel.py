"""How far ``llama-server`` is with its model, from the lines that it writes for a router that it believes is above it.

Started with ``LLAMA_SERVER_ROUTER_PORT`` set, it writes ``cmd_child_to_router:state:{...}`` to its standard output.
That is an internal interface of llama.cpp (``tools/server/server-models.cpp``): what cannot be read is passed over, and
nothing depends on a line but the display.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import isnan
from typing import Any, Final

from synaptic.backends.distributed.coordinator.states import LoadProgress

ROUTER_VARIABLE: Final = "LLAMA_SERVER_ROUTER_PORT"
_PREFIX: Final = "cmd_child_to_router:state:"
_TELLING: Final = 0.02
"""Below this part of a load its speed says nothing of its end."""


@dataclass(frozen=True, slots=True)
class ChannelNews:
    """What a line says.

    Attributes:
        state: ``loading``, ``ready``, or whatever else llama.cpp thinks of.
        fraction: How much is loaded, from 0 to 1; ``None`` where it does not say.
    """

    state: str
    fraction: float | None = None


def read_channel(line: str) -> ChannelNews | None:
    """Return what a line of the standard output says, ``None`` if it is no news."""
    if not line.startswith(_PREFIX):
        return None
    try:
        document = json.loads(line.removeprefix(_PREFIX))
        state = document["state"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    if not isinstance(state, str):
        return None
    return ChannelNews(state, _fraction(document.get("payload")) if state == "loading" else None)


def _fraction(payload: Any) -> float | None:
    """Return how much of all stages is done: each counts as much as any other."""
    try:
        stages, value = payload["stages"], float(payload["value"])
        done = (stages.index(payload["current"]) + value) / len(stages)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        return None
    return min(1.0, max(0.0, done)) if not isnan(done) else None


class LoadClock:
    """Turns fractions into bytes and an estimate of the end.

    Args:
        total: Bytes of the weights.
        began: When the load began, by any steady clock.
    """

    def __init__(self, total: int, began: float) -> None:
        self._total = total
        self._began = began
        self._fraction = 0.0

    def at(self, fraction: float, now: float) -> LoadProgress:
        """Return how far the load is; it never goes backwards."""
        self._fraction = max(self._fraction, fraction)
        done = self._fraction
        left = (now - self._began) * (1 - done) / done if done >= _TELLING else None
        return LoadProgress(
            fraction=done, bytes_done=int(done * self._total), bytes_total=self._total, seconds_left=left
        )
