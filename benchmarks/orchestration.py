"""What orchestration costs, side by side with LangGraph and pydantic-graph: per step, in shapes of waiting, at load.

Prints one JSON document; progress goes to standard error. Nothing here is asserted about time: goals stand beside the
figures. It fails only if a side fails, or if a run had another number of steps than its graph.

How it is measured. Every side has a process of its own, made from the same Python: ours in this environment, the peers
in one that is made for them (``requirements-orchestration.txt``), since whoever uses a library has its dependencies and
not those of all three. Each case starts fresh processes, so that no side pays for another's, or an earlier case's,
imports and garbage; within a case the processes live on and take turns: only one is ever at work, and another one goes
first each time. The first turn of each warms up and does not count. The collector runs before each turn, and as it
likes in it. ``wall`` is the clock, ``cpu`` the processor time of the side's process: on a quiet machine they are alike
where nothing waits, on a busy one only ``cpu`` says what the side costs. ``min`` is the fastest turn.

What a step is. With the peers: an async function that returns a small text, whose state or output the library passes
on; LangGraph's updates are streamed, pydantic-graph's tasks iterated over. With us: a model call, so more is in it: a
template is rendered, a request built, a reply streamed through the backend's policies and put together, tokens counted,
events told to a listener. ``sides/ours.py`` says which of our layers holds what; ``ours.backend`` is the part of the
scripted backend alone. ``plain_asyncio`` is the floor: dependency counting and nothing else.

Source of the goals: about a tenth of what LangGraph 1.2.22 needed (498 us a step in the chain, 227 in the fan-out).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sides.processes import Side, empty_home, peers_python
from sides.shapes import BRANCHES, CRITICAL, LANES, LIMIT, STEP_SECONDS, contended_bound

if TYPE_CHECKING:
    from collections.abc import Iterable

ALL = ("ours", "langgraph", "pydantic_graph", "plain_asyncio")
MODULES = {"langgraph": "langgraph_side", "pydantic_graph": "pydantic_graph_side", "plain_asyncio": "plain"}
SIZES = (10, 100, 300, 1000, 2000)
CHAIN = 1000
FAN = 200
STREAMED = 64  # the longest list that a model may be asked for
SLOW_FAN = 50
BUILD = 200
FLAT_PERCENT = 20.0
MICRO, MILLI = 1e6, 1e3

Times = dict[str, list[tuple[float, float]]]
"""Seconds of clock and processor of each counted turn, by ``side.layer``."""


@dataclass
class Bench:
    """Runs cases."""

    peers: str
    home: str
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)

    def case(self, case: str, sides: Iterable[str], rounds: int, turns: Iterable[dict[str, Any]]) -> list[Times]:
        """Return the times of each of the turns' parameters, over so many rounds in which the sides take turns."""
        with ExitStack() as stack:
            workers = {name: stack.enter_context(self._start(name)) for name in sides}
            return [self._rounds(case, workers, rounds, parameters) for parameters in turns]

    def _start(self, name: str) -> Side:
        side = Side(MODULES.get(name, name), sys.executable if name == "ours" else self.peers, self.home)
        if side.versions["python"] != platform.python_version():
            raise RuntimeError(f"{name} runs Python {side.versions['python']}, not {platform.python_version()}")
        self.versions[name] = side.versions
        return side

    def _rounds(self, case: str, workers: dict[str, Side], rounds: int, parameters: dict[str, Any]) -> Times:
        begin = time.perf_counter()
        times: Times = {}
        names = list(workers)
        for turn in range(rounds + 1):
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                for layer, lap in workers[name].turn(case, parameters).items():
                    label = f"{name}.{layer}"
                    if turn:
                        times.setdefault(label, []).append(lap)
                    elif label not in self.first:
                        self.first[label] = lap[0]
        told = " ".join(f"{key}={value}" for key, value in parameters.items())
        print(f"{case} {told}: {time.perf_counter() - begin:.1f} s", file=sys.stderr)
        return times


def figures(times: Times, unit: float, per: int = 1) -> dict[str, Any]:
    """Return min and median of clock and processor for each side, and the peers' as multiples of ours.

    A run stands against a run; the whole way from a text stands against building from Python calls and running.
    """
    sides: dict[str, Any] = {}
    for label, laps in times.items():
        walls, cpus = zip(*laps, strict=True)
        sides[label] = {
            clock: {"min": scaled(min(values), unit, per), "median": scaled(statistics.median(values), unit, per)}
            for clock, values in (("wall", walls), ("cpu", cpus))
        }
    ratios = {
        f"{peer} / {own}": {
            f"{clock} {which}": round(sides[peer][clock][which] / sides[own][clock][which], 2)
            for clock in ("wall", "cpu")
            for which in ("min", "median")
        }
        for own, theirs in (("ours.executor", "run"), ("ours.run", "run"), ("ours.whole", "whole"))
        for peer in (f"langgraph.{theirs}", f"pydantic_graph.{theirs}")
        if own in sides and peer in sides
    }
    return {"sides": sides, "ratios": ratios}


def scaled(seconds: float, unit: float, per: int) -> float:
    """Return a time in its unit, by the step."""
    return round(seconds * unit / per, 2)


def against(goal: float, sides: dict[str, Any], label: str) -> dict[str, Any]:
    """Return whether the goal is reached by the fastest turn, and its processor time: what a busy machine leaves."""
    wall, cpu = sides[label]["wall"]["min"], sides[label]["cpu"]["min"]
    return {"goal": goal, "wall": wall, "cpu": cpu, "met": wall <= goal}


