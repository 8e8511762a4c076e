"""Late binding: calls wait in one queue and are bound to a node when it can take them, not before.

A pass over the queue happens one turn of the loop after something has changed, so that all that comes in one turn is
decided together. A call whose best node is busy stays in the queue; the place that it waits for counts as taken for
those behind it. That is list scheduling by earliest completion on unequal machines (HEFT's second phase; Topcuoglu,
Hariri, Wu, 2002), repeated at every change instead of planned once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synaptic.backends.ollama import NAME
from synaptic.backends.pool.calls import Lease, Waiter
from synaptic.backends.pool.learned import Rates, median_rates
from synaptic.backends.pool.node import WaitingCall
from synaptic.backends.pool.policy import Pick, Reservations, Why, pick
from synaptic.backends.pool.shared_counts import SharedCounts
from synaptic.errors import BackendError, BackendUnavailable, ModelNotFound, PoolSaturated
from synaptic.models import pull_hint
from synaptic.waiting import PriorityQueue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.backends.pool.index import Shortlist
    from synaptic.backends.pool.node import CallShape, NodeState

LOOK_AHEAD = 64
"""Calls of one model that one pass looks at: enough to fill a slow node that the first ones had better not take."""

RECONSIDER_SECONDS = 0.25
"""How often a pass is made while calls wait for a busy node although another is idle: the wait may take longer than
expected."""

KEPT_DECISIONS = 200
PEER_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on waiting.

    Attributes:
        queue: Calls that may wait for one model.
        wait: Seconds that a call waits for a free place; ``None`` is for ever.
        recovery: Seconds that a call waits while every node that could serve it is down.
    """

    queue: int = 10_000
    wait: float | None = 600.0
    recovery: float = 30.0


@dataclass(frozen=True, slots=True)
class PastPick:
    """A decision as it was made; put into words on demand."""

    tag: str
    model: str
    attempt: int
    waited: float
    at: float
    pick: Pick


