"""Which node takes a call: a pure function of what is known of the call and of the nodes.

Eliminate, then score, then choose. A node is out of question if it is closed, lacks the model or a capability, is not
to be asked for the model for a while, or cannot hold it. The others are scored by when the call would be complete
there: ``wait for a place + load of the model + prompt and output at the learned rates``. The least wins, also where it
has no free place: then the call had better wait for it (earliest completion on unequal machines, as HEFT does in its
second phase; Topcuoglu, Hariri, Wu, 2002). Among nodes that are as good as equal, two are drawn and the one with fewer
calls is taken, so that several programs that see the same state do not all run to one node ("The Power of Two Choices
in Randomized Load Balancing"; Mitzenmacher, 2001).
"""

from __future__ import annotations

from bisect import insort
from enum import Enum
from math import inf, sqrt
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from synaptic.backends.pool.learned import STALE_SECONDS
from synaptic.backends.pool.node import Candidate
from synaptic.text import plural

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from synaptic.backends.pool.learned import Rates
    from synaptic.backends.pool.node import CallShape, ModelState, NodeState

AS_GOOD_AS_EQUAL = 1.05
"""Estimates are not better than that: nodes whose score is within 5 % of the least are drawn from."""

LOAD_BYTES_A_SECOND = 500e6
"""Of a model's file, where nothing was learned: a SATA disk. An NVMe disk is six times as fast, a hard disk a third."""

LEAST_LOAD_SECONDS = 1.0
OVERRUN_SHARE = 0.1
LEAST_OVERRUN_WAIT = 0.05
KV_SHARE_A_TOKEN = 8e-6
"""KV cache of one token over the model's file: 0.8e-5 for a 70B model in 4 bits, 2.8e-5 for an 8B one. The least, since
a node that is wrongly left out is never tried."""


class Why(Enum):
    """Why a node was taken, or was not; the value says it to people."""

    TAKEN = "taken"
    SLOWER = "another one would be done earlier"
    BUSY = "would be done first, but has no free place yet: worth waiting for"
    TRIED = "has failed this call before"
    CLOSED = "gets no calls now"
    REFUSED = "is not asked for this model now"
    LACKS_MODEL = "does not have the model"
    LACKS_CAPABILITY = "its model lacks a capability that the call needs"
    DOES_NOT_FIT = "has too little memory for the model at this context length"

    @property
    def lasts(self) -> bool:
        """Whether waiting does not help: the node lacks something, or could not load the model just now."""
        return self in _LASTING


_LASTING = frozenset({Why.LACKS_MODEL, Why.LACKS_CAPABILITY, Why.DOES_NOT_FIT, Why.REFUSED})


class Verdict(NamedTuple):
    """What was thought of one node.

    Attributes:
        score: What was compared: ``seconds``, more for a node that is not trusted yet; infinite if it was out of
            question.
        seconds: Expected until the call is complete: ``wait + behind + load + run``; ``None`` if the node was out of
            question.
        wait: Until it has a free place; 0 if it has one now.
        behind: Until the calls of other programs leave it one there; it is not waited for, only counted.
        cached: Tokens of the prompt that its cache saves.
        note: What the node or the model is closed or refused for; "" if it is neither.
    """

    score: float
    node: NodeState
    seconds: float | None
    wait: float
    load: float
    run: float
    cached: int
    why: Why
    note: str
    behind: float = 0.0


_Raw: TypeAlias = "tuple[float, NodeState, float | None, float, float, float, int, Why, str, float]"
"""A verdict as the hot path makes it: a plain tuple takes a fifth of the time of a named one."""

_SCORE: Final = 0
_NODE: Final = 1
_SECONDS: Final = 2
_WAIT: Final = 3
_RUN: Final = 5
_WHY: Final = 7


