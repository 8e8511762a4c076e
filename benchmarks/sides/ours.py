"""SynapticLlamas, in three layers, with a listener to every event.

- ``executor``: a compiled plan, the executor, the scripted backend; no policies around the backend.
- ``run``: what ``Session.run`` does between its first event and its last: the executor, the policies (time limits,
  places, retries, budgets), the scripted backend.
- ``whole``: ``Pipeline.parse`` of the YAML text, which no load before has seen, and ``Session.run`` of it: parse,
  validate, compile, plan, run.

A step renders its template, builds a request, streams the reply through the scripted backend, counts its tokens, and
tells of its start, of each piece of text and of its end with times and usage. ``backend`` is the part of the scripted
backend alone: the same requests made of it one after the other.
"""

from __future__ import annotations

import asyncio
import itertools
from functools import cache
from typing import TYPE_CHECKING

from sides import pipeline_texts as texts
from sides.shapes import (
    REPLY,
    STEP_SECONDS,
    Lap,
    Laps,
    Stopwatch,
    expect,
    lane_steps,
    runs_of,
    total,
)
from synaptic import Pipeline, RunFinished, RunResult, RunStarted, ScriptedBackend, Session, Settings, StepFinished
from synaptic.runtime.executor import Executor

if TYPE_CHECKING:
    from collections.abc import Callable

    from synaptic import Backend, ChatRequest, Event, Plan

PACKAGES = ("synapticllamas", "pydantic", "jinja2")

_salts = (f"t{number}x" for number in itertools.count())


