"""What a run has used until now: what its finished steps were counted with, and the pieces of those that are open."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from synaptic.messages import Usage
from synaptic.runtime import StepFinished, TokenDelta

if TYPE_CHECKING:
    from synaptic.runtime import Event


class RunUsage:
    """Adds up while a run goes on."""

    def __init__(self) -> None:
        self._counted = Usage()
        self._open: Counter[str] = Counter()

    def hear(self, event: Event) -> None:
        """Take an event of the run."""
        if isinstance(event, TokenDelta):
            self._open[event.path] += 1
        elif isinstance(event, StepFinished) and event.result.kind == "agent":
            result = event.result
            if result.cached or result.reused:
                return
            if result.usage.total_tokens:
                self._counted += result.usage
                del self._open[result.id]

    @property
    def so_far(self) -> Usage:
        """All tokens until now."""
        return self._counted + Usage(completion_tokens=self._open.total())
