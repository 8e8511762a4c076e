"""The search behind the placement: which devices, in which order, with how many layers. Numbers in, numbers out.

A placement is a row of devices that take the layers in order, each a contiguous range of at least one; the last has
the output as well, and may have only that. Its cost is the sum of what its devices cost, which depends on the range,
on being the first and on being the last, and on nothing else.

Up to :data:`EXACT_DEVICES` devices the search is exact: dynamic programming over the set of devices that have come so
far and the layers that they hold (Held and Karp's, for paths). For more, the devices between the first and the last
keep one fixed order, the fastest first, and all pairs of a first and a last one are tried: exact as well where layers
are alike, because order then matters for the first and the last only. What it finds is searched again exactly.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EXACT_DEVICES: Final = 9
MOST_DEVICES: Final = 15
"""ggml's scheduler takes 16 backends, and the coordinator's CPU is one of them."""
_INFINITE: Final = float("inf")
_ALIKE: Final = 1e-9
"""Costs that differ by less than this part of them differ by rounding only."""
_LEAST_TO_GIVE: Final = 2  # layers


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchDevice:
    """A device as the search sees it.

    Attributes:
        layer_cost: Seconds a token spends in each layer.
        fixed: Seconds that a token costs there, whatever layers it has.
        first: Seconds in addition if it is the first.
        last: Seconds in addition if it is the last, the output included.
        room: Bytes that layers may take there.
        room_first: The same if it is the first.
        room_last: The same if it is the last.
        room_alone: The same if it is the only one.
        exact: How many layers it must have; ``None`` for any number, or for not being used.
    """

    layer_cost: tuple[float, ...]
    fixed: float
    first: float
    last: float
    room: int
    room_first: int
    room_last: int
    room_alone: int
    exact: int | None = None


class Stage(NamedTuple):
    """A candidate's number, and how many layers it gets."""

    candidate: int
    layers: int


class Found(NamedTuple):
    """A placement, and what a token costs in it, in seconds."""

    cost: float
    stages: tuple[Stage, ...]


def fits_alone(candidate: SearchDevice, layer_bytes: Sequence[int]) -> bool:
    """Return whether a device can take the whole model, and may."""
    return candidate.exact in (None, len(layer_bytes)) and sum(layer_bytes) <= candidate.room_alone


def search(candidates: Sequence[SearchDevice], layer_bytes: Sequence[int]) -> Found | None:
    """Return the placement that costs least, of those alike the one of fewer devices; ``None`` if nothing fits.

    A device that can take the whole model is only ever used alone.

    Args:
        candidates: The devices, those that come first preferred where nothing else decides.
        layer_bytes: What each layer takes in memory.
    """
    forced = [index for index, candidate in enumerate(candidates) if candidate.exact is not None]
    best: Found | None = None
    several: list[int] = []
    for index, candidate in enumerate(candidates):
        if not fits_alone(candidate, layer_bytes) or forced not in ([], [index]):
            several.append(index)
        else:
            cost = candidate.fixed + candidate.first + candidate.last + sum(candidate.layer_cost)
            best = _better(best, Found(cost, (Stage(index, len(layer_bytes)),)))
    if not set(forced) <= set(several) or len(forced) > MOST_DEVICES:
        return best
    found = _search_several([candidates[index] for index in several], layer_bytes)
    if found is not None:
        stages = tuple(Stage(several[stage.candidate], stage.layers) for stage in found.stages)
        best = _better(best, _balanced(candidates, layer_bytes, Found(found.cost, stages)))
    return best


def _balanced(candidates: Sequence[SearchDevice], layer_bytes: Sequence[int], found: Found) -> Found:
    """Return the placement with layers moved from fuller devices to emptier neighbours, where that costs nothing.

    Which of several equally fast devices has more is all the same to a token, but not to what is left of the model
    when one of them is lost, nor to those who share their memory with other programs.
    """
    order = [candidates[stage.candidate] for stage in found.stages]
    cuts = [0, *accumulate(stage.layers for stage in found.stages)]
    size = list(accumulate(layer_bytes, initial=0))
    head = order[-1].room - order[-1].room_last
    rooms = [order[0].room_first, *(one.room for one in order[1:-1]), order[-1].room_last]

    def bytes_of(number: int) -> int:
        return size[cuts[number + 1]] - size[cuts[number]]

    def load(number: int) -> int:
        return bytes_of(number) + (head if number == len(order) - 1 else 0)

    def moved(left: int, step: int) -> bool:
        """Move a layer over the cut behind a stage, to the right (-1) or to the left (+1), if that is better."""
        giver, taker = (left, left + 1) if step < 0 else (left + 1, left)
        if cuts[giver + 1] - cuts[giver] < _LEAST_TO_GIVE:
            return False
        layer = cuts[left + 1] - (step < 0)
        if order[taker].layer_cost[layer] - order[giver].layer_cost[layer] > _ALIKE * abs(found.cost):
            return False
        if bytes_of(taker) + layer_bytes[layer] > rooms[taker] or load(taker) + layer_bytes[layer] >= load(giver):
            return False
        cuts[left + 1] += step
        return True

    lefts = [left for left in range(len(order) - 1) if order[left].exact is None and order[left + 1].exact is None]
    while any(moved(left, step) for left in lefts for step in (-1, 1)):
        pass
    stages = (Stage(stage.candidate, cuts[at + 1] - cuts[at]) for at, stage in enumerate(found.stages))
    return Found(found.cost, tuple(stages))


