"""Looking after the nodes, off the calls' way: probes of those that are down, facts of those that are up.

One background task decides what is due; each node is asked in a task of its own, so that one that does not answer keeps
nobody waiting.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synaptic.backends.ollama_api import NAME
from synaptic.backends.pool.facts import read_facts, read_shown, update
from synaptic.backends.pool.failures import judge
from synaptic.backends.pool.identity import endpoints, own_addresses, twins
from synaptic.backends.pool.placement import Placement
from synaptic.errors import BackendError
from synaptic.messages import BackendNotice

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from typing import Any

    from synaptic.backends.pool.member import Member
    from synaptic.messages import Reporter

CHECK_SECONDS = 2.0
LATE_SECONDS = 0.5
LISTING_EVERY = 60.0
BUSY_LISTING_EVERY = 10.0
IN_USE_SECONDS = 300.0
"""A pool that nobody has used for so long leaves its nodes alone, but for those that are down."""

SOON = 0.05
LONGEST_SLEEP = 3600.0


@dataclass(slots=True, eq=False)
class _Record:
    """What the watch remembers of a node beside what everybody sees."""

    digests: dict[str, str]
    down_since: float | None = None
    listing_due: bool = False
    check: asyncio.Task[None] | None = None
    probe: asyncio.Task[bool] | None = None


class Watch:
    """Watches the nodes of one pool.

    Args:
        members: The nodes; the one mapping that the pool uses, too.
        changed: Called after anything about a node that waiting calls may care for.
        gone: Called with a node that does not answer any more, and why.
        merged: Called with a node that is another one's twin, and that one.
        report: Hears when nodes go down, come back, or are twins, and where models landed.

    """

    def __init__(
        self,
        members: Mapping[int, Member],
        *,
        changed: Callable[[Member], None],
        gone: Callable[[Member, str], None],
        merged: Callable[[Member, Member], None],
        report: Reporter,
    ) -> None:
        self._members = members
        self._changed = changed
        self._gone = gone
        self._merged = merged
        self._report = report
        self._records = {key: _Record({}) for key in members}
        self._placement = Placement(self._say)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._used_at = float("-inf")

    async def start(self) -> None:
        """Ask every node what it has, for a few seconds at most, and watch them from then on."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._find_twins())
            for member in list(self._members.values()):
                group.create_task(self._first_look(member))
        self._used_at = self._now()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        """Ask nobody any more."""
        tasks = [*self._tasks, *([self._task] if self._task else [])]
        self._task = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def doubted(self, member: Member) -> None:
        """Take note that a call has failed at a node: its health has changed, or what was known of it is wrong."""
        self._used_at = self._now()
        self._announce(member)
        self._records[member.state.key].listing_due = True
        self._wake.set()

    def loaded(self, member: Member, model: str, *, num_ctx: int | None, cold: bool) -> None:
        """Take note that a call has found, or had, a model loaded; where it landed is looked at."""
        self._used_at = self._now()
        if cold:
            self._placement.expect(member, model, num_ctx)
        self._records[member.state.key].listing_due = True
        self._wake.set()

    def used(self) -> None:
        """Take note that the pool is in use."""
        now = self._now()
        if now - self._used_at > IN_USE_SECONDS:
            self._wake.set()
        self._used_at = now

    async def suspect(self, member: Member) -> bool:
        """Return whether a node answers; one that does not is down from now on."""
        record = self._records[member.state.key]
        if record.probe is None or record.probe.done():
            record.probe = self._spawn(self._probe(member))
        return await asyncio.shield(record.probe)

    async def _first_look(self, member: Member) -> None:
        if await self._probe(member):
            await self._look(member)

    async def _find_twins(self) -> None:
        """Tell the pool which nodes are one server."""
        members = dict(self._members)
        if len(members) < 2:  # noqa: PLR2004 - a twin needs another one
            return
        own = own_addresses()
        found = await asyncio.gather(*(endpoints(member.client.url, own) for member in members.values()))
        for key, first in twins(dict(zip(members, found, strict=True))).items():
            member, kept = members[key], members[first]
            self._say(f"{member.url} and {kept.url} are one server: it is used once, as {kept.state.name}")
            self._merged(member, kept)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            now = self._now()
            again = now + LONGEST_SLEEP
            for key, member in list(self._members.items()):
                again = min(again, self._attend(member, self._records[key], now))
            try:
                async with asyncio.timeout(max(SOON, again - now)):
                    await self._wake.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(SOON)  # what happens together is attended to together

    def _attend(self, member: Member, record: _Record, now: float) -> float:
        """Do what is due for one node; return when to come back."""
        before = (member.state.cap, member.state.trust)
        member.health.apply(member.state, now)
        if (member.state.cap, member.state.trust) != before:
            self._changed(member)
        self._announce(member)
        change = member.health.next_change(now)
        again = now + LONGEST_SLEEP if change is None else change
        if record.check is not None and not record.check.done():
            return min(again, now + CHECK_SECONDS)
        probe = member.health.next_probe(now)
        if probe is not None:
            if probe > now:
                return min(again, probe)
            record.check = self._spawn(self._come_back(member))
            return min(again, now + CHECK_SECONDS)
        due = self._listing_due(member, record, now)
        if due <= now:
            record.listing_due = False
            record.check = self._spawn(self._look(member))
            return min(again, now + CHECK_SECONDS)
        return min(again, due)

    def _listing_due(self, member: Member, record: _Record, now: float) -> float:
        if record.listing_due:
            return now
        if now - self._used_at > IN_USE_SECONDS:
            return now + LONGEST_SLEEP
        return member.checked_at + (BUSY_LISTING_EVERY if member.state.in_flight else LISTING_EVERY)

    async def _come_back(self, member: Member) -> None:
        if await self._probe(member):
            await self._look(member)

    async def _probe(self, member: Member) -> bool:
        """Ask a node for its version, and take note of whether it answers."""
        try:
            member.version = await self._version(member)
        except BackendError as exc:
            if judge(exc).blame == "call":
                return self._answered(member)  # a server that knows no versions lives all the same
            changed = member.health.silent(self._now(), exc.message)
            member.health.apply(member.state, self._now())
            self._announce(member)
            if changed:
                self._gone(member, exc.message)
                self._changed(member)
            return False
        return self._answered(member)

    def _answered(self, member: Member) -> bool:
        member.version = member.version or ""
        if member.health.answered(self._now()):
            self._changed(member)
        return True

    async def _version(self, member: Member) -> str:
        """Return the version; where our own loop was held up, the answer may lie there unread: ask once more."""
        began = self._now()
        try:
            return await member.client.version(CHECK_SECONDS)
        except BackendError:
            if self._now() - began < CHECK_SECONDS + LATE_SECONDS:
                raise
        return await member.client.version(CHECK_SECONDS)

    async def _look(self, member: Member) -> None:
        """Read what a node has, and put it into what is known; its health is told by probes and calls alone."""
        record = self._records[member.state.key]
        try:
            tags, ps = await member.client.listings()
        except BackendError:
            member.checked_at = self._now()
            return
        now = self._now()
        facts = read_facts(tags, ps)
        member.installed, member.checked_at = facts.installed, now
        update(member.state, facts, now)
        await self._show_new(member, record, dict(facts.digests))
        self._changed(member)
        if facts.loaded is not None:
            await self._placement.verify(member, facts.loaded)
            self._changed(member)

    async def _show_new(self, member: Member, record: _Record, digests: dict[str, str]) -> None:
        """Ask for the details of models that are new, or not what they were."""
        for name, model in list(member.state.models.items()):
            digest = digests.get(name, "")
            if record.digests.get(name) == digest:
                continue
            try:
                read_shown(model, await member.client.show(name))
            except BackendError:
                return  # asked again with the next listing
            record.digests[name] = digest

    def _announce(self, member: Member) -> None:
        """Tell people of a node that went down or came back, once."""
        record = self._records[member.state.key]
        now = self._now()
        condition = member.health.condition(now)
        if condition == "down" and record.down_since is None:
            record.down_since = now
            self._say(f"node {member.state.name} is down: {member.health.reason}", warning=True)
        elif condition in {"up", "warming"} and record.down_since is not None:
            self._say(f"node {member.state.name} is back after {now - record.down_since:.0f} s")
            record.down_since = None

    def _say(self, message: str, *, warning: bool = False) -> None:
        self._report(BackendNotice(NAME, message, "warning" if warning else "info"))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