class Pick:
    """A decision.

    Attributes:
        node: To be claimed now; ``None``: wait, or no node can (``possible``).
        seconds: Expected until the call is complete, on ``node`` or on ``awaited``.
        awaited: The busy node that is worth waiting for.
        possible: Whether a node that is open now can serve the call, at once or when it has a place.
    """

    __slots__ = ("_chosen", "_raw", "awaited", "node", "possible", "seconds")

    def __init__(self, raw: list[_Raw], chosen: _Raw | None) -> None:
        self._raw = raw
        self._chosen = chosen
        self.possible = chosen is not None
        self.node: NodeState | None = None
        self.awaited: NodeState | None = None
        self.seconds = inf
        if chosen is not None:
            self.seconds = chosen[_SECONDS] or 0.0
            if chosen[_WAIT]:
                self.awaited = chosen[_NODE]
            else:
                self.node = chosen[_NODE]

    @property
    def load(self) -> float:
        """Seconds that the load of the model is expected to take on the node that was chosen."""
        return 0.0 if self._chosen is None else self._chosen[4]

    @property
    def verdicts(self) -> list[Verdict]:
        """One for each node that was looked at, in that order; made when asked for."""
        won = Why.BUSY if self.node is None else Why.TAKEN
        verdicts = [Verdict(*raw) for raw in self._raw]
        return [
            verdict._replace(why=won) if raw is self._chosen else verdict
            for raw, verdict in zip(self._raw, verdicts, strict=True)
        ]

    @property
    def hopeless(self) -> bool:
        """Whether no node will be able to serve the call, even when all of them are up."""
        return not self.possible and all(raw[_WHY].lasts for raw in self._raw)


class Reservations:
    """Places that calls further ahead in the queue wait for, during one pass over the queue.

    The calls behind them see the node as free only after them.

    Attributes:
        ends: Node's key -> when its calls will end, those that wait for it included, in order.
    """

    __slots__ = ("ends",)

    def __init__(self) -> None:
        self.ends: dict[int, list[float]] = {}

    def __bool__(self) -> bool:
        return bool(self.ends)

    def reserve(self, node: NodeState, end: float) -> None:
        """Take note that a call waits for ``node``, and is expected to end there at ``end``.

        A call that waits for a node with a free place waits for its memory: until then no other call gets a place
        there, or it would never be free.
        """
        ends = self.ends.get(node.key)
        cap = max(node.cap, 1)
        if ends is None:
            ends = self.ends[node.key] = list(node.ends)
        if len(ends) < cap:
            ends[:] = [end] * cap
        else:
            del ends[: len(ends) - cap + 1]
            insort(ends, end)

    def forget(self, node: NodeState) -> None:
        """Drop what was reserved on ``node``."""
        self.ends.pop(node.key, None)

    def free_at(self, node: NodeState, now: float) -> float:
        """Return when ``node`` is expected to have a free place; ``now`` if it has one."""
        ends = self.ends.get(node.key, node.ends)
        over = len(ends) - node.cap
        return now if over < 0 else now + remaining(ends[over], now)

    def idle_at(self, node: NodeState, now: float) -> float:
        """Return when ``node`` is expected to have no call left."""
        ends = self.ends.get(node.key, node.ends)
        return now + remaining(ends[-1], now) if ends else now


def remaining(end: float, now: float) -> float:
    """Return in how many seconds something ends that was expected to end at ``end``; never 0.

    What is overdue is taken to need a tenth of its delay more, so that it never counts as over while it is not.
    """
    left = end - now
    if left > LEAST_OVERRUN_WAIT:
        return left
    return max(LEAST_OVERRUN_WAIT, -OVERRUN_SHARE * left)


def pick(  # noqa: PLR0917  (six things go in; keywords cost)
    call: CallShape, nodes: Sequence[NodeState], now: float, reserved: Reservations, rng: Random, fallback: Rates
) -> Pick:
    """Decide where ``call`` goes.

    Args:
        call: What is known of it.
        nodes: All of the pool, or those worth looking at.
        now: By the clock that the states' times are of.
        reserved: What calls ahead of this one wait for.
        rng: Chooses among nodes that are as good as equal.
        fallback: For nodes without samples: the median of their peers; all zeros if nothing is known of any.
    """
    chosen, raw = _decide(call, nodes, now, reserved, rng, fallback, call.tried)
    if chosen is None and call.tried:
        chosen, raw = _decide(call, nodes, now, reserved, rng, fallback, frozenset())
    return Pick(raw, chosen)


