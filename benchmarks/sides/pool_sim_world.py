"""The simulated machines and calls: what is true of them, whatever a scheduler thinks."""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from synaptic.backends.pool.learned.rates import Sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

PROMPT_RATE = 100.0
OUTPUT_RATE = 10.0
"""Tokens a second of a machine of speed 1."""

OVERHEAD = 0.02
LOAD_RATE = 500e6
GB = 10**9
PRIORITIES = {"interactive": 2, "run": 1, "batch": 0}
KINDS = tuple(PRIORITIES)
KIND_WEIGHTS = (0.2, 0.8, 1.0)
SHARED_BLOCKS = 4
BLOCK_TOKENS = 128


@dataclass(frozen=True, slots=True)
class Model:
    """A model: its name, its bytes, and its share of the calls."""

    name: str
    size: int
    weight: float


@dataclass(slots=True, eq=False)
class SimCall:
    """One call.

    Attributes:
        output: What it will really produce; ``expected`` is what its sender believes.
        shared: Tokens at the beginning of its prompt that all calls of its user share.

    """

    number: int
    user: int
    model: str
    kind: str
    prompt: int
    output: int
    expected: int
    shared: int
    arrived: float
    chain: tuple[int, ...] = ()
    granted: float = -1.0
    started: float = -1.0
    seconds: float = 0.0
    load: float = 0.0
    served: int = 0


