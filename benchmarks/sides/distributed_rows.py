"""The rows of benchmarks/distributed.py that are about speed: starts, one stream, many agents, predictions."""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sides.bare_distributed import NO_PIPELINE, server, workers
from sides.distributed_product import CONTEXT, agents, ask, over_links, over_managed, split
from sides.links import measure
from sides.pool_report import OURS, Row
from synaptic.backends.llama_server import LlamaServerBackend

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from sides.bare_distributed import Server
    from sides.distributed_product import Product
    from synaptic.backends.base import Backend
    from synaptic.backends.distributed.engine.engine import Engine

LINKS = ((1000, 0.2), (1000, 1), (1000, 5), (10_000, 0.2), (10_000, 1), (10_000, 5))
"""Nominal Mbit/s and milliseconds."""
AGENTS = 8
SLOW_LINK = (1000, 5)
FAST = 10_000
LAYERS = 30
"""Of SmolLM2-135M."""
MOST_START_RATIO = 1.5
LEAST_DECODE = {1: 0.0, 2: 0.93, 3: 0.85}
LEAST_AGENTS = 0.9
PREDICTION_ERROR = 0.2
TINY = 1e-9
BARE, ANEW = "bare, 2 workers", "ours, workers started too"


@dataclass(frozen=True)
class Bench:
    """What the rows need.

    Attributes:
        model: The GGUF of SmolLM2-135M.
        rounds: Turns that the sides take; the first one more warms up.
        tokens: Of a call.
        cycles: Faults of the row ``cycles``.
        rest: Seconds between two of them.
        gigabytes: Size of the synthetic model of the row ``memory``.
        big: Where that model is, or is to be.

    """

    engine: Engine
    model: Path
    rounds: int
    tokens: int
    cycles: int
    rest: float
    gigabytes: float
    big: Path


def local_flags(slots: int = 1) -> tuple[str, ...]:
    """Return what the local server has in common with a coordinator."""
    return ("-c", str(CONTEXT * slots), "-np", str(slots), "--cache-ram", "0", "-fa", "on", "-lm", "none")


async def start(bench: Bench) -> Row:
    """From the start to a loaded model; ours includes the checks of the workers and a first token."""
    row = Row(
        "start",
        "seconds from start to ready, warm: 2 workers against the same server alone",
        goal=f"at most {MOST_START_RATIO} x the local start",
        compare="seconds",
    )
    found: dict[str, list[float]] = {side: [] for side in ("local", BARE, OURS, ANEW)}
    with tempfile.TemporaryDirectory() as cache:
        async with over_managed(bench.model, 2) as product:
            for turn in range(bench.rounds + 1):
                seconds = await _starts(bench, product, Path(cache))
                for side in found if turn else ():
                    found[side].append(seconds[side])
    base = statistics.median(found["local"])
    for side, each in found.items():
        median = statistics.median(each)
        row.add(side, {"seconds": round(median, 3), "of local": round(median / base, 3)})
    row.judge(OURS, "of local", at_most=MOST_START_RATIO)
    return row


async def decode(bench: Bench) -> Row:
    """Generate with one stream over one, two and three workers, and locally with the threads of one."""
    row = Row(
        "decode",
        "tokens a second of one stream over loopback, one thread each, against local with one thread",
        goal=f"2 workers at least {LEAST_DECODE[2]}, 3 at least {LEAST_DECODE[3]}",
        compare="tokens/s",
    )
    async with AsyncExitStack() as stack:
        sides: dict[str, Backend] = {"local": await stack.enter_async_context(_local(bench))}
        for count in (1, 2, 3):
            sides[f"bare, {count}"] = await stack.enter_async_context(_bare(bench, count))
            product = await stack.enter_async_context(over_links(bench.engine, bench.model, count))
            sides[f"ours, {count}"] = product.backend
        rates = await in_turns(bench.rounds, {name: _rate_of(side, bench.tokens) for name, side in sides.items()})
        texts = {name: (await ask(side, bench.tokens)).text for name, side in sides.items()}
    differing = [name for name, text in texts.items() if text != texts["local"]]
    row.notes += [f"{name}: its text is not the local one" for name in differing]
    _add_rates(row, rates)
    good = [row.sides[f"ours, {count}"]["of local"] >= least for count, least in LEAST_DECODE.items()]
    row.met = all(good) and not differing
    return row