def _decide(  # noqa: PLR0917  (the hot path: keywords cost)
    call: CallShape,
    nodes: Sequence[NodeState],
    now: float,
    reserved: Reservations,
    rng: Random,
    fallback: Rates,
    tried: frozenset[int],
) -> tuple[_Raw | None, list[_Raw]]:
    raw: list[_Raw] = []
    append = raw.append
    model, needs, num_ctx = call.model, call.needs, call.num_ctx
    prompt, output = call.prompt_tokens, call.output_tokens
    cached_at = call.cached
    crowded = _crowded(nodes) if cached_at else inf
    ahead = reserved.ends
    slower, least, cached = Why.SLOWER, inf, 0
    for node in nodes:
        state = node.models.get(model)
        cap = node.cap
        if state is None or cap <= 0 or state.refused_until > now or needs or node.key in tried:
            out = _out_of_question(node, state, call, now, tried)
            if out is not None:
                append(out)
                continue
            assert state is not None, "a node without the model is out of question"
        wait = load = 0.0
        if node.in_flight >= cap or (ahead and node.key in ahead):
            wait = reserved.free_at(node, now) - now
        if not state.resident or state.reloads(num_ctx):
            cold = _cold(node, state, num_ctx, now, wait, reserved, fallback)
            if cold is None:
                append((inf, node, None, 0.0, 0.0, 0.0, 0, Why.DOES_NOT_FIT, "", 0.0))
                continue
            wait, load = cold
        rates = state.rates
        if not rates.samples or now - rates.learned_at > STALE_SECONDS:
            rates = _peers(rates, fallback, prompt, output)
        if cached_at:
            cached = 0 if node.in_flight > crowded else min(cached_at.get(node.key, 0), prompt)
        run = rates.seconds(prompt - cached, output)
        behind = run * overfull(node) if node.elsewhere else 0.0
        seconds = wait + behind + load + run
        score = seconds / node.trust
        if score < least:  # noqa: PLR1730  (a call of min() takes twice the time)
            least = score
        append((score, node, seconds, wait, load, run, cached, slower, "", behind))
    return (None if least == inf else _choose(raw, least, rng)), raw


def _choose(raw: list[_Raw], least: float, rng: Random) -> _Raw:
    """Return the verdict that wins: a free node, unless a busy one is better by more than the estimates are worth."""
    limit = least * AS_GOOD_AS_EQUAL
    free = [one for one in raw if one[_SCORE] <= limit and not one[_WAIT]]
    if not free:
        best = min(raw, key=_score)
        if best[_RUN] or not (idle := [one for one in raw if not one[_WAIT] and one[_SCORE] < inf]):
            return best
        limit = min(map(_score, idle)) * AS_GOOD_AS_EQUAL  # nothing is known of how long calls take: do not wait
        free = [one for one in idle if one[_SCORE] <= limit]
    count = len(free)
    if count == 1:
        return free[0]
    first = int(rng.random() * count)
    second = int(rng.random() * (count - 1))
    one, other = free[first], free[second + (second >= first)]
    node, rival = one[_NODE], other[_NODE]
    calls, rivals = node.in_flight + node.elsewhere, rival.in_flight + rival.elsewhere
    return other if rivals * node.cap < calls * rival.cap else one


def overfull(node: NodeState) -> float:
    """Return how many calls' time one more waits in the node's own queue, since other programs have calls there, too.

    Their calls are taken to be like ours. A call of ours is never held back for them: whoever waits in this program has
    no place in the node's queue, and others would pass it for ever.
    """
    calls = min(node.in_flight, node.cap - 1) + node.elsewhere
    return max(0, calls + 1 - node.cap) / node.cap


def _score(raw: _Raw) -> float:
    return raw[_SCORE]


def _out_of_question(
    node: NodeState, state: ModelState | None, call: CallShape, now: float, tried: frozenset[int]
) -> _Raw | None:
    """Return the verdict on a node that cannot take the call; ``None`` if it can."""
    note = ""
    if state is None:
        unknown = node.cap <= 0 and not node.models  # it has not been reached yet: who knows what it has
        why, note = (Why.CLOSED, node.why_closed) if unknown else (Why.LACKS_MODEL, "")
    elif state.capabilities is not None and not call.needs <= state.capabilities:
        why = Why.LACKS_CAPABILITY
    elif node.cap <= 0:
        why, note = Why.CLOSED, node.why_closed
    elif state.refused_until > now:
        why, note = Why.REFUSED, state.refused_why
    elif node.key in tried:
        why = Why.TRIED
    else:
        return None
    return (inf, node, None, 0.0, 0.0, 0.0, 0, why, note, 0.0)