def _search_several(candidates: Sequence[SearchDevice], layer_bytes: Sequence[int]) -> Found | None:
    """Return the best placement of two devices or more."""
    tables = [_Table(candidate, layer_bytes) for candidate in candidates]
    if len(tables) <= EXACT_DEVICES:
        return _exact(tables)
    for kept in _selections(candidates):
        if sum(max(candidates[index].room, candidates[index].room_last, 0) for index in kept) < sum(layer_bytes):
            continue
        rough = _in_fixed_order([tables[index] for index in kept])
        if rough is None:
            continue
        if len(rough.stages) > EXACT_DEVICES:
            return _renamed(rough, kept)
        used = sorted(kept[stage.candidate] for stage in rough.stages)
        fine = _exact([tables[index] for index in used])
        found = _renamed(rough, kept)
        return found if fine is None else _better(found, _renamed(fine, used))
    return None


def _selections(candidates: Sequence[SearchDevice]) -> Iterator[list[int]]:
    """Yield which devices to try, at most as many as may be used: the fastest, then ever larger ones instead."""
    forced = [index for index, candidate in enumerate(candidates) if candidate.exact is not None]
    free = sorted(set(range(len(candidates))) - set(forced), key=lambda index: (_speed(candidates[index]), index))
    count = MOST_DEVICES - len(forced)
    kept, others = free[:count], free[count:]
    yield sorted(forced + kept)
    for other in others:
        smallest = min(kept, key=lambda index: candidates[index].room, default=None)
        if smallest is not None and candidates[smallest].room < candidates[other].room:
            kept[kept.index(smallest)] = other
            yield sorted(forced + kept)


def _speed(candidate: SearchDevice) -> float:
    return sum(candidate.layer_cost)


def _renamed(found: Found, names: Sequence[int]) -> Found:
    return Found(found.cost, tuple(Stage(names[stage.candidate], stage.layers) for stage in found.stages))


def _better(a: Found | None, b: Found) -> Found:
    if a is None:
        return b
    return min(a, b, key=lambda found: (found.cost, len(found.stages)))


class _Table:
    """A candidate with sums over the layers in front of each, so that a range costs one subtraction."""

    def __init__(self, candidate: SearchDevice, layer_bytes: Sequence[int]) -> None:
        self.candidate = candidate
        self.count = len(layer_bytes)
        self.cost = list(accumulate(candidate.layer_cost, initial=0.0))
        size = list(accumulate(layer_bytes, initial=0))
        self.earliest = self._starts(size, candidate.room)
        """For each end of a range, the lowest start with which its layers fit; past the end where none fits."""
        self.earliest_last = self._starts(size, candidate.room_last)[-1]
        self.most_first = self._most(size, candidate.room_first)

    def _starts(self, size: list[int], room: int) -> list[int]:
        return [bisect_left(size, total - room) for total in size] if room >= 0 else [self.count + 1] * len(size)

    def _most(self, size: list[int], room: int) -> int:
        return sum(total <= room for total in size) - 1

    def as_first(self) -> list[float]:
        """Return, for each number of layers, what it costs as the first that has them."""
        candidate = self.candidate
        costs = [_INFINITE] * (self.count + 1)
        for layers in range(1, self.most_first + 1):
            if candidate.exact in (None, layers):
                costs[layers] = candidate.fixed + candidate.first + self.cost[layers]
        return costs

    def extend(self, before: list[float]) -> tuple[list[float], list[int]]:
        """Return what all layers up to each cost if this device has the last of them, and where its range begins.

        ``before`` is what they cost up to each layer without it.
        """
        candidate, cost = self.candidate, self.cost
        costs, starts = [_INFINITE] * (self.count + 1), [0] * (self.count + 1)
        if candidate.exact is not None:
            for start in range(1, self.count + 1 - candidate.exact):
                end = start + candidate.exact
                if before[start] < _INFINITE and start >= self.earliest[end]:
                    costs[end] = before[start] + candidate.fixed + cost[end] - cost[start]
                    starts[end] = start
            return costs, starts
        window: deque[tuple[float, int]] = deque()  # starts that may still be the best, the best one first
        for end in range(2, self.count + 1):
            if before[end - 1] < _INFINITE:
                value = before[end - 1] - cost[end - 1]
                while window and window[-1][0] > value:
                    window.pop()
                window.append((value, end - 1))
            while window and window[0][1] < self.earliest[end]:
                window.popleft()
            if window:
                costs[end] = window[0][0] + cost[end] + candidate.fixed
                starts[end] = window[0][1]
        return costs, starts

    def finish(self, before: list[float]) -> tuple[float, int]:
        """Return what everything costs if this device is the last, and where its range begins."""
        candidate, best = self.candidate, (_INFINITE, 0)
        for start in range(max(self.earliest_last, 1), self.count + 1):
            if before[start] < _INFINITE and candidate.exact in (None, self.count - start):
                total = before[start] + candidate.fixed + candidate.last + self.cost[-1] - self.cost[start]
                best = min(best, (total, start))
        return best


