"""What the orchestration costs beside the model: a run against the bare calls that it makes.

Both sides make the same requests of the same embedded engine, interleaved in one process: one side through
session, plan, executor, policies and events, the other straight through the backend. Prints JSON.
Goal: a run takes at most 1.03 times what its calls take.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from typing import TYPE_CHECKING

from synaptic import ChatRequest, Chunk, Finished, Pipeline, Session, Settings
from synaptic.backends.embedded.backend import EmbeddedBackend
from synaptic.runtime.policies import BackendWrapper

if TYPE_CHECKING:
    from collections.abc import Awaitable

ROUNDS = 16
CHAIN = Pipeline.parse("""\
version: 1
name: chain
inputs: {query: {required: true}}
steps:
  one: {agent: editor, prompt: "{{ inputs.query }}", temperature: 0, max_tokens: 64}
  two: {agent: editor, prompt: "{{ steps.one }}", temperature: 0, max_tokens: 64}
  three: {agent: editor, prompt: "{{ steps.two }}", temperature: 0, max_tokens: 64}
result: "{{ steps.three }}"
""")
QUERY = "Explain how a heat pump works"


class Recorder(BackendWrapper):
    """Notes the requests on their way."""

    def __init__(self, inner: EmbeddedBackend) -> None:
        """Wrap the engine."""
        super().__init__(inner)
        self.requests: list[ChatRequest] = []

    def stream(self, request: ChatRequest) -> object:
        """Note the request and hand it on."""
        self.requests.append(request)
        return super().stream(request)


async def bare(backend: EmbeddedBackend, requests: list[ChatRequest]) -> int:
    """Make the calls one after the other and return how many tokens came."""
    chunks: list[Chunk] = [chunk for request in requests async for chunk in backend.stream(request)]
    return sum(chunk.usage.completion_tokens for chunk in chunks if isinstance(chunk, Finished) and chunk.usage)


async def timed(work: Awaitable[object]) -> tuple[float, float]:
    """Return the seconds that the work took, and the seconds of processor time of this process."""
    started, busy = time.perf_counter(), time.process_time()
    await work
    return time.perf_counter() - started, time.process_time() - busy


async def main() -> dict[str, object]:
    """Return the figures."""
    backend = EmbeddedBackend(Settings())
    recorder = Recorder(backend)
    runs: list[tuple[float, float]] = []
    alone: list[tuple[float, float]] = []
    try:
        async with Session(Settings(journal="off"), backend=recorder) as session:
            tokens = (await session.run(QUERY, pipeline=CHAIN)).usage.completion_tokens
            requests = list(recorder.requests)
            bare_tokens = await bare(backend, requests)
            for turn in range(ROUNDS):
                # Each side goes first as often as the other: the machine's mood drifts.
                sides = (runs, alone) if turn % 2 else (alone, runs)
                for side in sides:
                    work = session.run(QUERY, pipeline=CHAIN) if side is runs else bare(backend, requests)
                    side.append(await timed(work))
    finally:
        await backend.aclose()
    return {
        "benchmark": "orchestration overhead, embedded engine",
        "rounds": ROUNDS,
        "tokens": {"run": tokens, "bare_calls": bare_tokens},
        "seconds": {"run": middle(runs, 0), "bare_calls": middle(alone, 0)},
        "ratio_of_medians": round(middle(runs, 0) / middle(alone, 0), 4),
        "ratio_of_fastest": round(min(runs)[0] / min(alone)[0], 4),
        "goal_ratio": 1.03,
        "processor_seconds": {"run": middle(runs, 1), "bare_calls": middle(alone, 1)},
        "orchestration_processor_share": round((middle(runs, 1) - middle(alone, 1)) / middle(runs, 0), 4),
    }


def middle(times: list[tuple[float, float]], column: int) -> float:
    """Return the median of one column."""
    return round(statistics.median(row[column] for row in times), 4)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main()), indent=2))
