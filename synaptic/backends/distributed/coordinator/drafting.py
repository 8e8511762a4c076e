"""Whether the ``llama-server`` of a model drafts: as long as that pays, and no call wants what drafts take away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from synaptic.backends.distributed.engine import knows_option
from synaptic.backends.distributed.placement import MATCH_OPTION
from synaptic.backends.drafts import COST, DraftRecord, DraftStanding, DraftTally, kind_of

if TYPE_CHECKING:
    from synaptic.backends.distributed.engine import Engine
    from synaptic.backends.distributed.placement import Placement
    from synaptic.messages import ChatRequest, Finished
    from synaptic.models import ModelShape

SETTING: Final = "the setting drafts is false"
OLD_ENGINE: Final = "the engine cannot draft"
WANTS_LOGPROBS: Final = "a call asked for log-probabilities, and llama.cpp tells none of drafted tokens"


class Drafting:
    """Decides it for each start of a model's server, and learns from its calls.

    llama.cpp takes no wish about drafts with a call, so that they are left by a start without them.

    Args:
        shape: The model.
        wanted: The setting.

    Attributes:
        on: Whether the server of now drafts.
        left: Set while the server that drafts is to be started again without.
    """

    def __init__(self, shape: ModelShape, *, wanted: bool) -> None:
        self.left = asyncio.Event()
        self._shape = shape
        self._wanted = wanted
        self._record: DraftRecord | None = None
        self.on = False
        self._why_off = "" if wanted else SETTING

    async def decide(self, engine: Engine, placement: Placement) -> bool:
        """Return whether the server that is about to be started drafts."""
        self._why_off = await self._why_not(engine, placement)
        self.on = not self._why_off
        return self.on

    def leave(self) -> None:
        """Have the server started again without drafts, once no call is in its way."""
        self.left.set()

    def forget(self) -> None:
        """Note that the model is no longer loaded: the next start is free again."""
        self.left.clear()

    def admits(self, *, plain: bool) -> bool:
        """Return whether the server that serves now can take a call.

        Args:
            plain: Whether that cannot do with drafts. It has them left; the calls after it wait, for its turn to come.
        """
        if plain and self.on:
            self.leave()
        return not (self.on and self.left.is_set())

    def take(self, request: ChatRequest, last: Finished) -> DraftTally:
        """Take note of a call, and return what came of its drafts."""
        tally = DraftTally.of(last)
        if self.on and self._record is not None:
            self._record.take(kind_of(request), tally)
        return tally

    def standing(self) -> DraftStanding:
        """Return how it stands."""
        return DraftStanding(
            on=self.on, why_off=self._why_off, by_kind=() if self._record is None else self._record.by_kind
        )

    async def save(self) -> None:
        """Keep what was learned for the next start."""
        if self._record is not None:
            await asyncio.to_thread(self._record.save)

    async def _why_not(self, engine: Engine, placement: Placement) -> str:
        if not self._wanted:
            return SETTING
        if self.left.is_set():
            return WANTS_LOGPROBS
        if not await asyncio.to_thread(knows_option, MATCH_OPTION, engine.files):
            return OLD_ENGINE
        if self._record is None:
            self._record = await asyncio.to_thread(DraftRecord, f"distributed {self._shape.name}")
        return self._record.why_not(COST if placement.draft_cost is None else placement.draft_cost)