class _Part(NamedTuple):
    """The cheapest ways to hold the first layers with a certain set of devices, for each number of layers."""

    costs: list[float]
    device: list[int]
    start: list[int]


def _exact(tables: Sequence[_Table]) -> Found | None:
    """Return the best placement of two devices or more over all their sets and orders."""
    everything = (1 << len(tables)) - 1
    forced = sum(1 << index for index, table in enumerate(tables) if table.candidate.exact is not None)
    parts: dict[int, _Part] = {}
    best: tuple[float, int, int, int] | None = None  # cost, set before the last, the last, its start
    for chosen in sorted(range(1, everything + 1), key=int.bit_count):
        part = _part(tables, parts, chosen)
        if part is None:
            continue
        parts[chosen] = part
        for last, table in enumerate(tables):
            bit = 1 << last
            if chosen & bit or forced & ~(chosen | bit):
                continue
            cost, start = table.finish(part.costs)
            if cost < _INFINITE and (best is None or cost < best[0] * (1 - _ALIKE)):
                best = (cost, chosen, last, start)
    if best is None:
        return None
    cost, chosen, last, start = best
    stages = [Stage(last, tables[0].count - start)]
    while chosen:
        device, begin = parts[chosen].device[start], parts[chosen].start[start]
        stages.append(Stage(device, start - begin))
        chosen, start = chosen & ~(1 << device), begin
    return Found(cost, tuple(reversed(stages)))


def _part(tables: Sequence[_Table], parts: dict[int, _Part], chosen: int) -> _Part | None:
    """Return the cheapest ways to use exactly the devices of a set; ``None`` if there is none."""
    count = tables[0].count
    part = _Part([_INFINITE] * (count + 1), [-1] * (count + 1), [0] * (count + 1))
    for device, table in reversed(list(enumerate(tables))):
        rest = chosen & ~(1 << device)
        if not chosen >> device & 1 or (rest and rest not in parts):
            continue
        costs, starts = table.extend(parts[rest].costs) if rest else (table.as_first(), part.start)
        for layers, cost in enumerate(costs):
            if cost < part.costs[layers] * (1 - _ALIKE):
                part.costs[layers], part.device[layers] = cost, device
                part.start[layers] = starts[layers] if rest else 0
    return part if min(part.costs) < _INFINITE else None


def _in_fixed_order(tables: Sequence[_Table]) -> Found | None:
    """Return the best placement whose devices between the first and the last are in order of speed."""
    order = sorted(range(len(tables)), key=lambda index: (_speed(tables[index].candidate), index))
    best: Found | None = None
    for first in order:
        start = tables[first].as_first()
        if min(start) == _INFINITE:
            continue
        for last in order:
            if last == first:
                continue
            between = [index for index in order if index not in (first, last)]
            found = _chain(tables, (first, between, last), start)
            if found is not None:
                best = _better(best, found)
    return best


def _chain(tables: Sequence[_Table], order: tuple[int, list[int], int], start: list[float]) -> Found | None:
    """Return the best placement of a first and a last device, with any of those between them in their order."""
    first, between, last = order
    costs = start
    history: list[tuple[int, list[int | None]]] = []  # a device, and where its range begins if it has the last layer
    for device in between:
        table = tables[device]
        with_it, starts = table.extend(costs)
        if table.candidate.exact is None:
            used: list[int | None] = [
                begin if cost < without else None for cost, without, begin in zip(with_it, costs, starts, strict=True)
            ]
            costs = [min(cost, without) for cost, without in zip(with_it, costs, strict=True)]
        else:
            used, costs = list(starts), with_it
        history.append((device, used))
    cost, begin = tables[last].finish(costs)
    if cost == _INFINITE:
        return None
    stages = [Stage(last, tables[last].count - begin)]
    for device, used in reversed(history):
        at = used[begin]
        if at is not None:
            stages.append(Stage(device, begin - at))
            begin = at
    stages.append(Stage(first, begin))
    return Found(cost, tuple(reversed(stages)))
