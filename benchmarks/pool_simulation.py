"""The picker in a simulation: a million calls over ten thousand nodes, eight schedulers, a fixed set of calls.

Prints one JSON document; progress goes to standard error. Discrete events, no sockets, no waiting: a run is the same
each time, but for the times of this process. What decides is the pool's own code: picker, shortlist, reservations,
queue, learned rates, prefixes; ``sides/pool_sim_scheduler.py`` ties it together. docs/internals/pool-simulation.md
says what is simulated, and what is not. It fails if a node ever has more calls than it may, or a call is not served
exactly once.

``--quick`` does all of it with few nodes and calls; ``--plots DIR`` also draws the figures as SVG, in an environment of
its own (``requirements-simulation.txt``); ``--from FILE`` draws those of an earlier run.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sides.pool_sim import LargeRun, Load
from sides.pool_sim_herd import herd
from sides.pool_sim_makespan import makespan
from sides.processes import HERE, peers_python

from synaptic.backends.pool.index import Shortlist
from synaptic.backends.pool.learned.rates import Rates
from synaptic.backends.pool.node.state import CallShape, ModelState, NodeState
from synaptic.backends.pool.policy import Reservations, pick

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = (2, 10, 100, 1000, 10_000)
ROUNDS, TURNS = 7, 300
BUSY = 0.8
MICRO = 1e6


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few nodes and calls")
    parser.add_argument("--nodes", type=int, help="of the large run")
    parser.add_argument("--calls", type=int, help="of the large run")
    parser.add_argument("--plots", metavar="DIR", help="draw the figures into this folder")
    parser.add_argument("--from", metavar="FILE", dest="earlier", help="the JSON of an earlier run, instead of a run")
    options = parser.parse_args()
    if options.earlier:
        document = json.loads(Path(options.earlier).read_text(encoding="utf-8"))
    else:
        document = figures(options)
        json.dump(document, sys.stdout, indent=1)
        print()
    if options.plots:
        command = [peers_python(HERE / "requirements-simulation.txt"), "-m", "sides.pool_sim_plots"]
        folder = str(Path(options.plots).resolve())
        subprocess.run([*command, folder], input=json.dumps(document), text=True, cwd=HERE, check=True)


def figures(options: argparse.Namespace) -> dict[str, Any]:
    """Return everything."""
    quick = options.quick
    nodes, calls = options.nodes or (60 if quick else 10_000), options.calls or (3000 if quick else 1_000_000)
    document: dict[str, Any] = {"python": platform.python_version(), "machine": platform.machine()}
    begin = time.perf_counter()
    say("the picker alone")
    document["picker"] = picker_alone(SIZES[:3] if quick else SIZES)
    say("makespan of a fixed set of calls")
    document["makespan"] = makespan()
    say("several schedulers")
    document["herd"] = herd(*((24, 1500) if quick else (200, 40_000)))
    say(f"{calls} calls over {nodes} nodes")
    document["large"] = LargeRun(nodes, calls, Load()).run()
    document["seconds"] = round(time.perf_counter() - begin, 1)
    return document


def picker_alone(sizes: tuple[int, ...]) -> dict[str, Any]:
    """Return microseconds a decision, by the size of the pool: over all nodes, and over the shortlist."""
    found: dict[str, Any] = {}
    call = CallShape("m", prompt_tokens=800, output_tokens=300, num_ctx=8192)
    for size in sizes:
        rng = random.Random(size)
        nodes = [_node(key, rng) for key in range(size)]
        shortlist = Shortlist(nodes)
        shortlist.candidates(call, rng)
        all_of_them = (call, nodes, 1.0, Reservations(), rng, Rates())
        found[str(size)] = {
            "all": _best(lambda args=all_of_them: pick(*args), max(3, TURNS // max(1, size // 10))),
            "shortlist": _best(
                lambda nodes=shortlist, rng=rng: pick(
                    call, nodes.candidates(call, rng), 1.0, Reservations(), rng, Rates()
                ),
                TURNS,
            ),
        }
    return found


def _node(key: int, rng: random.Random) -> NodeState:
    speed = rng.randint(1, 8)
    node = NodeState(key, f"node-{key}", limit=2, cap=2)
    for name in ("m", "x", "y"):
        rates = Rates(prompt_rate=100.0 * speed, output_rate=10.0 * speed, overhead=0.1, samples=5)
        node.models[name] = ModelState(name, 4 * 10**9, resident=name != "y", loaded_context=8192, rates=rates)
    if rng.random() < BUSY:
        for _ in range(2):
            node.claim("m", rng.uniform(1.0, 40.0))
    return node


def _best(work: Callable[[], object], turns: int) -> float:
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for _ in range(turns):
            work()
        times.append((time.perf_counter() - begin) / turns)
    return round(min(times) * MICRO, 1)


def say(what: str) -> None:
    """Tell what is being done."""
    print(what, file=sys.stderr)


if __name__ == "__main__":
    main()
