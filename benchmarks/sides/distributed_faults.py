"""The rows of benchmarks/distributed.py in which processes are killed, stopped, hung and started again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from sides.bare_distributed import free_port, worker
from sides.distributed_product import Answer, ask, over_managed
from sides.pool_report import OURS, Row
from synaptic.errors import SynapticError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sides.distributed_product import Product
    from sides.distributed_rows import Bench
    from synaptic.backends.distributed.engine.engine import Engine

RECOVERY_BASE = 3.0
RECOVERY_STARTS = 1.5
TOKENS = 96
"""Of a call that something happens to: long enough that a random moment falls into it."""
CALL_PATIENCE = 180.0
LATEST = 0.8
"""Part of an undisturbed call's time by which something happens: speeds vary, and the call is to be still running."""
AWAY = (0.2, 1.0)
"""Seconds for which a worker that is restarted is not there."""
KINDS = ("kill", "stop", "hang", "restart", "kill the coordinator")
SEED = 5


class Foreign:
    """A worker that the program does not start, always at the same port."""

    def __init__(self, engine: Engine) -> None:
        self.port = free_port()
        self._engine = engine
        self._running = AsyncExitStack()

    async def start(self) -> None:
        """Start it."""
        await self._running.enter_async_context(worker(self._engine, threads=1, port=self.port))

    async def stop(self) -> None:
        """End it."""
        await self._running.aclose()


@asynccontextmanager
async def foreign(engine: Engine) -> AsyncGenerator[Foreign]:
    """Run a worker that may be stopped and started again."""
    one = Foreign(engine)
    await one.start()
    try:
        yield one
    finally:
        await one.stop()


async def killed(bench: Bench) -> Row:
    """Kill a worker that the program started while it generates, and wait for the next token."""
    row = Row(
        "killed",
        "a managed worker of two is killed (SIGKILL) while a call is answered: seconds until tokens flow again",
        goal=f"at most {RECOVERY_BASE:g} s + {RECOVERY_STARTS:g} x the warm start, the answer as if undisturbed",
        compare="seconds",
    )
    gaps, starts, wrong = [], [], 0
    async with over_managed(bench.model, 2) as product:
        calm = await ask(product.backend, TOKENS)
        for turn in range(bench.rounds):
            await product.backend.unload(product.model)
            began = time.monotonic()
            await product.backend.load(product.model)
            starts.append(time.monotonic() - began)
            victim = product.status.workers[turn % 2].pid
            assert victim is not None, "a managed worker runs"
            answer, at, _ = await _with_fault(product, calm, 0.4, lambda pid=victim: os.kill(pid, signal.SIGKILL))
            after = [moment for moment in answer.arrivals if moment > at + min(starts) / 4]
            gaps.append(after[0] - at if after else CALL_PATIENCE)
            wrong += answer.text != calm.text
    start, seconds = statistics.median(starts), statistics.median(gaps)
    bound = RECOVERY_BASE + RECOVERY_STARTS * start
    row.add(
        OURS,
        {
            "seconds": round(seconds, 2),
            "worst": round(max(gaps), 2),
            "warm start": round(start, 2),
            "bound": round(bound, 2),
            "kills": len(gaps),
            "wrong answers": wrong,
        },
    )
    row.met = max(gaps) <= bound and not wrong
    return row


async def cycles(bench: Bench) -> Row:
    """Let something happen in every call, and compare each answer with the undisturbed one."""
    row = Row(
        "cycles",
        "faults at random moments of a call over 2 managed workers and a foreign one; every answer as if undisturbed",
        goal=f"{bench.cycles} of {bench.cycles}",
        compare="equal",
    )
    rng = random.Random(SEED)
    seen: Counter[str] = Counter()
    equal: Counter[str] = Counter()
    during: Counter[str] = Counter()
    waits: list[float] = []
    async with foreign(bench.engine) as other:
        external = [{"host": "127.0.0.1", "port": other.port}]
        async with over_managed(bench.model, 2, external=external) as product:
            await ask(product.backend, TOKENS)  # the first call is slower
            calm = await ask(product.backend, TOKENS)
            for number in range(bench.cycles):
                await asyncio.sleep(bench.rest if number else 0)
                kind = KINDS[number % len(KINDS)]
                seen[kind] += 1
                try:
                    answer, _, hit = await _with_fault(
                        product, calm, LATEST * rng.random(), _fault(kind, product, other, rng)
                    )
                except (SynapticError, TimeoutError) as error:
                    row.notes.append(f"{number + 1}, {kind}: {type(error).__name__}: {error}")
                    continue
                during[kind] += hit
                waits.append(answer.seconds - calm.seconds)
                if answer.text == calm.text:
                    equal[kind] += 1
                else:
                    row.notes.append(f"{number + 1}, {kind}: another answer: {_difference(answer.text, calm.text)}")
                print(f"  {number + 1}/{bench.cycles} {kind}: {answer.seconds:.1f} s", file=sys.stderr)
    for kind, count in seen.items():
        row.add(kind, {"cycles": count, "equal": equal[kind], "during a call": during[kind]})
    waited = {"median s lost": round(statistics.median(waits), 2), "most s lost": round(max(waits), 2)} if waits else {}
    row.add(OURS, {"cycles": seen.total(), "equal": equal.total(), "during a call": during.total(), **waited})
    row.met = equal.total() == bench.cycles
    return row


async def _with_fault(product: Product, calm: Answer, moment: float, fault: Any) -> tuple[Answer, float, bool]:
    """Ask, and let something happen after a part of the time that the undisturbed call took.

    Returns:
        The answer, when it happened, and whether the call was still being answered.

    """
    async with asyncio.timeout(CALL_PATIENCE):
        call = asyncio.create_task(ask(product.backend, TOKENS))
        try:
            await asyncio.sleep(moment * calm.seconds)
            at, hit = time.monotonic(), not call.done()
            done = fault()
            if done is not None:
                await done
            return await call, at, hit
        finally:
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)


def _fault(kind: str, product: Product, other: Foreign, rng: random.Random) -> Any:
    async def restart() -> None:
        await other.stop()
        await asyncio.sleep(rng.uniform(*AWAY))
        await other.start()

    def send(number: signal.Signals, pids: list[int | None]) -> None:
        running = [pid for pid in pids if pid is not None]
        if running:
            os.kill(rng.choice(running), number)

    signals = {"kill": signal.SIGKILL, "stop": signal.SIGTERM, "hang": signal.SIGSTOP}
    if kind == "restart":
        return restart
    if kind == "kill the coordinator":
        return lambda: send(signal.SIGKILL, [product.status.pid])
    return lambda: send(signals[kind], [one.pid for one in product.status.workers if one.managed])


def _difference(text: str, calm: str) -> str:
    same = next((at for at, (one, two) in enumerate(zip(text, calm, strict=False)) if one != two), None)
    at = min(len(text), len(calm)) if same is None else same
    return f"from character {at} of {len(calm)}: {text[at : at + 30]!r} instead of {calm[at : at + 30]!r}"
