"""Looking after the nodes, off the calls' way: probes of those that are down, facts of those that are up.

One background task decides what is due; each node is asked in a task of its own, so that one that does not answer does
not delay the others. A node gets calls only once its models are known: before, a call for one of them would be refused
for good.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from synaptic.backends.ollama import NAME
from synaptic.backends.pool.node.facts import read_facts, read_shown, update, update_memory
from synaptic.backends.pool.node.failures import judge
from synaptic.backends.pool.node.identity import once_notice, one_server_twice
from synaptic.backends.pool.node.reload import Reloads
from synaptic.errors import BackendError, RequestRejected, Trouble
from synaptic.messages import BackendNotice
from synaptic.text import without_subject
from synaptic.waiting import Rules

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from typing import Any

    from synaptic.backends.pool.node.facts import NodeFacts
    from synaptic.backends.pool.node.node import PoolNode
    from synaptic.backends.pool.node.reload import Remedy
    from synaptic.backends.pool.node.state import ModelState
    from synaptic.messages import Reporter

CHECK_SECONDS = 2.0
LATE_SECONDS = 0.5
LISTING_EVERY = 60.0
BUSY_LISTING_EVERY = 10.0
REFRESH_EVERY = 2.0
LATECOMERS_SECONDS, LATECOMERS_FACTOR = 0.5, 5.0
"""How long a pool that starts waits for the rest of its nodes once one has answered: this long, or this many times as
long as that one took."""

MEMORY_HOLDS_SECONDS = 1.0
"""How long what a node had in memory is taken for what it has: other programs load models, too."""

SHOW_SECONDS = 2.0
SHOWN_AT_ONCE = 8
IN_USE_SECONDS = 300.0
"""A pool without a call for so long asks only the nodes that are down."""

SOON = 0.05
LONGEST_SLEEP = 3600.0


@dataclass(slots=True, eq=False)
class _Record:
    """What the watch alone remembers of a node."""

    digests: dict[str, str] = field(default_factory=dict)
    down_since: float | None = None
    listing_due: bool = False
    missed_at: float | None = None
    check: asyncio.Task[None] | None = None
    look: asyncio.Task[None] | None = None
    probe: asyncio.Task[bool] | None = None
    memory: asyncio.Task[None] | None = None
    remedy: asyncio.Task[None] | None = None


class Watch:
    """Watches the nodes of one pool.

    Args:
        members: The nodes; the one mapping that the pool uses, too.
        changed: Called after anything about a node that waiting calls may care for.
        gone: Called with a node that has stopped answering, and why.
        merged: Called with a node that is another one's twin, and that one.
        report: Hears when nodes go down, come back, or are twins, and where models landed.
    """

    def __init__(
        self,
        members: Mapping[int, PoolNode],
        *,
        changed: Callable[[PoolNode], None],
        gone: Callable[[PoolNode, str], None],
        merged: Callable[[PoolNode, PoolNode], None],
        report: Reporter,
    ) -> None:
        self._members = members
        self._changed = changed
        self._gone = gone
        self._merged = merged
        self._report = report
        self._records = {key: _Record() for key in members}
        self._reloads = Reloads(self._say)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._used_at = float("-inf")
        self._refreshed: tuple[float, asyncio.Task[Any] | None] = (float("-inf"), None)
        self._closed = False

    async def start(self) -> None:
        """Ask every node what it has, for a few seconds at most, and watch them from then on.

        Nodes that take longer than others get no calls until they have answered.
        """
        began = self._now()
        looks = []
        for key, member in list(self._members.items()):
            member.health.apply(member.state, began)
            look = self._records[key].check = self._spawn(self._come_back(member))
            looks.append(look)
        await self._find_twins()
        await self._first_answers(looks, began)
        self._used_at = self._now()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        """Stop the probes, and report nothing: calls that fail now fail because the pool is closed."""
        self._closed = True
        tasks = [*self._tasks, *([self._task] if self._task else [])]
        self._task = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def doubted(self, member: PoolNode) -> None:
        """Take note that a call has failed at a node: its health has changed, or what was known of it is wrong."""
        self._used_at = self._now()
        self._announce(member)
        self._records[member.state.key].listing_due = True
        self._wake.set()

    def paused(self) -> None:
        """Take note that a node gets no calls for a moment: it is to be opened again in time."""
        self._wake.set()

    def loaded(self, member: PoolNode, model: str, *, num_ctx: int | None, cold: bool) -> None:
        """Take note that a call has found, or had, a model loaded; where it landed is looked at."""
        self._used_at = self._now()
        member.memory_at = 0.0
        if cold:
            self._reloads.expect(member, model, num_ctx)
        self._records[member.state.key].listing_due = True
        self._wake.set()

    def used(self) -> None:
        """Take note that the pool is in use."""
        now = self._now()
        if now - self._used_at > IN_USE_SECONDS:
            self._wake.set()
        self._used_at = now

    async def suspect(self, member: PoolNode) -> bool:
        """Return whether a node answers; one that does not is down from now on."""
        if self._closed:
            return True
        record = self._records[member.state.key]
        if record.probe is None or record.probe.done():
            record.probe = self._spawn(self._probe(member))
        return await asyncio.shield(record.probe)

    def knows_memory(self, member: PoolNode, model: ModelState) -> bool:
        """Return whether a node has told just now what it has in memory, or calls of the model show it.

        One that has ended just now, while others go on, shows it to the one that waited for its place.
        """
        others = member.state.busy_models.get(model.name, 0) > 1
        known_at = max(member.memory_at, model.seen_at) if others else member.memory_at
        return self._now() - known_at < MEMORY_HOLDS_SECONDS

    async def look_at_memory(self, member: PoolNode) -> None:
        """Ask a node what it has in memory, for a second at most; those who ask at the same time share the answer."""
        record = self._records[member.state.key]
        if not _runs(record.memory):
            record.memory = self._spawn(self._look_at_memory(member))
        if record.memory is not None:
            await asyncio.wait({record.memory})

    async def _look_at_memory(self, member: PoolNode) -> None:
        began = self._now()
        try:
            ps = await member.client.in_memory()
        except BackendError:
            return  # the call itself says what is wrong
        finally:
            member.memory_at = self._now()
        update_memory(member.state, ps, self._now(), began)
        self._changed(member)

    async def refresh(self) -> bool:
        """Ask the nodes that are up what they have; return whether they were asked just now.

        For a call whose model is not known on any node: a user may have pulled it a moment ago. Calls that come
        meanwhile share the answer, and for a while after it the nodes are not asked again.
        """
        at, refreshing = self._refreshed
        if refreshing is None or refreshing.done():
            if self._closed or self._now() - at < REFRESH_EVERY:
                return False
            refreshing = self._spawn(self._look_everywhere())
            self._refreshed = self._now(), refreshing
        await asyncio.shield(refreshing)
        return True

    async def models_changed(self, member: PoolNode) -> None:
        """Ask a node what it has: its models were changed just now."""
        self._used_at = self._now()
        await asyncio.wait({self._spawn(self._look(member))})

    async def _look_everywhere(self) -> None:
        self.used()
        now = self._now()
        members = [member for member in self._members.values() if member.health.next_probe(now) is None]
        looks = [self._spawn(self._look(member)) for member in members]
        if looks:
            await asyncio.wait(looks, timeout=CHECK_SECONDS)

    async def _first_answers(self, looks: list[asyncio.Task[None]], began: float) -> None:
        """Wait for all nodes; once one has answered, only for those that are about as fast."""
        pending = set(looks)
        while pending:
            if any(member.checked_at for member in self._members.values()):
                in_time = max(LATECOMERS_SECONDS, LATECOMERS_FACTOR * (self._now() - began))
                await asyncio.wait(pending, timeout=in_time)
                return
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)

    async def _find_twins(self) -> None:
        """Tell the pool which nodes are one server."""
        members = list(self._members.items())
        for index, first in (await one_server_twice([member.client.url for _, member in members])).items():
            (key, member), (_, kept) = members[index], members[first]
            if (look := self._records[key].check) is not None:
                look.cancel()
            self._say(once_notice(member.url, kept.url, kept.state.name))
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

    def _attend(self, member: PoolNode, record: _Record, now: float) -> float:
        """Do what is due for one node; return when to come back."""
        before = (member.state.cap, member.state.trust)
        member.health.apply(member.state, now)
        if (member.state.cap, member.state.trust) != before:
            self._changed(member)
        self._announce(member)
        change = member.health.next_change(now)
        again = now + LONGEST_SLEEP if change is None else change
        if _runs(record.check):
            return min(again, now + CHECK_SECONDS)
        probe = member.health.next_probe(now)
        if probe is not None:
            if record.look is not None:
                record.look.cancel()  # it may hang for longer than the node is down
            if probe > now:
                return min(again, probe)
            record.check = self._spawn(self._come_back(member))
            return min(again, now + CHECK_SECONDS)
        if _runs(record.remedy):
            return again  # what it lists meanwhile means nothing
        if _runs(record.look):
            return min(again, now + CHECK_SECONDS)
        due = self._listing_due(member, record, now)
        if due <= now:
            record.listing_due = False
            record.look = self._spawn(self._look(member))
            return min(again, now + CHECK_SECONDS)
        return min(again, due)

    def _listing_due(self, member: PoolNode, record: _Record, now: float) -> float:
        if now - self._used_at > IN_USE_SECONDS:
            return now + LONGEST_SLEEP
        if record.missed_at is not None:
            return record.missed_at + Rules.LISTING.longest
        if record.listing_due:
            return now
        return member.checked_at + (BUSY_LISTING_EVERY if member.state.in_flight else LISTING_EVERY)

    async def _come_back(self, member: PoolNode) -> None:
        """Ask a node that gets no calls whether it lives; it gets some again once its models are known."""
        if not await self._answers(member):
            return
        facts = await self._listed(member)
        if member.checked_at and member.health.answered(self._now()):
            self._changed(member)
        if facts is not None:
            await self._details(member, facts)

    async def _probe(self, member: PoolNode) -> bool:
        """Ask a node whether it lives, and take note of whether it answers."""
        if not await self._answers(member):
            return False
        if member.checked_at and member.health.answered(self._now()):
            self._changed(member)
        return True

    async def _answers(self, member: PoolNode) -> bool:
        """Ask a node for its version; one that does not tell is down."""
        try:
            member.version = await self._version(member)
        except BackendError as exc:
            knows_no_versions = isinstance(exc, RequestRejected) and exc.trouble is Trouble.NO_API
            if judge(exc).blame != "call" and not knows_no_versions:
                self._lost(member, exc)
                return False
            # It lives all the same; whether it is an Ollama, its listing tells.
        return True

    def _lost(self, member: PoolNode, error: BackendError) -> None:
        now, why = self._now(), error.message
        member.trouble = error
        changed = member.health.silent(now, why)
        member.health.apply(member.state, now)
        self._announce(member)
        if changed:
            self._gone(member, why)
            self._changed(member)
        self._wake.set()  # it is to be probed

    async def _version(self, member: PoolNode) -> str:
        """Return the version; where our own loop was held up, the answer may lie there unread: ask once more."""
        began = self._now()
        try:
            return await member.client.version(CHECK_SECONDS)
        except BackendError:
            if self._now() - began < CHECK_SECONDS + LATE_SECONDS:
                raise
        return await member.client.version(CHECK_SECONDS)

    async def _look(self, member: PoolNode) -> None:
        """Read what a node has; its health is told by probes and calls alone."""
        facts = await self._listed(member)
        if facts is not None:
            self._changed(member)
            await self._details(member, facts)

    async def _listed(self, member: PoolNode) -> NodeFacts | None:
        """Put what a node lists into what is known of it; ``None`` if it did not tell."""
        record = self._records[member.state.key]
        try:
            tags, ps = await member.client.listings()
        except BackendError as exc:
            record.missed_at = self._now()
            if not member.checked_at:
                self._lost(member, exc)
            return None
        now = self._now()
        facts = read_facts(tags, ps)
        member.installed, member.checked_at, record.missed_at = facts.installed, now, None
        member.memory_at = now
        member.trouble, member.version = None, member.version or ""
        update(member.state, facts, now)
        return facts

    async def _details(self, member: PoolNode, facts: NodeFacts) -> None:
        """Look into what is new: models, and where they were loaded."""
        record = self._records[member.state.key]
        if await self._show_new(member, record, facts.digests):
            self._changed(member)
        if facts.loaded is None:
            return
        remedies = self._reloads.verify(member, facts.loaded)
        self._changed(member)
        if remedies:
            record.remedy = self._spawn(self._help(member, remedies))

    async def _help(self, member: PoolNode, remedies: list[Remedy]) -> None:
        for remedy in remedies:
            self._changed(member)
            await self._reloads.apply(member, remedy)
        self._changed(member)
        self._records[member.state.key].listing_due = True
        self._wake.set()

    async def _show_new(self, member: PoolNode, record: _Record, digests: Mapping[str, str]) -> bool:
        """Ask for the details of models that are new, or not what they were; return whether any came."""
        new = [
            model
            for name, model in member.state.models.items()
            if name not in record.digests or record.digests[name] != digests.get(name, "")
        ]
        if not new:
            return False
        left = iter(sorted(new, key=lambda model: not model.resident))

        async def show() -> None:
            for model in left:
                try:
                    shown = await member.client.show(model.shown)
                except BackendError:
                    continue  # asked again with the next listing
                read_shown(model, shown)
                record.digests[model.name] = digests.get(model.name, "")

        asked = [self._spawn(show()) for _ in range(min(SHOWN_AT_ONCE, len(new)))]
        done, late = await asyncio.wait(asked, timeout=SHOW_SECONDS)
        for task in late:
            task.add_done_callback(lambda _: self._changed(member))
        return bool(done)

    def _announce(self, member: PoolNode) -> None:
        """Tell people of a node that went down or came back, once."""
        record = self._records[member.state.key]
        now = self._now()
        condition = member.health.condition(now)
        if condition == "down" and record.down_since is None:
            record.down_since = now
            why = without_subject(member.health.reason, member.url)
            self._say(f"node {member.state.name} is down: {why}", warning=True)
        elif condition in {"up", "warming"} and record.down_since is not None:
            self._say(f"node {member.state.name} is back after {now - record.down_since:.0f} s")
            record.down_since = None

    def _say(self, message: str, *, warning: bool = False) -> None:
        if not self._closed:
            self._report(BackendNotice(NAME, message, "warning" if warning else "info"))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _runs(task: asyncio.Task[Any] | None) -> bool:
    return task is not None and not task.done()