async def many_agents(bench: Bench) -> Row:
    """Have eight agents answered at once over two workers that are far away, and locally."""
    mbit, rtt = SLOW_LINK
    row = Row(
        "agents",
        f"tokens a second of {AGENTS} agents at once, 2 workers of one thread behind 1 GbE of {rtt:g} ms",
        goal=f"at least {LEAST_AGENTS} x local with one worker's threads",
        compare="tokens/s",
    )
    count = AGENTS
    async with AsyncExitStack() as stack:
        sides: dict[str, Backend] = {
            "local": await stack.enter_async_context(_local(bench, slots=count)),
            "local, 2 threads": await stack.enter_async_context(_local(bench, slots=count, threads=2)),
        }
        links = {"ours, loopback": (0, 0), OURS: (mbit, rtt), "ours, 10 GbE": (FAST, rtt)}
        output_at: dict[str, str] = {}
        for name, link in links.items():
            product = await stack.enter_async_context(
                over_links(bench.engine, bench.model, 2, slots=count, mbit=link[0], rtt_ms=link[1])
            )
            sides[name] = product.backend
            output_at[name] = "coordinator" if product.placement.output_here else "worker"
        alone = await in_turns(bench.rounds, {name: _rate_of(side, bench.tokens) for name, side in sides.items()})
        together = await in_turns(
            bench.rounds, {name: _together(side, count, bench.tokens) for name, side in sides.items()}
        )
    _add_rates(row, together)
    for name, rates in alone.items():
        row.sides[name]["one stream"] = round(statistics.median(rates), 2)
    for name, place in output_at.items():
        row.sides[name]["output at"] = place
    row.judge(OURS, "of local", at_least=LEAST_AGENTS)
    row.notes.append("a step takes two round trips more; from an output at a worker come 1.6 MB of logits")
    return row


async def predicted(bench: Bench) -> Row:
    """Compare the placement's prediction with what comes, over links of several kinds."""
    row = Row(
        "predicted",
        "tokens a second of one stream over 2 workers behind links, predicted before the start and measured",
        goal=f"within {PREDICTION_ERROR:.0%}",
        compare="predicted/measured",
    )
    worst = 0.0
    for mbit, rtt in LINKS:
        real = measure(mbit, rtt)
        async with over_links(bench.engine, bench.model, 2, mbit=mbit, rtt_ms=rtt) as product:
            rates = await in_turns(bench.rounds, {OURS: _rate_of(product.backend, bench.tokens)})
            said = product.placement.tokens_per_second or TINY
        measured = statistics.median(rates[OURS])
        worst = max(worst, abs(said / measured - 1))
        row.add(
            f"{mbit / 1000:g} GbE, {rtt:g} ms",
            {
                "predicted": round(said, 2),
                "measured": round(measured, 2),
                "predicted/measured": round(said / measured, 3),
                "rtt ms": real["rtt_ms"],
                "up Mbit/s": real["up_mbit"],
                "down Mbit/s": real["down_mbit"],
            },
        )
    row.met = worst <= PREDICTION_ERROR
    return row


async def in_turns(rounds: int, sides: Mapping[str, Callable[[], Awaitable[float]]]) -> dict[str, list[float]]:
    """Measure each side in turn, another one first in each round; the first round warms up and does not count."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            value = await sides[name]()
            if turn:
                found[name].append(value)
    return found


def _rate_of(side: Backend, tokens: int) -> Callable[[], Awaitable[float]]:
    async def rate() -> float:
        return (await ask(side, tokens)).rate

    return rate


def _together(side: Backend, count: int, tokens: int) -> Callable[[], Awaitable[float]]:
    async def rate() -> float:
        return (await agents(side, count, tokens))["all"]

    return rate


def _add_rates(row: Row, rates: Mapping[str, list[float]]) -> None:
    base = statistics.median(rates["local"])
    for name, values in rates.items():
        median = statistics.median(values)
        row.add(
            name, {"tokens/s": round(median, 2), "best": round(max(values), 2), "of local": round(median / base, 3)}
        )


async def _timed(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


async def _starts(bench: Bench, product: Product, cache: Path) -> dict[str, float]:
    """Start each side once; return the seconds until each was ready."""
    async with server(bench.engine, bench.model, threads=1, flags=local_flags()) as local:
        seconds = {"local": local.ready_seconds, BARE: await _bare_start(bench, cache)}
    await product.backend.unload(product.model)
    seconds[OURS] = await _timed(lambda: product.backend.load(product.model))
    async with over_managed(bench.model, 2) as fresh:
        seconds[ANEW] = fresh.ready_seconds
    return seconds


async def _bare_start(bench: Bench, cache: Path) -> float:
    async with workers(bench.engine, 2, cache=cache) as endpoints, _bare_server(bench, endpoints) as bare:
        return bare.ready_seconds


@asynccontextmanager
async def _bare(bench: Bench, count: int) -> AsyncGenerator[Backend]:
    async with (
        workers(bench.engine, count) as endpoints,
        _bare_server(bench, endpoints) as bare,
        aclosing(LlamaServerBackend(bare.url)) as client,
    ):
        yield client


@asynccontextmanager
async def _local(bench: Bench, *, slots: int = 1, threads: int = 1) -> AsyncGenerator[Backend]:
    async with (
        server(bench.engine, bench.model, threads=threads, flags=local_flags(slots)) as local,
        aclosing(LlamaServerBackend(local.url)) as client,
    ):
        yield client


def _bare_server(bench: Bench, endpoints: list[str]) -> AbstractAsyncContextManager[Server]:
    parts = split(LAYERS, len(endpoints))
    parts[-1] += 1  # the output counts as a layer
    flags = (*local_flags(), *NO_PIPELINE, "-ts", ",".join(map(str, parts)))
    return server(bench.engine, bench.model, threads=1, endpoints=endpoints, flags=flags)
