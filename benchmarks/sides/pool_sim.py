"""One million calls over ten thousand nodes, by one scheduler: throughput, use, waiting, fairness."""

from __future__ import annotations

import gc
import random
import time
from dataclasses import dataclass
from typing import Any

from sides.pool_sim_scheduler import Ours
from sides.pool_sim_world import Clock, SimCall, Source, jain, make_machines, make_models, quantile

USERS = 20
MODELS = 8
QUANTILES = (0.5, 0.9, 0.99, 1.0)
SERIES = 120
CURVE = 200
RECONSIDER_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Load:
    """How much of the capacity is asked for: ``usual``, and ``burst`` of it between two parts of the calls."""

    usual: float = 0.8
    burst: float = 1.3
    burst_from: float = 0.5
    burst_to: float = 0.65


class LargeRun:
    """The run.

    Args:
        nodes: How many machines.
        calls: How many calls.
        load: How fast they come.

    """

    def __init__(self, nodes: int, calls: int, load: Load, seed: int = 4) -> None:
        self._rng = random.Random(seed)
        self._clock = Clock()
        models = make_models(MODELS)
        self._machines = make_machines(nodes, models, self._clock, self._rng, each=4, limits=(1, 1, 1, 2, 4))
        self._source = Source(models, self._rng, users=USERS)
        self._capacity = sum(machine.speed * machine.limit for machine in self._machines)
        self._places = sum(machine.limit for machine in self._machines)
        self._per_second = self._capacity / self._source.mean_work()
        self._calls, self._load = calls, load
        rng = random.Random(seed + 1)
        self._scheduler = Ours(self._machines, self._clock, rng, self._ended, reconsider=RECONSIDER_SECONDS)
        self._arrived = self._served = 0
        self._busy_seconds = 0.0
        self._waits: dict[str, list[float]] = {"interactive": [], "run": [], "batch": []}
        self._service: dict[tuple[str, object], list[float]] = {}
        self._cold = self._prompt_tokens = 0
        self._response = 0.0
        self._series: list[dict[str, float]] = []
        self._last = (0.0, 0.0, 0, 0)
        self._arrivals_end = 0.0

    def run(self) -> dict[str, Any]:
        """Let it happen, and return the figures."""
        gc.collect()
        gc.disable()  # nothing here is freed by it, and all the nodes would be looked through again and again
        begin = time.process_time()
        try:
            self._arrive()
            self._clock.run()
        finally:
            gc.enable()
        seconds = time.process_time() - begin
        if self._served != self._calls or self._scheduler.waiting or any(m.busy or m.queue for m in self._machines):
            raise AssertionError(f"{self._served} of {self._calls} calls were served")
        if over := [machine.key for machine in self._machines if machine.most > machine.limit]:
            raise AssertionError(f"machines {over[:5]} had more calls than they take")
        return self._figures(seconds)

    def _arrive(self) -> None:
        part = self._arrived / self._calls
        load = self._load
        share = load.burst if load.burst_from <= part < load.burst_to else load.usual
        self._scheduler.submit(self._source.call(self._clock.now))
        self._arrived += 1
        if self._arrived * SERIES // self._calls != len(self._series):
            self._look(share)
        if self._arrived < self._calls:
            self._clock.at(self._clock.now + self._rng.expovariate(self._per_second * share), self._arrive)
        else:
            self._arrivals_end = self._clock.now

    def _look(self, offered: float) -> None:
        """Note how things are, and how they were on average since the last look."""
        now = self._clock.now
        busy = sum(machine.busy * machine.speed for machine in self._machines) / self._capacity
        self._series.append(
            {
                "at": round(now, 2),
                "offered": offered,
                "busy": round(busy, 4),
                "places": round(sum(machine.busy for machine in self._machines) / self._places, 4),
                "waiting": len(self._scheduler.waiting),
            }
        )

    def _ended(self, call: SimCall) -> None:
        if call.served != 1:
            raise AssertionError(f"call {call.number} was served {call.served} times")
        self._served += 1
        wait = call.granted - call.arrived
        self._waits[call.kind].append(wait)
        self._response += wait + call.load + call.seconds
        self._cold += call.load > 0
        self._prompt_tokens += call.prompt
        self._busy_seconds += call.seconds + call.load
        for key in (("user", call.user), ("model", call.model)):
            sums = self._service.get(key)
            if sums is None:
                sums = self._service[key] = [0.0, 0.0]
            sums[0] += call.seconds
            sums[1] += call.seconds + call.load + wait

    def _figures(self, seconds: float) -> dict[str, Any]:
        virtual = self._clock.now
        steady = [one for one in self._series if one["offered"] == self._load.usual][len(self._series) // 5 :]
        burst = [one["busy"] for one in self._series if one["offered"] == self._load.burst]
        picks, pick_seconds = self._scheduler.picks, self._scheduler.pick_seconds
        return {
            "nodes": len(self._machines),
            "calls": self._calls,
            "processor_seconds": round(seconds, 1),
            "virtual_seconds": round(virtual, 1),
            "calls_a_virtual_second": round(self._calls / self._arrivals_end, 1),
            "capacity_calls_a_second": round(self._per_second, 1),
            "picks": picks,
            "microseconds_a_pick": round(pick_seconds / picks * 1e6, 1),
            "picks_a_second": round(picks / pick_seconds),
            "busy_at_usual_load": round(sum(one["busy"] for one in steady) / max(len(steady), 1), 3),
            "busy_in_burst_at_most": max(burst, default=0.0),
            "mean_response_seconds": round(self._response / self._calls, 2),
            "cold_starts_percent": round(100 * self._cold / self._calls, 2),
            "prompt_tokens_from_cache_percent": round(
                100 * sum(machine.saved_tokens for machine in self._machines) / self._prompt_tokens, 1
            ),
            "jain_users": self._jain("user"),
            "jain_models": self._jain("model"),
            "most_calls_over_cap": max(machine.most - machine.limit for machine in self._machines),
            "wait_seconds": {kind: _quantiles(waits) for kind, waits in self._waits.items()},
            "wait_curve": {kind: _curve(waits) for kind, waits in self._waits.items()},
            "series": self._series,
        }

    def _jain(self, what: str) -> float:
        shares = [service / whole for (kind, _), (service, whole) in self._service.items() if kind == what]
        return round(jain(shares), 4)


def _quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {f"p{share * 100:g}": round(quantile(ordered, share), 3) for share in QUANTILES}


def _curve(values: list[float]) -> list[float]:
    """Return the wait that each 200th of the calls does not exceed."""
    ordered = sorted(values)
    return [round(quantile(ordered, at / CURVE), 3) for at in range(CURVE + 1)]