def chain(bench: Bench) -> dict[str, Any]:
    """The 1000-step chain, and how its cost per step changes with the length."""
    series = dict(zip(SIZES, bench.case("chain", ALL, 5, [{"steps": size} for size in SIZES]), strict=True))
    main = figures(series[CHAIN], MICRO, CHAIN)
    by_size: dict[str, dict[str, float]] = {}
    for label in series[CHAIN]:
        by_size[label] = {
            str(size): scaled(min(cpu for _, cpu in times[label]), MICRO, size) for size, times in series.items()
        }
    return {
        "chain": {
            "what": f"{CHAIN} steps, one after the other",
            "unit": "us/step",
            "goals": {layer: against(50.0, main["sides"], f"ours.{layer}") for layer in ("executor", "run", "whole")},
            **main,
        },
        "chain_by_size": {
            "what": "the same chain in other lengths; processor time of the fastest turn",
            "unit": "us/step",
            "goal": f"spread of ours within +-{FLAT_PERCENT:g} %",
            "sides": {label: {"sizes": row, **spread(row)} for label, row in by_size.items()},
        },
    }


def spread(row: dict[str, float]) -> dict[str, float]:
    """Return how far a series is from flat."""
    high, low = max(row.values()), min(row.values())
    return {
        "max_by_min": round(high / low, 2),
        "plus_minus_percent": round(100 * (high - low) / (high + low), 1),
    }


def fan(bench: Bench) -> dict[str, Any]:
    """1 -> 200 -> 1, written down and as a map."""
    written, mapped = bench.case("fan", ALL, 7, [{"width": FAN}, {"width": FAN, "mapped": True}])
    (streamed,) = bench.case("streamed", ("ours",), 5, [{"width": STREAMED}])
    result = {}
    for name, times, width in (("written", written, FAN), ("mapped", mapped, FAN), ("streamed", streamed, STREAMED)):
        found = figures(times, MICRO, width + 2)
        layers = [layer for layer in ("executor", "run", "whole") if f"ours.{layer}" in found["sides"]]
        goals = {layer: against(40.0, found["sides"], f"ours.{layer}") for layer in layers}
        result[name] = {"goals": goals, **found}
    return {
        "fan_out": {
            "what": f"1 -> {FAN} -> 1; streamed: 1 -> {STREAMED} -> 1 over a list that is still being written",
            "unit": "us/step",
            **result,
        }
    }


def waiting(bench: Bench) -> dict[str, Any]:
    """Shapes in which a barrier would cost time."""
    (stagger,) = bench.case("stagger", ALL, 7, [{}])
    (slow,) = bench.case("fan", ALL, 7, [{"width": SLOW_FAN, "seconds": STEP_SECONDS}])
    staggered, fanned = figures(stagger, MILLI), figures(slow, MILLI)
    return {
        "stagger": {
            "what": "two lanes of alternating 50 and 5 ms steps",
            "unit": "ms",
            "ideal": round(MILLI * max(sum(delays) for delays in LANES.values()), 3),
            "goals": {layer: against(115.0, staggered["sides"], f"ours.{layer}") for layer in ("run", "whole")},
            **staggered,
        },
        "slow_fan_out": {
            "what": f"1 -> {SLOW_FAN} -> 1 of {MILLI * STEP_SECONDS:g} ms steps",
            "unit": "ms",
            "ideal": 3 * MILLI * STEP_SECONDS,
            "goals": {layer: against(65.0, fanned["sides"], f"ours.{layer}") for layer in ("run", "whole")},
            **fanned,
        },
    }


def load(bench: Bench) -> dict[str, Any]:
    """From a file's text to a plan."""
    builders = ("ours", "langgraph", "pydantic_graph")
    (line,) = bench.case("build", builders, 9, [{"steps": BUILD}])
    bench.first.pop("ours.whole", None)
    (mixed,) = bench.case("build", ("ours",), 9, [{"steps": BUILD, "mixed": True}])
    result = {name: figures(times, MILLI) for name, times in (("chain", line), ("mixed", mixed))}
    for found in result.values():
        found["goals"] = {"parse, validate, compile and plan": against(100.0, found["sides"], "ours.whole")}
    result["mixed"]["first_of_the_process"] = round(MILLI * bench.first["ours.whole"], 1)
    return {
        "load": {
            "what": f"{BUILD} steps from YAML text to a plan; for information, the peers' building from Python calls",
            "unit": "ms",
            **result,
        }
    }


def priorities(bench: Bench) -> dict[str, Any]:
    """Few places: does the critical path go first?"""
    (times,) = bench.case("contended", ("ours", "langgraph", "plain_asyncio"), 5, [{}])
    found = figures(times, MILLI)
    bound = MILLI * contended_bound()
    for side in found["sides"].values():
        side["bound_by_makespan"] = round(bound / side["wall"]["min"], 3)
    return {
        "priorities": {
            "what": f"a chain of {CRITICAL} and {BRANCHES} single steps of {MILLI * STEP_SECONDS:g} ms, {LIMIT} at a"
            " time, all ready at the start; plain_asyncio takes them in the order of the file",
            "unit": "ms",
            "ideal": bound,
            **found,
        }
    }


PARTS = {"chain": chain, "fan": fan, "waiting": waiting, "load": load, "priorities": priorities}


def main() -> None:
    """Measure, and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="measure only these parts")
    chosen = parser.parse_args().only
    begin, busy = time.perf_counter(), os.getloadavg()[0]
    with empty_home() as home:
        bench = Bench(peers_python(), home)
        parts: dict[str, Any] = {}
        for name in chosen:
            parts |= PARTS[name](bench)
    document = {
        "benchmark": "orchestration",
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "load_average_before": round(busy, 2),
        "seconds": round(time.perf_counter() - begin, 1),
        "versions": bench.versions,
        **parts,
    }
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
