"""Of a large pool, the few nodes that are worth looking at for a call.

The picker looks at every node that it is given; ten thousand would take it ten milliseconds. The shortlist keeps, for
each model that was asked for, the nodes in groups: free or busy, with the model in memory or not, and by
speed. A change of a node moves it from one group to another; a call takes a few from the fastest groups.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from itertools import islice
from math import log
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from synaptic.backends.pool.policy import can_hold, overfull

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator
    from random import Random

    from synaptic.backends.pool.node import CallShape, ModelState, NodeState
    from synaptic.backends.pool.policy import Reservations

WORTHWHILE = 16
"""Up to so many nodes, looking at all is faster."""

BUCKET_WIDTH: Final = log(1.15)
TYPICAL_PROMPT, TYPICAL_OUTPUT = 1000, 256
UNKNOWN = 10**6
"""The bucket of nodes whose speed is not known yet, behind all others."""

ENOUGH_FREE, FREE_OF_EACH = 4, 3
MOST_BUSY, BUSY_OF_EACH, SOONEST, SOONEST_SHARE = 4, 3, 24, 32
SOME_COLD, SOME_UNKNOWN, SOME_CACHED, SOME_DOUBTFUL, SOME_OUT = 2, 1, 2, 1, 2
FEW = 4
FEW_LOOKS, EVERY = 12, 2**62

Kind: TypeAlias = Literal["free", "busy", "cold", "cold busy", "doubtful", "closed"]


class IndexPlace(NamedTuple):
    """Where a node is in the index of a model.

    Attributes:
        kind: ``doubtful``: the model was refused there once, and whether that still holds depends on the time.
        bucket: Of speed, the fastest least; 0 where it does not matter.
        free_at: When a ``busy`` node is expected to have a free place; 0 where it does not matter.
    """

    kind: Kind
    bucket: int
    free_at: float


_RawPlace: TypeAlias = tuple[Kind, int, float]


class _Drawer:
    """A set of nodes that some can be drawn from at random, at once."""

    __slots__ = ("_items", "_where")

    def __init__(self) -> None:
        self._items: list[NodeState] = []
        self._where: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[NodeState]:
        return iter(self._items)

    def add(self, node: NodeState, _free_at: float) -> None:
        self._where[node.key] = len(self._items)
        self._items.append(node)

    def remove(self, node: NodeState, _free_at: float) -> None:
        hole = self._where.pop(node.key)
        last = self._items.pop()
        if last is not node:
            self._items[hole] = last
            self._where[last.key] = hole

    def draw(self, rng: Random, most: int, usable: Callable[[NodeState], bool], looks: int = EVERY) -> list[NodeState]:
        """Return up to ``most`` usable ones, neighbours from a random one on; after ``looks`` looks, what was found.

        The neighbours change all the time, since a node that leaves is replaced by the last one.
        """
        items = self._items
        count = len(items)
        found: list[NodeState] = []
        if not count:
            return found
        first = int(rng.random() * count)
        for at in range(
            first - count, first - count + min(count, looks)
        ):  # negative indices count from the end: round and round
            node = items[at]
            if usable(node):
                found.append(node)
                if len(found) == most:
                    break
        return found


class _Timetable:
    """Busy nodes by when they are expected to have a free place."""

    __slots__ = ("_items", "_nodes")

    def __init__(self) -> None:
        self._items: list[tuple[float, int]] = []
        self._nodes: dict[int, NodeState] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[NodeState]:
        return (self._nodes[key] for _, key in self._items)

    def add(self, node: NodeState, free_at: float) -> None:
        insort(self._items, (free_at, node.key))
        self._nodes[node.key] = node

    def remove(self, node: NodeState, free_at: float) -> None:
        del self._items[bisect_left(self._items, (free_at, node.key))]
        del self._nodes[node.key]

    def draw(self, rng: Random, most: int, usable: Callable[[NodeState], bool], looks: int = EVERY) -> list[NodeState]:
        """Return up to ``most`` usable ones: the first, and random ones of those that follow it soon.

        Several calls that wait look at the same moment, and each of them reserves a node: they had better not all see
        the same ones. If none of these is usable, the first ``looks`` of all are looked at.
        """
        nodes, items = self._nodes, self._items
        near = min(max(SOONEST, len(items) // SOONEST_SHARE), len(items))
        drawn = [0, *sorted({1 + int(rng.random() * (near - 1)) for _ in range(most - 1)})] if near > 1 else range(near)
        found = [node for at in drawn if usable(node := nodes[items[at][1]])]
        if found or near == 0:
            return found
        return [node for _, key in items[:looks] if usable(node := nodes[key])][:most]


class _Line:
    """The nodes that have one model, in groups."""

    __slots__ = ("buckets", "groups", "places")

    def __init__(self) -> None:
        self.places: dict[int, _RawPlace] = {}
        self.groups: dict[tuple[Kind, int], _Drawer | _Timetable] = {}
        self.buckets: dict[Kind, list[int]] = {}

    def put(self, node: NodeState, place: _RawPlace | None) -> None:
        """Move a node to its place; ``None`` takes it out."""
        old = self.places.get(node.key)
        if old == place:
            return
        if old is not None:
            self._take_out(node, old)
        if place is None:
            del self.places[node.key]
            return
        self.places[node.key] = place
        kind, bucket, free_at = place
        group = self.groups.get((kind, bucket))
        if group is None:
            group = self.groups[kind, bucket] = _Timetable() if kind == "busy" else _Drawer()
            insort(self.buckets.setdefault(kind, []), bucket)
        group.add(node, free_at)

    def _take_out(self, node: NodeState, old: _RawPlace) -> None:
        kind, bucket, free_at = old
        group = self.groups[kind, bucket]
        group.remove(node, free_at)
        if not group:
            del self.groups[kind, bucket]
            self.buckets[kind].remove(bucket)


class Shortlist:
    """The index of a pool.

    Args:
        nodes: That it has at the start; a node that comes later is added by touching it.
    """

    def __init__(self, nodes: Iterable[NodeState] = ()) -> None:
        self._nodes: dict[int, NodeState] = {}
        self._unreached: dict[int, NodeState] = {}
        self._lines: dict[str, _Line] = {}
        self._names: dict[int, tuple[str, ...]] = {}
        for node in nodes:
            self.touch(node)

    def touch(self, node: NodeState) -> None:
        """Take note that something about ``node`` may have changed: calls, places, models, rates, refusals."""
        if node.key not in self._nodes:
            self._nodes[node.key] = node
        if node.cap <= 0 and not node.models:
            self._unreached[node.key] = node
        elif node.key in self._unreached:
            del self._unreached[node.key]
        lines = self._lines
        for model, state in node.models.items():
            line = lines.get(model)
            if line is not None:
                line.put(node, _place(node, state))
        names = tuple(node.models)
        if names != self._names.get(node.key):
            self._names[node.key] = names
            for model, line in lines.items():
                if model not in node.models and node.key in line.places:
                    line.put(node, None)

    def remove(self, node: NodeState) -> None:
        """Take a node out."""
        self._unreached.pop(node.key, None)
        self._names.pop(node.key, None)
        if self._nodes.pop(node.key, None) is not None:
            for line in self._lines.values():
                if node.key in line.places:
                    line.put(node, None)

    def places(self, model: str) -> dict[int, IndexPlace]:
        """Return where each node that has ``model`` is in its index."""
        return {key: IndexPlace(*place) for key, place in self._line(model).places.items()}

    def groups(self, model: str) -> dict[tuple[Kind, int], frozenset[int]]:
        """Return the nodes' keys in each group of ``model``."""
        return {key: frozenset(node.key for node in group) for key, group in self._line(model).groups.items()}

    def candidates(self, call: CallShape, rng: Random, reserved: Reservations | None = None) -> list[NodeState]:
        """Return the nodes that are worth looking at for ``call``, about twenty at most, without repetition.

        A free node that has the model in memory and can take the call is among them if there is one. If none can take
        the call, some of those that are out of question are returned, so that the picker can say why. Nodes that
        calls ahead wait for (``reserved``) are left out where others are soon found.
        """
        line = self._line(call.model)
        usable = _filter(call, reserved.ends if reserved is not None else {})
        looks = FEW_LOOKS if reserved else EVERY
        found = self._cached(call, usable)
        free, fastest = _free(line, rng, usable)
        found += free
        found += _busy(line, fastest, rng, usable, looks)
        for bucket in line.buckets.get("cold", ()):
            found += (cold := line.groups["cold", bucket].draw(rng, 1 if free else SOME_COLD, usable, looks))
            if cold:
                break
        for kind in ("free", "cold"):
            unknown = line.groups.get((kind, UNKNOWN))
            if unknown is not None:
                found += unknown.draw(rng, SOME_UNKNOWN, usable, looks)
        for bucket in line.buckets.get("cold busy", ()):
            if len(found) >= FEW:
                break
            found += line.groups["cold busy", bucket].draw(rng, FEW, usable, looks)
        sure = bool(found)
        doubtful = line.groups.get(("doubtful", 0))
        if doubtful is not None:
            found += doubtful.draw(rng, SOME_DOUBTFUL if sure else len(doubtful), usable)
        if not sure and reserved:
            return self.candidates(call, rng)  # so that all are looked at before none is found
        if not sure:
            found += self._out_of_question(call, line, rng)
        return list({node.key: node for node in found}.values())

    def _cached(self, call: CallShape, usable: Callable[[NodeState], bool]) -> list[NodeState]:
        """Return those whose cache holds most of the prompt."""
        if not call.cached:
            return []
        best = sorted(call.cached, key=call.cached.__getitem__, reverse=True)[:SOME_CACHED]
        nodes = [node for key in best if (node := self._nodes.get(key)) is not None]
        states = [(node, node.models.get(call.model)) for node in nodes]
        return [node for node, state in states if state is not None and not state.refused_until and usable(node)]

    def _out_of_question(self, call: CallShape, line: _Line, rng: Random) -> list[NodeState]:
        """Return all that have failed the call before (they may get it again), and some of the rest.

        Nodes that were never reached are among them: they may have the model.
        """
        found = [self._nodes[key] for key in call.tried if key in line.places]
        able = _able(call)
        for group in line.groups.values():
            found += group.draw(rng, SOME_OUT, able) or group.draw(rng, SOME_OUT, _any)
        if self._unreached or not found:
            found += islice((self._unreached or self._nodes).values(), SOME_OUT)
        return found

    def _line(self, model: str) -> _Line:
        line = self._lines.get(model)
        if line is None:
            line = self._lines[model] = _Line()
            for node in self._nodes.values():
                state = node.models.get(model)
                if state is not None:
                    line.put(node, _place(node, state))
        return line