class Bare:
    """Hands every call to the backend as it is."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def of(self, *_: object) -> Backend:
        """Return the backend, whatever the policy."""
        return self._backend


class Bench:
    """One session around one scripted backend."""

    def __init__(self, answer: Callable[[ChatRequest], object]) -> None:
        self.backend = ScriptedBackend(answer)
        self.session = Session(Settings(journal="off"), backend=self.backend)  # durable.py measures the journal

    async def alone(self, plan: Plan, steps: int, runs: int) -> Lap:
        """Return how long one run of the executor takes, without policies."""
        defaults = self.session._planner.defaults(plan.route)  # noqa: SLF001  (what a session gives to its executor)
        events: list[Event] = []
        watch = Stopwatch()
        for _ in range(runs):
            await Executor(plan, Bare(self.backend), defaults, run_id="benchmark", emit=events.append).run()
        lap = watch.lap()
        check(events, steps, runs)
        self.backend.requests.clear()
        return Lap(lap.wall / runs, lap.cpu / runs)

    async def whole(self, text: Callable[[], str], inputs: dict[str, object], steps: int, runs: int) -> Laps:
        """Return how long the whole way takes from the text to the result, and the run in it, by the run."""
        laps: dict[str, list[Lap]] = {"run": [], "whole": []}
        events: list[Event] = []
        watches: list[Stopwatch] = []

        def listen(event: Event) -> None:
            events.append(event)
            if isinstance(event, RunStarted):
                watches.append(Stopwatch())
            elif isinstance(event, RunFinished):
                laps["run"].append(watches.pop().lap())

        for _ in range(runs):
            source = text()
            watch = Stopwatch()
            await self.session.run(pipeline=Pipeline.parse(source), inputs=inputs, on_event=listen)
            laps["whole"].append(watch.lap())
        check(events, steps, runs)
        self.backend.requests.clear()
        sums = {layer: total(each) for layer, each in laps.items()}
        return {layer: Lap(lap.wall / runs, lap.cpu / runs) for layer, lap in sums.items()}


def check(events: list[Event], steps: int, runs: int) -> None:
    """Refuse runs that failed, or that had another number of steps.

    Raises:
        RuntimeError: If they did.

    """
    results: list[RunResult] = [event.result for event in events if isinstance(event, RunFinished)]
    for result in results:
        result.raise_for_status()
    expect("ours", sum(isinstance(event, StepFinished) for event in events), runs * steps)
    expect("ours: runs", len(results), runs)


@cache
def at_once() -> Bench:
    """Return the bench whose backend answers at once."""
    return Bench(lambda _: REPLY)


_plans: dict[str, Plan] = {}


async def plan_of(bench: Bench, text: str, inputs: dict[str, object]) -> Plan:
    """Return the plan, made once."""
    if text not in _plans:
        _plans[text] = await bench.session.plan(pipeline=Pipeline.parse(text), inputs=inputs)
    return _plans[text]


async def backend_alone(bench: Bench, plan: Plan, runs: int) -> Lap:
    """Return how long the requests of one run take by themselves."""
    defaults = bench.session._planner.defaults(plan.route)  # noqa: SLF001  (as above)
    await Executor(plan, Bare(bench.backend), defaults, run_id="benchmark", emit=lambda _: None).run()
    requests = list(bench.backend.requests)
    watch = Stopwatch()
    for _ in range(runs):
        for request in requests:
            async for _chunk in bench.backend.stream(request):
                pass
    lap = watch.lap()
    bench.backend.requests.clear()
    return Lap(lap.wall / runs, lap.cpu / runs)


async def chain(steps: int) -> Laps:
    """One step after the other."""
    bench, inputs, runs = at_once(), {"query": "go"}, runs_of(steps)
    plan = await plan_of(bench, texts.chain(steps), inputs)
    return {
        "executor": await bench.alone(plan, steps, runs),
        **await bench.whole(lambda: texts.chain(steps, next(_salts)), inputs, steps, runs),
        "backend": await backend_alone(bench, plan, runs),
    }


async def fan(width: int, *, seconds: float = 0.0, mapped: bool = False) -> Laps:
    """One step, ``width`` steps beside each other, one step; either all written down, or as a map over a list."""
    inputs: dict[str, object] = {"words": [str(index) for index in range(width)]} if mapped else {"query": "go"}
    make = texts.mapped if mapped else (lambda salt="": texts.fan(width, salt))
    steps = width + 3 if mapped else width + 2  # a map ends, too
    if seconds:
        return await Bench(lambda _: answer_after(seconds)).whole(make, inputs, steps, 1)
    bench, runs = at_once(), runs_of(steps)
    plan = await plan_of(bench, make(), inputs)
    return {
        "executor": await bench.alone(plan, steps, runs),
        **await bench.whole(lambda: make(next(_salts)), inputs, steps, runs),
    }


async def streamed(width: int) -> Laps:
    """One step that writes a list, each of whose items is a step while the list is still being written, one step.

    The list comes in about twice as many pieces as it has items, so that this is the cost of reading it piecemeal, too.
    """
    words = {"words": [f"word {index}" for index in range(width)]}
    bench = Bench(lambda request: words if request.tag == "first" else REPLY)
    return await bench.whole(lambda: texts.streamed(width, next(_salts)), {"query": "go"}, width + 3, runs_of(width))


async def answer_after(seconds: float) -> str:
    """Answer after a while."""
    await asyncio.sleep(seconds)
    return REPLY


async def stagger() -> Laps:
    """Two lanes."""
    delays = {name: seconds for name, _, seconds in lane_steps()}
    bench = Bench(lambda request: answer_after(delays[request.tag]))
    return await bench.whole(texts.stagger, {"query": "go"}, len(delays), 1)


async def contended() -> Laps:
    """More ready steps than places."""
    bench = Bench(lambda _: answer_after(STEP_SECONDS))
    return await bench.whole(texts.contended, {"query": "go"}, len(texts.contended_steps()), 1)


async def build(steps: int, *, mixed: bool = False) -> Laps:
    """Read a file's text, find every mistake in it, compile it, and plan its run."""
    text = (texts.mixed if mixed else texts.chain)(steps, next(_salts))
    watch = Stopwatch()
    pipeline = Pipeline.parse(text)
    read = watch.lap()
    await at_once().session.plan("go", pipeline=pipeline)
    whole = watch.lap()
    return {"whole": whole, "read": read, "compile": Lap(whole.wall - read.wall, whole.cpu - read.cpu)}


CASES = {
    "chain": chain,
    "fan": fan,
    "streamed": streamed,
    "stagger": stagger,
    "contended": contended,
    "build": build,
}
