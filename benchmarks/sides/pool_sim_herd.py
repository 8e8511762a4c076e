"""Several schedulers share the same machines, and know nothing of each other, or tell each other their calls."""

from __future__ import annotations

import random
from typing import Any

from sides.pool_sim_scheduler import Ours, Simple
from sides.pool_sim_world import Clock, SimCall, Source, jain, make_machines, make_models, quantile

SCHEDULERS = 8
MODELS = 2
LOAD = 0.6
POLL_SECONDS = 1.0
WARM_UP = 0.25
SHARED = "ours, shared"
POLICIES = (SHARED, "ours", "ours, first of equals", "round robin", "random", "least connections", "two choices")


class FirstOfEquals(random.Random):
    """Draws nothing: always the first. It shows what drawing among equals is good for."""

    def random(self) -> float:
        """Return 0."""
        return 0.0


class Herd:
    """A run of one policy. Every policy gets the same machines and, as far as chance goes, the same calls."""

    def __init__(self, policy: str, nodes: int, calls: int, *, even: bool, seed: int = 8) -> None:
        self._clock = Clock()
        self._rng = random.Random(seed)
        models = make_models(MODELS)
        rng = random.Random(seed + 1)
        self._machines = make_machines(nodes, models, self._clock, rng, each=MODELS, limits=(1,) if even else (1, 2))
        for machine in self._machines:
            machine.memory = sum(machine.sizes.values())
            machine.resident.update(machine.sizes)
            if even:
                machine.speed = 4
        self._source = Source(models, random.Random(seed + 2))
        capacity = sum(machine.speed * machine.limit for machine in self._machines)
        self._per_second = LOAD * capacity / self._source.mean_work()
        self._calls = calls
        self._schedulers = [self._scheduler(policy, seed + 10 + at) for at in range(SCHEDULERS)]
        self._arrived = self._served = 0
        self._responses: list[float] = []
        self._looks: list[tuple[float, float]] = []

    def run(self) -> dict[str, Any]:
        """Return the figures of all but the first quarter of the run, in which the speeds are learned."""
        self._arrive()
        self._clock.at(POLL_SECONDS, self._poll)
        self._clock.run()
        if self._served != self._calls:
            raise AssertionError(f"{self._served} of {self._calls} calls were served")
        ordered = sorted(self._responses)
        return {
            "response_seconds": {
                "mean": round(sum(ordered) / len(ordered), 2),
                "p50": round(quantile(ordered, 0.5), 2),
                "p99": round(quantile(ordered, 0.99), 2),
            },
            "longest_over_mean_queue": round(sum(most / mean for most, mean in self._looks) / len(self._looks), 2),
            "longest_queue_a_place": round(sum(most for most, _ in self._looks) / len(self._looks), 2),
            "mean_queue_a_place": round(sum(mean for _, mean in self._looks) / len(self._looks), 2),
            "jain_work_a_speed": round(jain([machine.work for machine in self._machines]), 3),
        }

    def _scheduler(self, policy: str, seed: int) -> Ours | Simple:
        if policy == SHARED:
            return Ours(self._machines, self._clock, random.Random(seed), self._ended, tell=self._tell)
        if policy == "ours":
            return Ours(self._machines, self._clock, random.Random(seed), self._ended)
        if policy.startswith("ours"):
            return Ours(self._machines, self._clock, FirstOfEquals(), self._ended)
        return Simple(policy, self._machines, self._clock, random.Random(seed), self._ended)

    def _tell(self, teller: Ours, key: int, more: int) -> None:
        for scheduler in self._schedulers:
            if isinstance(scheduler, Ours) and scheduler is not teller:
                scheduler.told(key, more)

    def _arrive(self) -> None:
        call = self._source.call(self._clock.now)
        self._schedulers[self._rng.randrange(SCHEDULERS)].submit(call)
        self._arrived += 1
        if self._arrived < self._calls:
            self._clock.at(self._clock.now + self._rng.expovariate(self._per_second), self._arrive)

    def _poll(self) -> None:
        """Let each scheduler read what the nodes say, and look at the queues oneself."""
        for scheduler in self._schedulers:
            scheduler.polled()
        if self._calls * WARM_UP < self._arrived < self._calls:
            queues = [(machine.busy + len(machine.queue)) / machine.limit for machine in self._machines]
            self._looks.append((max(queues), sum(queues) / len(queues)))
        if self._arrived < self._calls:
            self._clock.at(self._clock.now + POLL_SECONDS, self._poll)

    def _ended(self, call: SimCall) -> None:
        self._served += 1
        if call.number > self._calls * WARM_UP:
            self._responses.append(self._clock.now - call.arrived)


def herd(nodes: int, calls: int) -> dict[str, Any]:
    """Return each policy's figures, on machines of speed 1 to 8 and on machines that are all alike."""
    figures: dict[str, Any] = {"schedulers": SCHEDULERS, "nodes": nodes, "calls": calls, "load": LOAD}
    for what, even in (("speeds 1 to 8", False), ("all alike", True)):
        figures[what] = {policy: Herd(policy, nodes, calls, even=even).run() for policy in POLICIES}
    return figures