def _place(node: NodeState, state: ModelState) -> _RawPlace:
    """Return where a node belongs."""
    cap = node.cap
    if cap <= 0:
        return ("closed", 0, 0.0)
    if state.refused_until:
        return ("doubtful", 0, 0.0)
    bucket = UNKNOWN
    rates = state.rates
    if rates.samples:
        seconds = rates.seconds(TYPICAL_PROMPT, TYPICAL_OUTPUT) / node.trust
        if node.elsewhere:
            seconds *= 1.0 + overfull(node)
        if seconds > 0.0:
            bucket = int(log(seconds) // BUCKET_WIDTH)
    if node.in_flight < cap:
        return ("free" if state.resident else "cold", bucket, 0.0)
    if state.resident:
        return ("busy", bucket, node.ends[len(node.ends) - cap])
    return ("cold busy", bucket, 0.0)


def _filter(call: CallShape, reserved: Container[int]) -> Callable[[NodeState], bool]:
    """Return what tells whether a node that has the call's model can take it, now or later."""
    model, needs, tried, num_ctx = call.model, call.needs, call.tried, call.num_ctx

    def usable(node: NodeState) -> bool:
        if node.key in tried or node.cap <= 0 or node.key in reserved:
            return False
        state = node.models[model]
        if needs and state.capabilities is not None and not needs <= state.capabilities:
            return False
        return node.memory_bytes is None or can_hold(node, state, num_ctx)

    return usable


def _able(call: CallShape) -> Callable[[NodeState], bool]:
    """Return what tells whether a node's model has the capabilities that the call needs."""
    model, needs = call.model, call.needs

    def able(node: NodeState) -> bool:
        capabilities = node.models[model].capabilities
        return capabilities is None or needs <= capabilities

    return able


def _any(_node: NodeState) -> bool:
    return True


def _free(line: _Line, rng: Random, usable: Callable[[NodeState], bool]) -> tuple[list[NodeState], int]:
    """Return some free nodes of the fastest buckets in which there is anybody, and the fastest of these buckets."""
    found: list[NodeState] = []
    fastest = UNKNOWN + 1
    for bucket in line.buckets.get("free", ()):
        drawn = line.groups["free", bucket].draw(rng, FREE_OF_EACH, usable)
        if drawn:
            fastest = min(fastest, bucket)
            found += drawn
            if len(found) >= ENOUGH_FREE:
                break
    return found, fastest


def _busy(line: _Line, fastest: int, rng: Random, usable: Callable[[NodeState], bool], looks: int) -> list[NodeState]:
    """Return some busy nodes that are faster than the ``fastest`` free one, and will soon have a place."""
    found: list[NodeState] = []
    for bucket in line.buckets.get("busy", ()):
        if bucket >= fastest or len(found) >= MOST_BUSY:
            break
        found += line.groups["busy", bucket].draw(rng, BUSY_OF_EACH, usable, looks)
    return found