class Clock:
    """The events to come."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count()

    def at(self, when: float, what: Callable[..., None], *arguments: Any) -> None:
        """Have ``what`` called at the time ``when``."""
        heapq.heappush(self._events, (when, next(self._numbers), what, arguments))

    def run(self) -> None:
        """Let everything happen."""
        events = self._events
        while events:
            self.now, _, what, arguments = heapq.heappop(events)
            what(*arguments)


@dataclass(slots=True, eq=False)
class Machine:
    """One node as it is: it serves ``limit`` calls at once, the rest queue at it, first come, first served.

    Attributes:
        memory: Bytes for models; the one that was not used for longest makes room.
        resident: Model -> bytes, the latest used last.
        most_running: The most calls that it had at once; a scheduler that is alone never lets any queue.

    """

    key: int
    speed: float
    limit: int
    memory: int
    sizes: dict[str, int]
    clock: Clock
    rng: Random
    resident: OrderedDict[str, int] = field(default_factory=OrderedDict)
    loading: dict[str, float] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)
    busy: int = 0
    queue: deque[tuple[SimCall, Callable[..., None]]] = field(default_factory=deque)
    last_user: dict[str, int] = field(default_factory=dict)
    work: float = 0.0
    most: int = 0
    saved_tokens: int = 0

    def take(self, call: SimCall, done: Callable[..., None]) -> None:
        """Serve ``call`` now or when there is a place; ``done(call, sample)`` is called at its end."""
        self.most = max(self.most, self.busy + len(self.queue) + 1)
        if self.busy < self.limit:
            self._start(call, done)
        else:
            self.queue.append((call, done))

    def _start(self, call: SimCall, done: Callable[..., None]) -> None:
        now = self.clock.now
        model = call.model
        self.busy += 1
        self.running[model] = self.running.get(model, 0) + 1
        load = self._load(model)
        cached = call.shared if self.last_user.get(model) == call.user and not load else 0
        self.last_user[model] = call.user
        noise = self.rng.lognormvariate(0.0, 0.1) / self.speed
        prompt = (call.prompt - cached) / PROMPT_RATE * noise
        output = call.output / OUTPUT_RATE * noise
        self.saved_tokens += cached
        call.started, call.load, call.seconds = now, load, OVERHEAD + prompt + output
        self.work += call.seconds
        waited = now - call.granted
        first = waited + load + OVERHEAD + prompt
        sample = Sample(first, first + output, call.prompt - cached, call.output, load, prompt, output)
        self.clock.at(now + load + call.seconds, self._end, call, done, sample)

    def _load(self, model: str) -> float:
        """Return how long the model is still being loaded; 0 if it is in memory."""
        now = self.clock.now
        ready = self.loading.get(model, 0.0)
        if model in self.resident:
            self.resident.move_to_end(model)
            return max(0.0, ready - now)
        need = self.sizes[model]
        while self.resident and sum(self.resident.values()) + need > self.memory:
            idle = next((name for name in self.resident if not self.running.get(name)), None)
            if idle is None:
                break
            del self.resident[idle]
            self.last_user.pop(idle, None)
        self.resident[model] = need
        load = need / LOAD_RATE * self.rng.uniform(0.7, 1.5)
        self.loading[model] = now + load
        return load

    def _end(self, call: SimCall, done: Callable[..., None], sample: Sample) -> None:
        self.busy -= 1
        self.running[call.model] -= 1
        call.served += 1
        if self.queue and self.busy < self.limit:
            self._start(*self.queue.popleft())
        done(call, sample)


def make_models(count: int) -> list[Model]:
    """Return models of 2 to 8 GB, each half as popular as the one before the last."""
    return [Model(f"model-{at}", (2 + at % 4 * 2) * GB, 0.75**at) for at in range(count)]


def make_machines(
    count: int, models: list[Model], clock: Clock, rng: Random, *, each: int, limits: tuple[int, ...]
) -> list[Machine]:
    """Return machines of speed 1 to 8, each with ``each`` of the models on disk and room for one or two of them."""
    machines = []
    weights = [model.weight for model in models]
    for key in range(count):
        own: dict[str, int] = {}
        while len(own) < each:
            model = rng.choices(models, weights)[0]
            own[model.name] = model.size
        machine = Machine(key, rng.randint(1, 8), rng.choice(limits), rng.choice((8, 12)) * GB, own, clock, rng)
        first = next(iter(own))
        machine.resident[first] = own[first]
        machines.append(machine)
    return machines


class Source:
    """Makes the calls.

    Args:
        users: Whose calls begin alike; the first has a fifth of the calls, the last a fiftieth.

    """

    def __init__(self, models: list[Model], rng: Random, *, users: int = 20) -> None:
        self._models = [model.name for model in models]
        self._weights = list(itertools.accumulate(model.weight for model in models))
        self._users = range(users)
        self._user_weights = list(itertools.accumulate(1.0 / (user + 2) for user in self._users))
        self._rng = rng
        self._count = 0

    def call(self, now: float) -> SimCall:
        """Return a new call: prompts of about 900 tokens and replies of about 250, a few of them very long."""
        rng = self._rng
        user = rng.choices(self._users, cum_weights=self._user_weights)[0]
        shared = SHARED_BLOCKS * BLOCK_TOKENS
        expected = min(4000, max(10, int(rng.lognormvariate(5.2, 0.8))))
        kind = rng.choices(KINDS, cum_weights=KIND_WEIGHTS)[0]
        self._count += 1
        return SimCall(
            self._count,
            user,
            rng.choices(self._models, cum_weights=self._weights)[0],
            kind,
            prompt=shared + min(8000, int(rng.lognormvariate(5.8, 0.7))),
            output=max(1, int(expected * rng.lognormvariate(-0.045, 0.3))),
            expected=expected,
            shared=shared,
            arrived=now,
            chain=tuple(user * 1000 + block for block in range(1, SHARED_BLOCKS + 1)),
        )

    def mean_work(self, samples: int = 20_000) -> float:
        """Return the seconds that a call takes a machine of speed 1, on average."""
        calls = [self.call(0.0) for _ in range(samples)]
        self._count = 0
        return sum(OVERHEAD + call.prompt / PROMPT_RATE + call.output / OUTPUT_RATE for call in calls) / samples


def jain(values: list[float]) -> float:
    """Return Jain's index of fairness: 1 if all are alike, 1/n if one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def quantile(ordered: list[float], share: float) -> float:
    """Return the value that ``share`` of the sorted values do not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
