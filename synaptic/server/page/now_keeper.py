"""How the gateway stands now, worked out at most once a second, however many look."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from synaptic.errors import SynapticError
from synaptic.server.page.now import now_of
from synaptic.version import __version__

if TYPE_CHECKING:
    from synaptic.server.gateway import ModelFront
    from synaptic.server.page.live_runs import LiveRuns

Json = dict[str, Any]
EVERY: Final = 1.0
"""Seconds that one look holds."""

SMOOTH: Final = 0.4
"""Weight of the latest second in the rate that is shown."""

LEAST: Final = 0.5
"""Tokens a second that are shown: less is what is left of a rate that has ended."""


class NowKeeper:
    """Looks at what serves, for all who want to know.

    Args:
        front: Whose calls and backend they are.
        live: The runs under way.
    """

    def __init__(self, front: ModelFront, live: LiveRuns) -> None:
        self._front = front
        self._live = live
        self._looking: asyncio.Task[Json] | None = None
        self._until = 0.0
        self._pieces = (0, 0.0)
        self._rate = 0.0

    def look(self) -> asyncio.Task[Json]:
        """Return the look that is under way, or the latest, if that still holds.

        It finds what :func:`now_of` does, with ``calls``, ``runs`` and ``tokens_per_second``.
        """
        if self._looking is None or (self._looking.done() and time.monotonic() >= self._until):
            self._looking = asyncio.ensure_future(self._look())
        return self._looking

    async def aclose(self) -> None:
        """End a look that is under way."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look(self) -> Json:
        found = await self._found()
        self._until = time.monotonic() + EVERY * 0.9
        return found

    async def _found(self) -> Json:
        try:
            found = await now_of(await self._front.backend())
        except SynapticError as error:
            found = {"at": time.time(), "version": __version__, "backend": None}
            found |= {"error": error.message, "hint": error.hint}
            found |= {"nodes": [], "coordinators": [], "waiting": [], "placed": [], "machines": []}
        self._live.place(found.pop("placed"))
        calls = [
            {"model": call.model, "seconds": max(0.0, found["at"] - call.began), "pieces": call.pieces}
            for call in self._front.calls.all()
        ]
        return {
            **found,
            "calls": calls,
            "runs": [live.id for live in self._live.under_way()],
            "tokens_per_second": self._tokens_per_second(),
        }

    def _tokens_per_second(self) -> float:
        pieces, now = self._front.calls.pieces + self._live.pieces, time.monotonic()
        before, then = self._pieces
        self._pieces = (pieces, now)
        if not then or now - then > 10 * EVERY:
            self._rate = 0.0  # nobody looked for a while
        else:
            self._rate += SMOOTH * ((pieces - before) / max(now - then, 0.1) - self._rate)
        return round(self._rate, 1) if self._rate >= LEAST else 0.0