class Dispatcher:
    """Binds waiting calls to nodes.

    Args:
        nodes: All of them; the list may grow and shrink.
        limits: Bounds on waiting.
        shortlist: Of a large pool, who is worth looking at; ``None`` looks at all.
        others: Tells other programs of the calls here, and knows of theirs.
        rng: Chooses among equals.
    """

    def __init__(
        self,
        nodes: Sequence[NodeState],
        limits: Limits,
        *,
        shortlist: Shortlist | None = None,
        others: SharedCounts | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.nodes = nodes
        self.waiting: PriorityQueue[Waiter] = PriorityQueue()
        self.decisions: deque[PastPick] = deque(maxlen=KEPT_DECISIONS)
        self._limits = limits
        self._shortlist = shortlist
        self._others = others or SharedCounts()
        self._rng = rng or random.Random()  # a choice among equals
        self._peers: dict[str, tuple[float, Rates]] = {}
        self._stranded_since: dict[str, float] = {}
        self._nothing_reserved = Reservations()
        self._pass_is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def in_flight(self) -> int:
        """Calls that the nodes have now."""
        return sum(node.in_flight for node in self.nodes)

    async def acquire(self, waiter: Waiter) -> Lease:
        """Wait for a place on the node that is best for the call; the lease gives it back.

        A task that is cancelled while it waits takes nothing, also when a place was granted in the same turn. A call
        that a node has failed keeps its place in the order, and a full queue does not turn it away.

        Raises:
            PoolSaturated: If the queue is full, or the wait was too long.
            BackendUnavailable: If every node that could serve the call is down, and stays so.
            ModelNotFound: If no node has the model, or none can serve the call.
        """
        self.waiting.arrived(waiter)
        lease = self.acquire_at_once(waiter)
        if lease is not None:
            return lease
        self._admit(waiter)
        try:
            return await self._granted(waiter)
        finally:
            if waiter.timer is not None:
                waiter.timer.cancel()
                waiter.timer = None

    def acquire_at_once(self, waiter: Waiter, *, others_wait: bool = False) -> Lease | None:
        """Return a place if one is free and no other call waits for it (or ``others_wait`` does not matter).

        Raises:
            ModelNotFound: As :meth:`acquire` does.
        """
        if self._closed:
            raise BackendUnavailable("the pool has been closed")
        waiter.since = self._now()
        if self.waiting and not others_wait:
            return None
        chosen = self._pick(waiter.shape, self._nothing_reserved)
        if chosen.node is not None:
            return self._claim(waiter, chosen.node, chosen)
        if not chosen.possible:
            if (error := never(waiter.shape, chosen)) is not None:
                raise error
            waiter.stranded_at = waiter.since
        return None

    def refusals(self, shape: CallShape) -> list[str]:
        """Return for each node why it cannot serve such a call; nothing if one can."""
        chosen = self._pick(shape, self._nothing_reserved)
        return [] if chosen.possible else refusals_of(chosen)

    def preview(self, shape: CallShape) -> NodeState | None:
        """Return which node such a call would go to, or wait for; nothing is claimed."""
        chosen = self._pick(shape, self._nothing_reserved)
        return chosen.node or chosen.awaited

    def changed(self) -> None:
        """Look at the queue again, one turn of the loop from now."""
        if self.waiting and not self._pass_is_due:
            self._pass_is_due = True
            asyncio.get_running_loop().call_soon(self._run_pass)

    def touched(self, node: NodeState) -> None:
        """Take note that something about ``node`` is different."""
        if self._shortlist is not None:
            self._shortlist.touch(node)
        self.changed()

    def estimated_wait(self, shape: CallShape) -> float:
        """Return how long such a call would wait now, in seconds: the work ahead of it over the places there are."""
        places = sum(node.cap for node in self.nodes if shape.model in node.models)
        seconds = self._peer_rates(shape.model).seconds(shape.prompt_tokens, shape.output_tokens)
        return seconds * (self.waiting.length(shape.model) + 1) / max(places, 1)

    def waiting_calls(self, most: int) -> list[WaitingCall]:
        """Return the calls that wait, in the order in which they go, at most so many of each model; and why."""
        now, whys = self._now(), dict[str, str]()
        for waiter in self.waiting.in_order(1):
            whys.setdefault(waiter.shape.model, why_it_waits(self._pick(waiter.shape, self._nothing_reserved)))
        return [
            WaitingCall(waiter.tag, waiter.shape.shown, now - waiter.since, whys[waiter.shape.model])
            for waiter in self.waiting.in_order(most)
        ]

    def close(self) -> None:
        """Turn away all that wait, and all that come."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for waiter in list(self.waiting):
            self._refuse(waiter, BackendUnavailable("the pool has been closed"))

    def _admit(self, waiter: Waiter) -> None:
        model = waiter.shape.model
        if waiter.attempt == 1 and self.waiting.length(model) >= self._limits.queue:
            raise saturated(
                f"{self._limits.queue} calls of {waiter.shape.shown} wait already", self.estimated_wait(waiter.shape)
            )
        loop = asyncio.get_running_loop()
        waiter.granted = loop.create_future()
        self.waiting.add(waiter)
        if self._limits.wait is not None:
            waiter.timer = loop.call_later(self._limits.wait, self._waited_too_long, waiter)
        self.changed()

    async def _granted(self, waiter: Waiter) -> Lease:
        granted = waiter.granted
        assert granted is not None, "only admitted calls wait"
        try:
            return await granted
        except asyncio.CancelledError:
            if waiter in self.waiting:
                self.waiting.remove(waiter, served=False)
                self.changed()
            elif granted.done() and not granted.cancelled() and granted.exception() is None:
                granted.result().release()
            raise

    def _run_pass(self) -> None:
        self._pass_is_due = False
        if not self.waiting:
            return
        now = self._now()
        ahead = Reservations()
        granted: list[tuple[Waiter, Lease]] = []
        waits_on_purpose = False
        stranded: list[tuple[Waiter, Pick]] = []
        free = self._free_places()
        for waiter in self.waiting.in_order(LOOK_AHEAD):
            if free <= 0 and not self._any_closed():
                break
            chosen = self._pick(waiter.shape, ahead)
            if chosen.node is not None:
                granted.append((waiter, self._claim(waiter, chosen.node, chosen)))
                free -= 1
            elif chosen.awaited is not None:
                ahead.reserve(chosen.awaited, now + chosen.seconds)
                waits_on_purpose = True
            elif not chosen.possible:
                stranded.append((waiter, chosen))
                continue
            waiter.stranded_at = None
            self._stranded_since.pop(waiter.shape.model, None)
        for waiter, lease in granted:
            self.waiting.remove(waiter, served=True)
            assert waiter.granted is not None, "only admitted calls wait"
            if waiter.granted.done():
                lease.release()
            else:
                waiter.granted.set_result(lease)
        again = self._mind_the_stranded(stranded, now)
        if waits_on_purpose and free > 0:
            again = min(again, now + RECONSIDER_SECONDS)
        self._reconsider_at(again)

    def _mind_the_stranded(self, stranded: list[tuple[Waiter, Pick]], now: float) -> float:
        """Refuse calls that no node has been able to serve for too long; return when to look at the rest again.

        Those further back in the line, which no pass has looked at, have been stranded for as long as the first ones.
        """
        again = float("inf")
        for waiter, chosen in stranded:
            if (error := never(waiter.shape, chosen)) is not None:
                self._refuse(waiter, error)
                continue
            if (opens := paused_until(waiter.shape, chosen, now)) is not None:
                waiter.stranded_at = None
                again = min(again, opens)
                continue
            if waiter.stranded_at is None:
                waiter.stranded_at = max(waiter.since, self._stranded_since.setdefault(waiter.shape.model, now))
            end = waiter.stranded_at + self._limits.recovery
            if end <= now:
                self._refuse(waiter, all_nodes_down(waiter.shape, chosen, self._limits.recovery))
            else:
                again = min(again, end, now + PEER_SECONDS)
        return again

    def _reconsider_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if when != float("inf"):
            self._timer = asyncio.get_running_loop().call_at(when, self.changed)

    def _refuse(self, waiter: Waiter, error: BackendError) -> None:
        self.waiting.remove(waiter, served=False)
        if waiter.granted is not None and not waiter.granted.done():
            waiter.granted.set_exception(error)
        self.changed()

    def _waited_too_long(self, waiter: Waiter) -> None:
        waiter.timer = None
        if waiter in self.waiting:
            waited = self._now() - waiter.since
            text = f"no node had a free place for {waiter.shape.shown} within {waited:.0f} s"
            self._refuse(waiter, saturated(text, self.estimated_wait(waiter.shape)))

    def _claim(self, waiter: Waiter, node: NodeState, chosen: Pick) -> Lease:
        now = self._now()
        model = waiter.shape.model
        self._stranded_since.pop(model, None)
        end = now + chosen.seconds
        known = node.models.get(model)
        node.claim(model, end)
        self._others.tell(node)
        if self._shortlist is not None:
            self._shortlist.touch(node)
        cold = known is not None and (not known.resident or known.reloads(waiter.shape.num_ctx))
        waited = now - waiter.since
        self.decisions.append(PastPick(waiter.tag, waiter.shape.shown, waiter.attempt, waited, time.time(), chosen))
        return Lease(node, model, end, cold, chosen, self._returned)

    def _returned(self, lease: Lease) -> None:
        self._others.tell(lease.node)
        self.touched(lease.node)

    def look_at_others(self) -> None:
        """Find out which calls of other programs the nodes have."""
        for node in self._others.look(self._now()):
            if self._shortlist is not None:
                self._shortlist.touch(node)

    def _pick(self, shape: CallShape, ahead: Reservations) -> Pick:
        self.look_at_others()
        nodes = self.nodes if self._shortlist is None else self._shortlist.candidates(shape, self._rng)
        return pick(shape, nodes, self._now(), ahead, self._rng, self._peer_rates(shape.model))

    def _peer_rates(self, model: str) -> Rates:
        """Return the median of what the nodes with ``model`` do; it is worked out once a second."""
        now = self._now()
        known = self._peers.get(model)
        if known is None or known[0] < now:
            rates = (node.models[model].rates for node in self.nodes if model in node.models)
            known = self._peers[model] = (now + PEER_SECONDS, median_rates(rates))
        return known[1]

    def _free_places(self) -> int:
        return sum(max(0, node.cap - node.in_flight) for node in self.nodes)

    def _any_closed(self) -> bool:
        return any(node.cap == 0 for node in self.nodes)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def why_it_waits(chosen: Pick) -> str:
    """Return why a call waits for which a pick was made."""
    if not chosen.possible:
        return reasons(chosen)
    if chosen.awaited is not None:
        return f"{chosen.awaited.name} would be done first, and has no free place yet"
    return "it is about to be given a place"


def never(shape: CallShape, chosen: Pick) -> BackendError | None:
    """Return the error for a call that no node will be able to serve; ``None`` if one may come back."""
    if not chosen.hopeless:
        return None
    model = shape.shown
    whys = {verdict.why for verdict in chosen.verdicts}
    known = {state.shown for verdict in chosen.verdicts for state in verdict.node.models.values()}
    hint = pull_hint(model, known, run="run on one of them")
    if Why.REFUSED in whys:
        hint = "it is asked for again in a minute; a smaller model or a shorter num_ctx may load"
    if Why.DOES_NOT_FIT in whys:
        hint = "take a smaller model or a shorter num_ctx, or distribute its layers (distributed_inference_enabled)"
    elif Why.LACKS_CAPABILITY in whys:
        hint = "take a model that can do that"
    text = f"no node can serve {model!r} ({reasons(chosen)})"
    return ModelNotFound(text, hint=hint, backend=NAME)


def paused_until(shape: CallShape, chosen: Pick, now: float) -> float | None:
    """Return when a node with the model is asked again that is merely busy or not ready; ``None`` if none is."""
    nodes = (verdict.node for verdict in chosen.verdicts)
    opens = [node.paused_until for node in nodes if shape.model in node.models and node.paused_until > now]
    return min(opens, default=None)


def all_nodes_down(shape: CallShape, chosen: Pick, seconds: float) -> BackendError:
    """Return the error for a call whose nodes are all down."""
    text = f"no node that has {shape.shown!r} came back within {seconds:g} s ({reasons(chosen)})"
    return BackendUnavailable(text, hint="look at them with: synaptic nodes check", backend=NAME)


def reasons(chosen: Pick) -> str:
    """Return why each node cannot serve the call, in one line."""
    return "; ".join(refusals_of(chosen))


def refusals_of(chosen: Pick) -> list[str]:
    """Return for each node why it cannot serve the call."""
    notes = ((one.node.name, one.note or one.why.value) for one in chosen.verdicts)
    return [said_of(name, note) for name, note in notes]


def said_of(name: str, note: str) -> str:
    """Return what is said of a node, with its name once."""
    return note if name in note else f"{name}: {note}"


def saturated(what: str, wait: float) -> PoolSaturated:
    """Return the error of a pool that has more calls than it can take."""
    return PoolSaturated(
        f"the pool is full: {what}; a call that came now would wait about {wait:.0f} s",
        hint="add nodes, raise their 'parallel', or raise pool_max_wait or pool_queue",
        estimated_wait=wait,
    )
