"""The rows of benchmarks/pool.py that need no load: the picker alone, constructing a pool, a pipeline on real nodes."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from typing import TYPE_CHECKING, Any

from sides.pool_processes import described, nodes
from sides.pool_report import Row
from sides.processes import HERE

if TYPE_CHECKING:
    from sides.pool_processes import Workshop

MICRO = 1e6

PICKER_NODES, PICKER_REPEATS = (10, 10_000), 15
PICKER_GOALS_US = {10: 20.0, 10_000: 200.0}

CONSTRUCT_GOAL_MS, CONSTRUCT_REPEATS, CONSTRUCT_PATIENCE = 50.0, 5, 60.0

REAL_NODES, RESEARCH_GOAL, CALIBRATION_CALLS, CALIBRATION_TOKENS = 3, 0.8, 6, 48
QUESTION = "Why do heat pumps save energy?"


async def picker(workshop: Workshop) -> Row:
    """How long one choice takes."""
    row = Row(
        "picker",
        f"one choice among {PICKER_NODES[0]} and among {PICKER_NODES[1]} nodes, without a socket;"
        f" medians and minima of {PICKER_REPEATS} repeats",
        goal=" and ".join(f"ours <= {goal:g} us at {count}" for count, goal in PICKER_GOALS_US.items()),
        compare=f"us at {PICKER_NODES[0]}",
    )
    async with workshop.sides(["ours", "SOLLOL"]) as sides:
        for side in sides:
            figures: dict[str, float] = {}
            for count in PICKER_NODES:
                for what, laps in (await side.ask("picker", nodes=count, repeats=PICKER_REPEATS)).items():
                    label = f"us at {count}" if what == "choice" else f"us at {count} with {what}"
                    figures[label] = round(MICRO * statistics.median(laps), 2)
                    figures[f"{label}, min"] = round(MICRO * min(laps), 2)
            row.add(side.name, figures)
    if ours := row.sides.get("ours"):
        row.met = all(ours[f"us at {count}"] <= goal for count, goal in PICKER_GOALS_US.items())
    return row


async def construct(workshop: Workshop) -> Row:
    """What it takes to have a pool."""
    row = Row(
        "construct",
        f"a pool over two nodes that answer at once, in a fresh process; median of {CONSTRUCT_REPEATS}",
        goal=f"ours <= {CONSTRUCT_GOAL_MS:g} ms, no child process",
        compare="construct ms",
    )
    modes = [("ours", "ours", CONSTRUCT_REPEATS)]
    modes += [("SOLLOL", "sollol", 3), ("SOLLOL by default", "sollol-defaults", 1)]
    async with nodes([{"parallel": 4}] * 2) as running:
        urls = [node["url"] for node in described(running)]
        for name, mode, repeats in modes:
            python = workshop.interpreter("ours" if mode == "ours" else "SOLLOL")
            if python is None:
                continue
            found = [await _construct(python, workshop.environment, [mode, *urls]) for _ in range(repeats)]
            whole = [each for each in found if each is not None]
            if not whole:
                row.notes.append(f"{name}: did not come to an end within {CONSTRUCT_PATIENCE:g} s")
                continue
            row.add(name, {key: statistics.median(each[key] for each in whole) for key in whole[0]})
    if ours := row.sides.get("ours"):
        row.met = ours["construct ms"] <= CONSTRUCT_GOAL_MS and not ours["children"]
    row.notes.append(
        "SOLLOL: with discovery, dashboard, Dask and Redis off; by default: nodes given, nothing switched off"
    )
    return row


async def _construct(python: str, environment: dict[str, str], arguments: list[str]) -> dict[str, Any] | None:
    """Return what one process says; ``None`` if it did not come to an end."""
    process = await asyncio.create_subprocess_exec(
        *(python, "-m", "sides.pool_construct", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=HERE,
        env=environment,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(CONSTRUCT_PATIENCE):
            line = await process.stdout.readline()
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
        return None
    if not line:
        raise RuntimeError(f"{' '.join(arguments)} ended with status {process.returncode}")
    found: dict[str, Any] = json.loads(line)
    return found


async def research(_: Workshop) -> Row:
    """The pipeline ``research`` on three real nodes and on one, an engine with one thread each."""
    from ollama_nodes import MODEL, real_nodes  # noqa: PLC0415 - the path is set by pool_processes

    cores = len(os.sched_getaffinity(0))
    row = Row(
        "research",
        f"the pipeline on {REAL_NODES} real nodes against 1, one thread each, {cores} cores",
        goal=f"{REAL_NODES} nodes: bound / seconds >= {RESEARCH_GOAL:g}",
        compare="seconds",
    )
    async with real_nodes(REAL_NODES, parallel=1, threads=1) as running:
        urls = [node.url for node in running]
        for url in urls:
            await _direct([url], 1, MODEL)  # loads the model
        direct = {count: await _direct(urls[:count], CALIBRATION_CALLS, MODEL) for count in (1, REAL_NODES)}
        single, several = [await _research(urls[:count], MODEL) for count in (1, REAL_NODES)]
    row.add("1 node", single)
    row.add("ours", several)
    gain = direct[1] / direct[REAL_NODES]
    row.notes.append(
        f"{CALIBRATION_CALLS} equal calls without a pool are {gain:.2f} x as fast on {REAL_NODES} nodes as on 1: that"
        " is what the cores allow where nothing waits for anything"
    )
    row.notes.append(
        "bound: the longest chain of steps (a streamed list may beat it), or the work over the nodes; work: what the"
        " engines say they computed, slowed down by each other where they are more than the cores. The model words its"
        " sub-questions differently from run to run, so each run is held against its own bound"
    )
    row.met = several["bound/seconds"] >= RESEARCH_GOAL
    return row


async def _direct(urls: list[str], calls: int, model: str) -> float:
    """Return the seconds that so many equal calls take, spread over the nodes, without the pool."""
    from synaptic.backends.ollama.backend import OllamaBackend  # noqa: PLC0415 - one row needs it
    from synaptic.messages import ChatRequest, Message  # noqa: PLC0415

    async def lane(url: str, count: int) -> None:
        async with OllamaBackend(url, num_ctx=2048) as backend:
            for number in range(count):
                messages = (Message("user", f"Count from {number} to a hundred."),)
                request = ChatRequest(messages=messages, model=model, max_tokens=CALIBRATION_TOKENS, temperature=0.0)
                async for _ in backend.stream(request):
                    pass

    begin = time.perf_counter()
    await asyncio.gather(*(lane(url, calls // len(urls)) for url in urls))
    return time.perf_counter() - begin


async def _research(urls: list[str], model: str) -> dict[str, Any]:
    """Return how long a run took, how much of that the engines worked, and the longest chain of its steps."""
    import synaptic  # noqa: PLC0415 - one row needs it

    async with (
        synaptic.Pool(urls, model=model, temperature=0.0, num_ctx=2048, journal="off") as pool,
        synaptic.Session(pool.settings, backend=pool.backend) as session,
    ):
        begin = time.perf_counter()
        result = await session.run(QUESTION, pipeline="research", inputs={"rounds": 0})
        seconds = time.perf_counter() - begin
    result.raise_for_status()
    work: dict[str, list[float]] = {}
    for step in result.steps:
        spent = [step.timings.load_seconds, step.timings.prompt_seconds, step.timings.generation_seconds]
        work.setdefault(step.id.partition("[")[0], []).append(sum(each or 0.0 for each in spent))
    total, chain = sum(map(sum, work.values())), sum(map(max, work.values()))
    return {
        "seconds": round(seconds, 2),
        "work s": round(total, 2),
        "longest chain s": round(chain, 2),
        "engines at work": round(total / seconds, 2),
        "bound/seconds": round(max(chain, total / len(urls)) / seconds, 3),
        "calls": sum(1 for step in result.steps if step.attempts),
        "nodes used": len({step.node for step in result.steps if step.node}),
        "tokens": result.usage.completion_tokens,
    }
