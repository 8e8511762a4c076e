"""How long a fixed set of calls takes over unequal nodes, against the bound that no scheduler can beat."""

from __future__ import annotations

import random
from typing import Any

from sides.pool_sim_scheduler import Ours, Simple
from sides.pool_sim_world import GB, OVERHEAD, Clock, Machine, SimCall, Source, make_models
from synaptic.backends.pool.learned.rates import Sample

CALLS = 200
SPEEDS = (1, 2, 4, 8)
SEEDS = 20
POLICIES = ("ours", "ours, sizes unknown", "ours, speeds unknown", "least connections", "round robin")
WARM_UPS = 20


class _Still(random.Random):
    """A world without noise: what is measured is the order, not luck."""

    def lognormvariate(self, mu: float = 0.0, sigma: float = 1.0) -> float:  # noqa: ARG002
        """Return 1."""
        return 1.0


class _Makespan:
    """All calls are there at the start; the nodes serve one at a time."""

    def __init__(self, policy: str, seed: int) -> None:
        clock = self._clock = Clock()
        (model,) = models = make_models(1)
        self._machines = [
            Machine(key, speed, 1, 8 * GB, {model.name: model.size}, clock, _Still())
            for key, speed in enumerate(SPEEDS)
        ]
        for machine in self._machines:
            machine.resident[model.name] = model.size
        source = Source(models, random.Random(seed), users=1)
        self._calls = [source.call(0.0) for _ in range(CALLS)]
        mean = round(sum(call.output for call in self._calls) / CALLS)
        for call in self._calls:
            call.shared, call.chain = 0, ()
            call.expected = mean if policy == "ours, sizes unknown" else call.output
        self._last = 0.0
        if policy.startswith("ours"):
            self._scheduler: Ours | Simple = Ours(self._machines, clock, random.Random(seed), self._ended)
            if policy != "ours, speeds unknown":
                self._teach(self._scheduler, model.name)
        else:
            self._scheduler = Simple(policy, self._machines, clock, random.Random(seed), self._ended)

    def run(self) -> float:
        """Return the bound over the time until the last call has ended."""
        for call in self._calls:
            self._scheduler.submit(call)
        self._clock.run()
        works = [_work(call) for call in self._calls]
        bound = max(sum(works) / sum(SPEEDS), max(works) / max(SPEEDS))
        return bound / self._last

    def _teach(self, scheduler: Ours, model: str) -> None:
        for node, machine in zip(scheduler.nodes, self._machines, strict=True):
            for _ in range(WARM_UPS):
                first = OVERHEAD + 10 / machine.speed
                sample = Sample(first, first + 10 / machine.speed, 1000, 100, 0.0, 10 / machine.speed)
                node.models[model].rates.learn(sample, 0.0)

    def _ended(self, _call: SimCall) -> None:
        self._last = self._clock.now


def _work(call: SimCall) -> float:
    return call.prompt / 100.0 + call.output / 10.0


def makespan() -> dict[str, Any]:
    """Return the share of the bound that each policy reaches: the mean and the worst of several sets of calls."""
    found: dict[str, Any] = {"calls": CALLS, "speeds": list(SPEEDS), "sets": SEEDS}
    for policy in POLICIES:
        shares = [_Makespan(policy, seed).run() for seed in range(SEEDS)]
        found[policy] = {"mean": round(sum(shares) / SEEDS, 3), "worst": round(min(shares), 3)}
    return found
