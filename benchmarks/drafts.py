"""Drafts on and off: tokens a second of texts that revise a given one and of texts of their own. All servers are real.

``python benchmarks/drafts.py`` measures every row, ``--only revise --only own`` only those. Tables go to standard
error, one JSON document to standard output. It needs an engine (``synaptic engine install``).

How it is measured. The model is SmolLM2-135M, two workers of one thread each, on loopback or behind links of 1 GbE that
a proxy delays by 5 ms each way; or the embedded engine. Both sides are there at once and answer the same greedy call,
one after the other, another one first in each round, and no call is made twice: drafts come from earlier texts, too. A
figure is the median over the calls of a row, and the ratio the median of the ratios of the calls, which a busy machine
disturbs least. Passes are exact whatever the machine does. ``same text`` counts the calls whose text was, token for
token, the one without drafts: llama.cpp promises that up to rounding, which differs with the tokens of a pass.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sides.distributed_product import over_links
from sides.draft_texts import OWN, PARAGRAPHS, QUESTIONS, revision_of
from sides.pool_report import OURS, Row

from synaptic import Session
from synaptic.backends.distributed.engine.store import current_engine
from synaptic.backends.embedded.backend import EmbeddedBackend
from synaptic.messages import ChatRequest, Delta, Finished, Message, Timings, Usage, ignore_report
from synaptic.models.download import ModelStore
from synaptic.settings.load import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from synaptic.backends.base import Backend
    from synaptic.backends.distributed.engine.engine import Engine

GBE = 1000
RTT_MS = 10.0
"""Of a link that delays by 5 ms each way."""
LEAST = {"revise behind 5 ms": 2.0, "revise on loopback": 1.2, "revise embedded": 1.2}
LEAST_OWN = 0.97
LEAST_RESEARCH = 1.3
WITHOUT = "off"


@dataclass(frozen=True)
class Bench:
    """What the rows need."""

    engine: Engine
    model: Path
    rounds: int
    tokens: int


@dataclass(frozen=True)
class Told:
    """What one call gave; ``passes`` are those of the model."""

    text: str
    rate: float
    tokens: int
    drafted: int
    accepted: int

    @property
    def passes(self) -> int:
        """How often the model was asked."""
        return self.tokens - self.accepted


async def tell(backend: Backend, prompt: str, tokens: int) -> Told:
    """Have one call answered greedily."""
    request = ChatRequest(
        messages=(Message("user", prompt),), temperature=0.0, max_tokens=tokens, repetition_guard=False
    )
    text, told = "", None
    async with aclosing(backend.stream(request)) as chunks:
        async for chunk in chunks:
            match chunk:
                case Delta():
                    text += chunk.text
                case Finished(
                    usage=Usage() as usage, timings=Timings(generation_seconds=float() as seconds) as timings
                ):
                    count = usage.completion_tokens
                    drafted, accepted = timings.drafted_tokens or 0, timings.accepted_tokens or 0
                    told = Told(text, count / seconds, count, drafted, accepted)
    assert told is not None, "a call ends with its counts"
    return told


def split(bench: Bench, rtt_ms: float) -> Callable[[bool], AbstractAsyncContextManager[Backend]]:
    """Return what loads the model over two workers, with or without drafts."""

    @asynccontextmanager
    async def loaded(drafts: bool) -> AsyncGenerator[Backend]:  # noqa: FBT001 - which side it is
        mbit = GBE if rtt_ms else 0
        async with over_links(bench.engine, bench.model, 2, mbit=mbit, rtt_ms=rtt_ms, drafts=drafts) as product:
            yield product.backend

    return loaded


@asynccontextmanager
async def embedded(drafts: bool) -> AsyncGenerator[Backend]:  # noqa: FBT001 - which side it is
    """Start the embedded engine, with or without drafts."""
    async with aclosing(EmbeddedBackend(Settings(drafts=drafts))) as backend:
        await backend.start()
        yield backend


async def compared(
    bench: Bench,
    name: str,
    side: Callable[[bool], AbstractAsyncContextManager[Backend]],
    prompts: Sequence[str],
    least: float,
) -> Row:
    """Answer each prompt with and without drafts."""
    row = Row(
        name, f"tokens a second of one stream, {name}", goal=f"at least {least} x without drafts", compare="tokens/s"
    )
    found: dict[str, list[Told]] = {OURS: [], WITHOUT: []}
    async with AsyncExitStack() as stack:
        sides = {key: await stack.enter_async_context(side(key == OURS)) for key in found}
        for turn, prompt in enumerate(prompts[: bench.rounds]):
            for key in (OURS, WITHOUT) if turn % 2 else (WITHOUT, OURS):
                found[key].append(await tell(sides[key], prompt, bench.tokens))
    pairs = list(zip(found[OURS], found[WITHOUT], strict=True))
    for key, each in found.items():
        row.add(
            key,
            {
                "tokens/s": round(statistics.median(one.rate for one in each), 2),
                "tokens": sum(one.tokens for one in each),
                "passes": sum(one.passes for one in each),
                "drafted": sum(one.drafted for one in each),
                "accepted": sum(one.accepted for one in each),
            },
        )
    ours = row.sides[OURS]
    ours["of off"] = round(statistics.median(on.rate / off.rate for on, off in pairs), 3)
    ours["tokens a pass"] = round(ours["tokens"] / ours["passes"], 2)
    ours["same text"] = sum(on.text == off.text for on, off in pairs)
    ours["calls"] = len(pairs)
    row.judge(OURS, "of off", at_least=least)
    return row


def revisions() -> list[str]:
    """Return calls that ask for a given text with few changes."""
    return [revision_of(paragraph) for paragraph in PARAGRAPHS]


async def revise(bench: Bench) -> Row:
    """Revise texts over a split model behind slow links."""
    return await compared(bench, "revise behind 5 ms", split(bench, RTT_MS), revisions(), LEAST["revise behind 5 ms"])


async def revise_near(bench: Bench) -> Row:
    """Revise texts over a split model on loopback."""
    return await compared(bench, "revise on loopback", split(bench, 0), revisions(), LEAST["revise on loopback"])


async def revise_embedded(bench: Bench) -> Row:
    """Revise texts with the embedded engine."""
    return await compared(bench, "revise embedded", embedded, revisions(), LEAST["revise embedded"])


async def own(bench: Bench) -> Row:
    """Answer questions over a split model behind slow links."""
    return await compared(bench, "own texts behind 5 ms", split(bench, RTT_MS), OWN, LEAST_OWN)


async def own_near(bench: Bench) -> Row:
    """Answer questions over a split model on loopback."""
    return await compared(bench, "own texts on loopback", split(bench, 0), OWN, LEAST_OWN)


async def own_embedded(bench: Bench) -> Row:
    """Answer questions with the embedded engine."""
    return await compared(bench, "own texts embedded", embedded, OWN, LEAST_OWN)


async def research(bench: Bench) -> Row:
    """Run the pipeline ``research`` with its loop over a split model behind slow links."""
    row = Row(
        "research",
        "seconds of a whole run of research, 2 rounds, over 2 workers behind 5 ms",
        goal=f"at least {LEAST_RESEARCH} x as fast as without drafts",
        compare="tokens/s",
    )
    runs: dict[str, list[dict[str, float]]] = {OURS: [], WITHOUT: []}
    async with AsyncExitStack() as stack:
        side = split(bench, RTT_MS)
        sides = {key: await stack.enter_async_context(side(key == OURS)) for key in runs}
        for turn, question in enumerate(QUESTIONS[: max(1, bench.rounds // 2)]):
            for key in (OURS, WITHOUT) if turn % 2 else (WITHOUT, OURS):
                runs[key].append(await _run(sides[key], question))
    for key, each in runs.items():
        seconds, tokens = sum(one["seconds"] for one in each), sum(one["tokens"] for one in each)
        drafts = {name: sum(int(one[name]) for one in each) for name in ("drafted", "accepted")}
        row.add(key, {"seconds": round(seconds, 1), "tokens": tokens, "tokens/s": round(tokens / seconds, 2), **drafts})
    # Texts that part by rounding end at other places: what is compared is the time of a token of the whole run.
    row.sides[OURS]["of off"] = round(row.sides[OURS]["tokens/s"] / row.sides[WITHOUT]["tokens/s"], 3)
    row.judge(OURS, "of off", at_least=LEAST_RESEARCH)
    return row


async def _run(backend: Backend, question: str) -> dict[str, float]:
    session = Session(Settings(journal="off", temperature=0.0, max_tokens=200), backend=backend)
    began = time.perf_counter()
    result = await session.run(question, pipeline="research", inputs={"rounds": 2, "threshold": 1.0})
    seconds = time.perf_counter() - began
    timings = [step.timings for step in result.steps]
    return {
        "seconds": seconds,
        "tokens": result.usage.completion_tokens,
        "drafted": sum(one.drafted_tokens or 0 for one in timings),
        "accepted": sum(one.accepted_tokens or 0 for one in timings),
    }


ROWS = {
    "revise": revise,
    "revise-near": revise_near,
    "revise-embedded": revise_embedded,
    "own": own,
    "own-near": own_near,
    "own-embedded": own_embedded,
    "research": research,
}


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the rows by name, and print each as soon as it is there."""
    busy = os.getloadavg()[0]
    engine = await current_engine()
    bench = Bench(engine, await ModelStore().ensure(ignore_report), arguments.rounds, arguments.tokens)
    rows: dict[str, Any] = {}
    for name in arguments.only or ROWS:
        row = await ROWS[name](bench)
        rows[name] = row.document()
        print(row.table(), file=sys.stderr)
    return {
        "benchmark": "drafts",
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "engine": {"version": engine.facts.version, "cpu": engine.facts.cpu_variant},
        "load_average_before": round(busy, 2),
        "rows": rows,
    }


def main() -> None:
    """Measure, and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", choices=list(ROWS), metavar="ROW", help=f"of: {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=len(PARAGRAPHS), help="calls of each row, each of another text")
    parser.add_argument("--tokens", type=int, default=120, help="of a call, at most")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as state:
        os.environ["XDG_STATE_HOME"] = state
        print(json.dumps(asyncio.run(measure(arguments)), indent=2))


if __name__ == "__main__":
    main()
