"""Runs of other programs of the same user, read out of the record of runs while somebody looks at the page."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from synaptic.errors import JournalError
from synaptic.runtime import FollowedRun, Journal
from synaptic.server.page.kept_runs import plan_of
from synaptic.server.page.live_run import LiveRun

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synaptic.runtime import Event
    from synaptic.server.page.live_runs import LiveRuns

EVERY: Final = 0.5
"""Seconds between two looks; one at a record that has not changed reads one number."""

AMONG: Final = 2000
"""The latest runs, among which those that are not over are looked for."""

MOST: Final = 12
"""Runs that are followed at once, and as many whose process is gone while they wait: a batch costs no more."""


class OtherRuns:
    """Follows runs that other processes record, in one task for all who look.

    Args:
        live: Is told of them.
    """

    def __init__(self, live: LiveRuns) -> None:
        self._live = live
        self._watchers = 0
        self._tasks: list[asyncio.Task[None]] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look at the record during the block."""
        self._watchers += 1
        if self._watchers == 1:
            task = asyncio.ensure_future(self._follow())
            self._tasks.append(task)
            task.add_done_callback(self._tasks.remove)
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._stop()

    async def aclose(self) -> None:
        """Have nothing be read any more."""
        await asyncio.gather(*self._stop(), return_exceptions=True)

    def _stop(self) -> list[asyncio.Task[None]]:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        return tasks

    async def _follow(self) -> None:
        followed: dict[str, Followed] = {}
        try:
            with Journal(brief=False) as journal:
                while True:
                    known = {live.id for live in self._live.others}
                    followed = {one.live.id: one for one in followed.values() if one.live.id in known}
                    looking = asyncio.ensure_future(asyncio.to_thread(_look, journal, followed))
                    try:
                        news = await asyncio.shield(looking)
                    except asyncio.CancelledError:
                        await asyncio.wait({looking})  # it uses the connection
                        raise
                    for one, events in news:
                        if one.live.id not in followed:
                            followed[one.live.id] = one
                            self._live.join(one.live)
                        self._live.hear(one.live, one.place.run, events)
                    await asyncio.sleep(EVERY)
        finally:
            self._live.part(one.live for one in followed.values())


class Followed(NamedTuple):
    """A run of another process: as it is shown, and how much of it has been read."""

    live: LiveRun
    place: FollowedRun


def _look(journal: Journal, followed: dict[str, Followed]) -> list[tuple[Followed, list[Event]]]:
    """Return what is new of the runs of other processes, of new ones all; nothing of what cannot be read."""
    try:
        changed = journal.is_changed()
        begun = journal.at_work(among=AMONG) if changed else []
    except JournalError:
        return []
    found: list[tuple[Followed, list[Event]]] = []
    for one in followed.values():
        if changed or not one.place.run.at_work:  # a process that is gone writes nothing
            try:
                found.append((one, journal.news(one.place)))
            except JournalError:
                one.place.run = replace(one.place.run, status="damaged")
                found.append((one, []))
    room = {alive: MOST - sum(one.place.run.at_work is alive for one in followed.values()) for alive in (True, False)}
    for run in begun:
        if run.id in followed or run.owner.is_this or run.status == "damaged" or room[run.at_work] <= 0:
            continue
        with suppress(JournalError):
            beginning = journal.beginning(run)
            if not beginning.is_planned:
                continue  # what it will be is written once that is known
            one = Followed(LiveRun.of_another(run, beginning, plan_of(run, beginning)), FollowedRun(run))
            found.append((one, journal.news(one.place)))
            room[run.at_work] -= 1
    return found
