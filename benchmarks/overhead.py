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

from synaptic import ChatRequest, Chunk, Pipeline, Session, Settings
from synaptic.backends.embedded import EmbeddedBackend
from synaptic.runtime.policies import BackendWrapper

ROUNDS = 9
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
    return sum(chunk.usage.completion_tokens for chunk in chunks if chunk.usage)


async def main() -> dict[str, object]:
    """Return the figures."""
    backend = EmbeddedBackend(Settings())
    recorder = Recorder(backend)
    walls: dict[str, list[float]] = {"run": [], "bare": []}
    cpu: list[float] = []
    try:
        async with Session(Settings(), backend=recorder) as session:
            await session.run(QUERY, pipeline=CHAIN)
            requests = list(recorder.requests)
            await bare(backend, requests)
            for _ in range(ROUNDS):
                started, busy = time.perf_counter(), time.process_time()
                result = await session.run(QUERY, pipeline=CHAIN)
                walls["run"].append(time.perf_counter() - started)
                cpu.append((time.process_time() - busy) / walls["run"][-1])
                started = time.perf_counter()
                bare_tokens = await bare(backend, requests)
                walls["bare"].append(time.perf_counter() - started)
    finally:
        await backend.aclose()
    ratios = [run / alone for run, alone in zip(walls["run"], walls["bare"], strict=True)]
    return {
        "benchmark": "orchestration overhead, embedded engine",
        "rounds": ROUNDS,
        "tokens_per_run": result.usage.completion_tokens,
        "tokens_of_bare_calls": bare_tokens,
        "run_seconds": round(statistics.median(walls["run"]), 4),
        "bare_calls_seconds": round(statistics.median(walls["bare"]), 4),
        "ratio": round(statistics.median(ratios), 4),
        "goal_ratio": 1.03,
        "cpu_share_of_orchestrating_process": round(statistics.median(cpu), 4),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main()), indent=2))
