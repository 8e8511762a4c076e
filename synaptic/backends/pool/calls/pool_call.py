"""The way of one call through the pool: wait for a node, be served, and go elsewhere when the node fails it."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from synaptic.backends.pool.calls.attempt import Attempt, load_begins
from synaptic.backends.pool.calls.hedging import first_of_two
from synaptic.backends.pool.calls.node_wait import NodeWait
from synaptic.backends.pool.calls.sentinel import SUSPICIOUS_SILENCE, SilentCall
from synaptic.backends.pool.calls.waiter import Waiter
from synaptic.backends.pool.learned import OutputSizes, beginnings, prompt_tokens
from synaptic.backends.pool.node import CallShape, PastError, judge
from synaptic.errors import BackendBusy, BackendError, ModelNotFound, StreamTruncated
from synaptic.messages import CUT_OFF, Continued, Delta, Finished, Restarted, ThoughtSoFar
from synaptic.models import LastTurn, full_name
from synaptic.quick_init import quick_replace
from synaptic.waiting import Continuation, Rules, Way

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from synaptic.backends.ollama import TokenRatios
    from synaptic.backends.pool.calls.retry_budget import RetryBudget
    from synaptic.backends.pool.calls.sentinel import Sentinel
    from synaptic.backends.pool.calls.waiter import Lease
    from synaptic.backends.pool.dispatch import Dispatcher
    from synaptic.backends.pool.learned import ContextBook, Prefixes, SentPrompts
    from synaptic.backends.pool.node import CallFailure, ModelState, PoolNode, Watch
    from synaptic.messages import ChatRequest, Chunk
    from synaptic.waiting import WaitNotices

NO_NEEDS = frozenset[str]()

MOST_REFUSALS = 20
"""Nodes that refuse a call before they take it do not count as failovers; this bounds them."""

DOUBTFUL_LOAD_SECONDS = 0.5
"""A server that says it spent more than this on a model that it had in memory may have had to load it: it says up to
0.84 s for a small one with three calls at once, but nothing else tells."""

PATIENCE_FACTOR = 3.0
"""A node is asked whether it lives when its first token takes so many times as long as usual."""


@dataclass(frozen=True, slots=True)
class PoolServices:
    """What the calls of a pool share; ``bound`` is called for each call that a node has got."""

    members: Mapping[int, PoolNode]
    dispatcher: Dispatcher
    sentinel: Sentinel
    watch: Watch
    budget: RetryBudget
    contexts: ContextBook
    prefixes: Prefixes
    sent: SentPrompts
    sizes: OutputSizes
    ratios: TokenRatios
    failovers: int
    hedge: bool
    waits: WaitNotices
    bound: Callable[[], None]


class PoolCall:
    """One request on its way.

    Args:
        pool: What it shares with other calls.
        request: With its model.
        model: Of the request: what all names of it have in common.
        chain: The prompt's prefixes, for the nodes' caches.
    """

    def __init__(self, pool: PoolServices, request: ChatRequest, model: str, chain: tuple[int, ...]) -> None:
        states = [state for member in pool.members.values() if (state := member.state.models.get(model)) is not None]
        length = pool.contexts.length(model, request.num_ctx, states)
        self._pool = pool
        self._model = model
        self._chain = chain
        self._beginnings = beginnings(request.messages)
        self._begun, self._begun_pieces, self._request = request.begun, request.begun_pieces, request
        if length != request.num_ctx or request.begun:
            self._request = quick_replace(request, num_ctx=length, begun="", begun_pieces=0)
        self._continuation = Continuation(self._request)
        self._shape = CallShape(
            model,
            prompt_tokens=prompt_tokens(request, pool.ratios.of(model)),
            output_tokens=pool.sizes.expected(model, request),
            needs=needs(request),
            num_ctx=length,
            cached=pool.prefixes.cached(model, chain),
            asked=full_name(request.model or model),
        )
        self._waiter = Waiter(self._shape, priority=request.priority, rank=request.rank, tag=request.tag)
        self._wait = NodeWait(request.timeouts, pool.waits, came=asyncio.get_running_loop().time())
        self._end: float | None = None
        self._sent = 0
        self._refusals = 0
        self._retries = False
        self._member: PoolNode | None = None

    async def stream(self) -> AsyncGenerator[Chunk, None]:
        """Yield the reply, from one node or from several one after the other."""
        pool = self._pool
        pool.budget.active += 1
        lease: Lease | None = None
        broke = self._cut_off()
        try:
            lease = await self._first_lease()
            while True:
                try:
                    if broke is not None:
                        yield await self._taken_up(broke, lease)
                        broke = None
                    async with aclosing(self._pieces(lease)) as pieces:
                        async for chunk in pieces:
                            yield chunk
                except BackendError as exc:
                    error = exc
                else:
                    return
                failure = self._failed(error)
                if failure.delivered:
                    self._continuation.break_off()
                    broke = error
                if self._continuation.is_exhausted:
                    yield Finished("length", model=self._shape.asked, node=lease.node.name)
                    return
                lease.release()
                lease = await self._next_lease(failure, error)
        finally:
            if lease is not None:
                lease.release()  # idempotent: the call may have ended between two nodes
            pool.budget.active -= 1
            self._leave_the_budget()
            self._wait.close(asyncio.get_running_loop().time())

    def _cut_off(self) -> BackendError | None:
        """Return what broke the call off before it came here; ``None`` where it is new, or cannot go on."""
        if self._begun and self._continuation.go_on_with(self._begun, self._begun_pieces) is Way.PREFILL:
            return StreamTruncated(CUT_OFF)
        return None

    async def _first_lease(self) -> Lease:
        """Wait for a node; a model that none is known to have may have been fetched since they were last asked."""
        pool = self._pool
        try:
            return await pool.dispatcher.acquire(self._waiter)
        except ModelNotFound:
            if not await pool.watch.refresh():
                raise
        return await pool.dispatcher.acquire(self._waiter)

    async def _taken_up(self, broke: BackendError, lease: Lease) -> Continued | Restarted:
        """Decide how the node of the lease takes up what broke off, and return what the reader is told.

        Raises:
            BackendError: If the node was to tell, and could not be asked.
        """
        failed, self._member = self._member, self._pool.members[lease.node.key]
        name = lease.node.name
        parts = [] if failed is self._member else [f"{name} takes over"]
        if self._continuation.way is Way.PREFILL:
            if await self._goes_on(self._member, lease):
                return Continued(broke.message, name)
            self._continuation.forget()
            parts.append(f"from the beginning: {self._shape.asked} is not known to go on with a text there")
        return Restarted(self._sent + 1, broke.message + (f"; {', '.join(parts)}" if parts else ""))

    async def _goes_on(self, member: PoolNode, lease: Lease) -> bool:
        """Return whether the model on the node is known to go on with the text so far."""
        state = lease.node.models.get(self._model)
        turn = LastTurn.UNKNOWN if state is None else state.last_turn
        self._continuation.echoes = turn is LastTurn.UNKNOWN
        if turn is not LastTurn.UNKNOWN:
            return turn is LastTurn.OPEN
        await self._pool.watch.look_at_memory(member)
        request = self._as_the_node_writes_it(state)
        load_begins(lease, request.num_ctx)
        with self._deadline(member, lease) as deadline:
            answer = await deadline.wait(lambda: member.client.goes_on_with(request))
        if state is not None:
            state.resident, state.loaded_context, state.loading_until = True, request.num_ctx, 0.0
        return answer

    async def _pieces(self, lease: Lease) -> AsyncGenerator[Chunk, None]:
        """Yield what the node of the lease, or one that overtakes it, has to add; its place is free before the last."""
        attempt = self._send(lease)
        try:
            if self._pool.hedge and self._continuation.way is not Way.PREFILL:  # not every node may go on with it
                attempt, chunk = await first_of_two(attempt, self._twin, self._threshold(attempt), self._lost)
            else:
                chunk = await attempt.next()
            self._leave_the_budget()
            self._wait.served(attempt.member, attempt.first_at or 0.0)
            while not isinstance(chunk, Finished):
                fresh = self._taken(chunk)
                if fresh is not None:
                    yield fresh
                chunk = await attempt.next()
            if (rest := self._continuation.rest()) is not None:
                yield rest
            last = self._completed(attempt, chunk)
        finally:
            self._member = attempt.member
            await attempt.aclose()
        yield last

    def _taken(self, chunk: Delta | ThoughtSoFar) -> Delta | ThoughtSoFar | None:
        if isinstance(chunk, Delta):
            return self._continuation.take(chunk)
        self._continuation.thought_so_far()
        return chunk

    def _send(self, lease: Lease) -> Attempt:
        """Send what is still to be produced to the node of the lease."""
        pool = self._pool
        member = pool.members[lease.node.key]
        deadline = self._deadline(member, lease)
        state = lease.node.models.get(self._model)
        warm = state is not None and state.resident and not state.reloads(self._shape.num_ctx)
        known = warm and state is not None and pool.watch.knows_memory(member, state)
        look = None if known else pool.watch.look_at_memory
        pool.prefixes.note(lease.node.key, self._model, self._chain, kept=lease.node.limit)
        read = pool.sent.note(lease.node.key, self._model, self._beginnings)
        pool.bound()
        return Attempt(
            member,
            lease,
            lambda: self._as_the_node_writes_it(state),
            deadline,
            look=look,
            read=read,
            now=asyncio.get_running_loop().time(),
        )

    def _deadline(self, member: PoolNode, lease: Lease) -> SilentCall:
        """Return the bounds of what is now asked of the node of the lease; the whole call's begins with the first."""
        now = asyncio.get_running_loop().time()
        limits = self._wait.left(now)
        if self._end is None and limits.total is not None:
            self._end = now + limits.total
        state = lease.node.models.get(self._model)
        usual = state.rates.first_token if state is not None else 0.0
        patience = max(SUSPICIOUS_SILENCE, PATIENCE_FACTOR * usual)
        return SilentCall(member, limits, self._pool.sentinel, end=self._end, patience=patience)

    def _as_the_node_writes_it(self, state: ModelState | None) -> ChatRequest:
        """Return what is still to be produced, with the context that suits the node.

        Older servers know a model by the letters of their own listing alone.
        """
        request = self._continuation.request()
        if state is None:
            return request
        num_ctx = state.context_for(self._shape.num_ctx)
        if self._shape.asked == state.shown and num_ctx == request.num_ctx:
            return request
        return quick_replace(request, model=state.shown, num_ctx=num_ctx)

    def _completed(self, attempt: Attempt, last: Finished) -> Finished:
        """Learn from a complete call, and return its last chunk."""
        pool, member = self._pool, attempt.member
        now = asyncio.get_running_loop().time()
        sample = attempt.sample(last, self._continuation.chunks)
        pool.sizes.learn(self._model, self._request, sample.output_tokens + self._continuation.before)
        if not self._continuation.before:
            pool.ratios.learn(self._model, self._request, sample.prompt_tokens)
        state = member.state.models.get(self._model)
        if state is not None:
            self._learn(attempt, state, (last.timings.load_seconds or 0.0) if last.timings else 0.0)
            state.rates.learn(sample, now)
        member.served += 1
        pool.watch.used()
        if member.health.succeeded(now):
            member.health.apply(member.state, now)
            pool.dispatcher.touched(member.state)
        usage = self._continuation.usage(last.usage)
        if usage is last.usage and last.model and last.node:
            return last  # nearly every one
        return replace(last, usage=usage, model=last.model or self._shape.asked, node=member.state.name)

    def _learn(self, attempt: Attempt, state: ModelState, load: float) -> None:
        """Take note that the model is in the node's memory now; what may have been a load is looked at more closely."""
        was_resident, state.resident, state.loading_until = state.resident, True, 0.0
        state.loaded_context = attempt.num_ctx or state.loaded_context
        state.seen_at = asyncio.get_running_loop().time()
        cold = attempt.cold or load > DOUBTFUL_LOAD_SECONDS
        if cold or not was_resident:
            member = attempt.member
            self._pool.watch.loaded(member, self._model, num_ctx=attempt.num_ctx, cold=cold)
            self._pool.dispatcher.touched(member.state)

    def _failed(self, error: BackendError) -> CallFailure:
        """Hold the node to account; raise the error if no other could do better."""
        pool, member = self._pool, self._member
        assert member is not None, "some node has failed"
        failure = judge(error)
        if self._continuation.chunks:
            failure = replace(failure, delivered=True)  # whatever it says now, it had begun
        self._leave_the_budget()
        self._hold_to_account(member, failure)
        if failure.down:
            member.trouble = error
        key = member.state.key
        now = asyncio.get_running_loop().time()
        if isinstance(error, BackendBusy) and not failure.delivered:
            self._wait.refused(member, error, now, alone=self._is_last(key))
            return failure
        self._sent += failure.delivered
        self._refusals += not failure.delivered
        if failure.lasting and not self._could_be_tried_elsewhere(key):
            raise error
        if failure.blame == "model" and not self._could_be_served_elsewhere(key, now):
            raise error
        if not failure.elsewhere or self._sent > pool.failovers or self._refusals > MOST_REFUSALS:
            raise error
        if failure.blame != "busy":
            self._shape.tried |= {key}
        return failure

    def _hold_to_account(self, member: PoolNode, failure: CallFailure) -> None:
        """Count a failure against what failed: the node's circuit breaker, or its model."""
        pool, node = self._pool, member.state
        now = asyncio.get_running_loop().time()
        state = node.models.get(self._model)
        if state is not None:
            state.loading_until = 0.0
        if failure.blame == "model" and state is not None:
            state.refused_until, state.refused_why = now + Rules.REFUSED_MODEL.longest, failure.why
            pool.watch.doubted(member)
        elif failure.blame == "busy":
            member.health.busy(now, failure.retry_after, starting=failure.starting)
            pool.watch.paused()
        elif failure.blame == "node":
            member.health.failed(failure, now, last_candidate=self._is_last(node.key))
            pool.prefixes.forget(node.key)
            pool.watch.doubted(member)
        if failure.blame != "call":
            member.errors += 1
            member.history.append(PastError(time.time(), failure.why))
        member.health.apply(node, now)
        pool.dispatcher.touched(node)

    async def _next_lease(self, failure: CallFailure, error: BackendError) -> Lease:
        """Wait for another node; a call that had reached its node counts against the budget of retries.

        No bound on time runs meanwhile, as none does while a call waits for its first node.
        """
        pool, loop = self._pool, asyncio.get_running_loop()
        began = loop.time()
        if failure.delivered:
            await pool.budget.enter()
            self._retries = True
            assert self._member is not None, "some node has failed"
            if self._is_last(self._member.state.key):
                await asyncio.sleep(Rules.SAME_NODE.delay(self._sent))
        self._waiter.attempt += 1
        self._shape.cached = pool.prefixes.cached(self._model, self._chain)
        try:
            lease = await pool.dispatcher.acquire(self._waiter)
        except BackendError as none_left:
            raise none_left from error
        if self._end is not None:
            self._end += loop.time() - began
        return lease

    def _leave_the_budget(self) -> None:
        if self._retries:
            self._retries = False
            self._pool.budget.leave()

    def _lost(self, loser: Attempt, error: BackendError | None) -> None:
        """Learn from an attempt that another node outlived: it has failed, or would have taken this long at least."""
        if error is not None:
            self._hold_to_account(loser.member, judge(error))
            return
        state = loser.member.state.models.get(self._model)
        if state is not None and loser.first_at is None:
            state.rates.took_at_least(asyncio.get_running_loop().time() - loser.sent_at)

    def _could_be_served_elsewhere(self, key: int, now: float) -> bool:
        """Return whether another node has the model, and is not known to refuse it; it may be down for now."""
        states = (member.state.models.get(self._model) for other, member in self._pool.members.items() if other != key)
        return any(state is not None and state.refused_until <= now for state in states)

    def _could_be_tried_elsewhere(self, key: int) -> bool:
        """Return whether there is another node with the model that has not failed this call; it may be down for now."""
        return any(
            self._model in member.state.models
            for other, member in self._pool.members.items()
            if other != key and other not in self._shape.tried
        )

    def _is_last(self, key: int) -> bool:
        """Return whether no other node could serve the call now."""
        return not any(
            member.state.cap > 0 and self._model in member.state.models
            for other, member in self._pool.members.items()
            if other != key
        )

    def _threshold(self, attempt: Attempt) -> float | None:
        """Return after how long without a token a second node is asked, too: the learned 95th percentile.

        That of the node itself; where it has too few samples, the best of the others.
        """
        states = [member.state.models.get(self._model) for member in self._pool.members.values()]
        own = attempt.member.state.models.get(self._model)
        known = own.rates.first_token_quantile(0.95) if own is not None else None
        if known is not None:
            return known
        others = [state.rates.first_token_quantile(0.95) for state in states if state is not None]
        return min((quantile for quantile in others if quantile is not None), default=None)

    def _twin(self, first: Attempt) -> Attempt | None:
        """Send a second copy to another node with a free place that no call waits for; ``None`` without one."""
        key = first.lease.node.key
        shape = replace(self._shape, tried=self._shape.tried | {key})
        twin = Waiter(shape, tag=self._waiter.tag, attempt=self._waiter.attempt)
        try:
            lease = self._pool.dispatcher.acquire_at_once(twin)
        except BackendError:
            return None
        if lease is None:
            return None
        if lease.node.key == key:
            lease.release()
            return None
        return self._send(lease)


def needs(request: ChatRequest) -> frozenset[str]:
    """Return what a model must be able to do, as Ollama names it, to serve a request."""
    pictures = any(message.images for message in request.messages)
    if not (request.think or request.tools or pictures):
        return NO_NEEDS
    asked = {"thinking": bool(request.think), "tools": bool(request.tools), "vision": pictures}
    return frozenset(name for name, is_asked in asked.items() if is_asked)
