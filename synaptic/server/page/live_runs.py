"""The runs of this gateway, and of other programs of its user, as they go: what each is, and a feed of what changes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from synaptic.runtime import RunFinished, RunStarted
from synaptic.server.page.feed import NewsFeed
from synaptic.server.page.live_run import LiveRun

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from synaptic.runtime import Event, EventHandler, KeptRun

GATHERED: Final = 0.08
"""Seconds for which texts are gathered: faster than eyes, and few messages."""

KEPT_ENDED: Final = 12
"""Runs that have ended and are still shown among the live ones."""


class LiveRuns:
    """The runs, and who is told of them. It belongs to one event loop."""

    def __init__(self) -> None:
        self.feed = NewsFeed()
        self.tokens = 0
        self._runs: dict[str, LiveRun] = {}
        self._untold: dict[str, LiveRun] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> EventHandler:
        """Return what takes the events of one run."""
        live: LiveRun | None = None

        def hear(event: Event) -> None:
            nonlocal live
            if isinstance(event, RunStarted) and live is None:
                live = self._runs[event.run_id] = LiveRun.of(event)
                self.feed.say({"type": "run", "run": live.whole()})
            elif live is not None and live.take(event):
                self._untold[live.id] = live
                if isinstance(event, RunFinished):
                    self._tell()
                    self._forget_some()
                elif self._timer is None:
                    self._timer = asyncio.get_running_loop().call_later(GATHERED, self._tell)

        return hear

    def join(self, live: LiveRun) -> None:
        """Take in a run of another process, unless this one works on it."""
        here = self._runs.get(live.id)
        if here is None or here.elsewhere or here.document["ended"] is not None:
            self._runs[live.id] = live
            self.feed.say({"type": "run", "run": live.whole()})

    def hear(self, live: LiveRun, run: KeptRun, events: Iterable[Event]) -> None:
        """Take what a run of another process has done since, and how it stands now."""
        if self._runs.get(live.id) is not live:
            return  # this one works on it now
        told = [live.take(event) for event in events]
        live.stands(run)
        if any(told) or live.run_changed:
            self._untold[live.id] = live
            self._tell()
            if live.document["ended"] is not None:
                self._forget_some()

    def part(self, others: Iterable[LiveRun]) -> None:
        """Forget runs of other processes that nobody follows any more."""
        for live in others:
            if self._runs.get(live.id) is live and live.document["ended"] is None:
                del self._runs[live.id]
                self._untold.pop(live.id, None)
                self.feed.say({"type": "gone", "id": live.id})

    def find(self, run_id: str) -> dict[str, Any] | None:
        """Return a run, if it is one of these."""
        live = self._runs.get(run_id)
        return None if live is None else live.whole()

    def all(self) -> list[dict[str, Any]]:
        """Return the runs that are under way, and the latest that have ended; the latest begun first."""
        self._tell()  # what is told behind this is not in it
        return [live.whole() for live in reversed(self._runs.values())]

    def under_way(self) -> list[LiveRun]:
        """Return the runs that have not ended."""
        return [live for live in self._runs.values() if live.document["ended"] is None]

    @property
    def pieces(self) -> int:
        """Pieces of text that all runs have said so far."""
        return self.tokens + sum(live.tokens for live in self._runs.values())

    @property
    def others(self) -> list[LiveRun]:
        """The runs of other processes that have not ended."""
        return [live for live in self.under_way() if live.elsewhere]

    def place(self, placed: Iterable[Mapping[str, Any]]) -> None:
        """Take note of the nodes that the latest calls went to, where only one step can be meant."""
        open_steps: dict[str, list[tuple[LiveRun, dict[str, Any]]]] = {}
        for live in self.under_way():
            if live.elsewhere:
                continue
            for path, step in live.steps.items():
                if step["ended"] is None:
                    open_steps.setdefault(path, []).append((live, step))
        for call in placed:
            of_that_name = open_steps.get(call["tag"], [])
            if len(of_that_name) != 1 or call["node"] is None:
                continue
            live, step = of_that_name[0]
            if call["at"] >= step["started"] and step["node"] != call["node"]:
                step["node"] = call["node"]
                live.changed.add(step["path"])
                self._untold[live.id] = live
        if self._untold:
            self._tell()

    def _tell(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        untold, self._untold = self._untold, {}
        for live in untold.values():
            self.feed.say(live.untold())

    def _forget_some(self) -> None:
        ended = [live for live in self._runs.values() if live.document["ended"] is not None]
        for live in ended[:-KEPT_ENDED]:
            self.tokens += self._runs.pop(live.id).tokens