def _cold(  # noqa: PLR0917  (the hot path: keywords cost)
    node: NodeState,
    state: ModelState,
    num_ctx: int | None,
    now: float,
    wait: float,
    reserved: Reservations,
    fallback: Rates,
) -> tuple[float, float] | None:
    """Return how long the node's memory or a place is waited for, and how long the load takes after that.

    ``None`` if the model does not fit. A load that is under way is joined; one of another model is waited for, since a
    server loads one at a time. Nothing that is busy is pushed out of memory: that is waited for, too.
    """
    if state.loading_until:
        return wait, max(0.0, remaining(state.loading_until, now) - wait)
    if node.memory_bytes is not None:
        if not can_hold(node, state, num_ctx):
            return None
        if node.busy_models and footprint(state, num_ctx) + _kept_busy(node, state) > node.memory_bytes:
            wait = max(wait, reserved.idle_at(node, now) - now)
    if state.resident and state.name in node.busy_models:
        wait = max(wait, reserved.idle_at(node, now) - now)
    load = load_seconds(state, fallback)
    ahead = 0.0
    for other in node.models.values():
        if other.loading_until:
            ahead = max(ahead, remaining(other.loading_until, now) - wait)
    return wait, load + ahead


def _kept_busy(node: NodeState, state: ModelState) -> int:
    """Return how many bytes the other models that are busy take."""
    busy = [node.models.get(name) for name in node.busy_models if name != state.name]
    return sum(other.loaded_bytes for other in busy if other is not None)


def can_hold(node: NodeState, state: ModelState, num_ctx: int | None) -> bool:
    """Tell whether the model has room on the node once nothing else is there."""
    if node.memory_bytes is None or state.loading_until or (state.resident and not state.reloads(num_ctx)):
        return True
    return footprint(state, num_ctx) <= node.memory_bytes


def _peers(rates: Rates, fallback: Rates, prompt: int, output: int) -> Rates:
    """Return what a node without recent samples is taken for: its peers, unless it was faster than they are."""
    if rates.samples and rates.seconds(prompt, output) <= fallback.seconds(prompt, output):
        return rates
    return fallback


def load_seconds(state: ModelState, fallback: Rates) -> float:
    """Return how long a load of the model is expected to take: learned here, learned elsewhere, or by its size."""
    learned = state.rates.load_seconds or fallback.load_seconds
    return learned or max(LEAST_LOAD_SECONDS, (state.size_bytes or 0) / LOAD_BYTES_A_SECOND)


def footprint(state: ModelState, num_ctx: int | None) -> float:
    """Return how many bytes the model takes in memory, at least; 0 where its size is not known."""
    return (state.size_bytes or 0) * (1.0 + KV_SHARE_A_TOKEN * (state.context_for(num_ctx) or 0))


def _crowded(nodes: Sequence[NodeState]) -> float:
    """Return with more than how many calls a node's cache does not count: the mean and a standard deviation (AIBrix).

    Otherwise all calls that share a prefix would crowd on the one node that has it.
    """
    total = squares = 0
    for node in nodes:
        calls = node.in_flight
        total += calls
        squares += calls * calls
    mean = total / len(nodes) if nodes else 0.0
    return mean + sqrt(max(0.0, squares / max(len(nodes), 1) - mean * mean))


def explain(decision: Pick) -> tuple[Candidate, ...]:
    """Put a decision into words, the winner first, then by expected seconds, then those out of question."""
    best = decision.node or decision.awaited
    ordered = sorted(decision.verdicts, key=lambda verdict: (verdict.node is not best, verdict.score, verdict.node.key))
    return tuple(
        Candidate(
            node=verdict.node.name,
            seconds=verdict.seconds,
            wait=verdict.wait + verdict.behind,
            load=verdict.load,
            run=verdict.run,
            cached_tokens=verdict.cached,
            why=_words(verdict),
        )
        for verdict in ordered
    )


def _words(verdict: Verdict) -> str:
    why = f"{verdict.why.value}: {verdict.note}" if verdict.note else verdict.why.value
    if verdict.seconds and verdict.score > verdict.seconds:
        why += f" (counted as {verdict.score:.1f} s: it has just come back)"
    if verdict.node.elsewhere:
        why += f" (other programs have {plural(verdict.node.elsewhere, 'call')} there)"
    return why
