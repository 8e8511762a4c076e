"""Our side of ``durable.py``: ``python -m sides.durable_ours CASE PARAMETERS``, one JSON object on standard output."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from sides.durable_texts import Texts, bytes_under, home
from synaptic import Agent, Pipeline, ScriptedBackend, Session, Settings
from synaptic.runtime import RunStarted
from synaptic.runtime.journal import Journal

if TYPE_CHECKING:
    from synaptic import Event

WRITER = {"writer": Agent(name="writer", prompt="Write.")}
ROUNDS = 3
READS_BEFORE = "{{{{ steps.s{before} }}}}"


def chain(steps: int, prompt: str = READS_BEFORE) -> Pipeline:
    """Return steps that each read the answer of the one before."""
    lines = ["  s0: {agent: writer, prompt: '{{ inputs.query }}'}"]
    lines += [
        f"  s{number}: {{agent: writer, prompt: '{prompt.format(before=number - 1)}'}}" for number in range(1, steps)
    ]
    document = ", document: {}" if "document" in prompt else ""
    head = f"version: 1\nname: chain\ninputs: {{query: {{}}{document}}}\nsteps:\n"
    return Pipeline.parse(head + "\n".join(lines) + f"\nresult: '{{{{ steps.s{steps - 1} }}}}'\n")


def backend(texts: Texts) -> ScriptedBackend:
    """Return a backend whose answers are made beforehand, each of one token."""
    return ScriptedBackend(lambda _: texts.next())


async def size(*, steps: int, answer: int, document: int, kind: str) -> dict[str, Any]:
    """Return the bytes that a run takes on the disk, by the bytes that its steps and its caller gave it."""
    texts = Texts(kind, answer, steps)
    whole = Texts(kind, max(document, 1), 1).next() if document else ""
    prompt = "{{{{ inputs.document }}}} {{{{ steps.s{before} }}}}" if document else READS_BEFORE
    async with Session(Settings(retries=0, max_tokens=100_000), backend=backend(texts), agents=WRITER) as session:
        result = await session.run("why", pipeline=chain(steps, prompt), inputs={"document": whole} if whole else {})
    result.raise_for_status()
    stored = bytes_under(home())
    return {"stored": stored, "data": texts.bytes + len(whole.encode()), "steps": len(result.steps)}


async def step(*, steps: int, mode: str) -> dict[str, Any]:
    """Return microseconds a step of the fastest of a few runs, by the clock, and of the processor with closing.

    A run begins when it is planned: a graph of the peers is compiled before, too.
    """
    pipeline, laps = chain(steps), []
    begun: list[float] = []

    def listen(event: Event) -> None:
        if type(event) is RunStarted:
            begun.append(time.process_time())

    for _ in range(ROUNDS):
        async with Session(
            Settings(retries=0, journal=mode), backend=backend(Texts("words", 40, steps)), agents=WRITER
        ) as session:
            await session.plan("why", pipeline=pipeline)
            gc.collect()
            result = await session.run("why", pipeline=pipeline, on_event=listen)
        laps.append((result.ended_at - result.started_at, time.process_time() - begun[-1]))
    return {
        "wall": round(min(wall for wall, _ in laps) / steps * 1e6, 1),
        "cpu_with_closing": round(min(cpu for _, cpu in laps) / steps * 1e6, 1),
    }


async def many(*, runs: int) -> dict[str, Any]:
    """Record many runs, and return the milliseconds that reading them takes."""
    texts = Texts("words", 300, 2 * runs)
    pipeline = chain(2)
    async with Session(Settings(retries=0), backend=backend(texts), agents=WRITER) as session:
        for number in range(runs):
            await session.run(f"question number {number} about heat pumps", pipeline=pipeline)
    laps: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, work in READINGS.items():
            begin = time.perf_counter()
            with Journal() as journal:
                work(journal)
            laps.setdefault(name, []).append(time.perf_counter() - begin)
    return {"bytes": bytes_under(home()), **{name: round(min(each) * 1e3, 2) for name, each in laps.items()}}


READINGS = {
    "list_20": lambda journal: journal.resumable_first(limit=20),
    "list_all": lambda journal: journal.runs(),
    "grep_rare": lambda journal: journal.grep("question number 17 about", limit=20),
    "grep_common": lambda journal: journal.grep("heat pumps", limit=20),
    "grep_nothing": lambda journal: journal.grep("nowhere to be found"),
}
CASES = {"size": size, "step": step, "many": many}

if __name__ == "__main__":
    print(json.dumps(asyncio.run(CASES[sys.argv[1]](**json.loads(sys.argv[2])))))
