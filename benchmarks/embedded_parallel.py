"""How much the embedded engine gains by serving four calls at once: time together / time one after the other.

The two ways alternate, so that a machine that is busy for a while hurts both; the ratio is the median over rounds.
Prints JSON. The target is at most 0.9 on two cores; the bare engine reaches 0.83 there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time

from synaptic.backends.embedded.backend import EmbeddedBackend, usable_threads
from synaptic.messages import BackendNotice, BackendReport, ChatRequest, Finished, Message
from synaptic.settings.load import Settings

CALLS = 4
TOKENS = 64
TARGET = 0.9
SUBJECTS = ("a lighthouse", "a steam engine", "a desert town", "an old library")


def requests() -> list[ChatRequest]:
    """Return calls that each generate ``TOKENS`` tokens: no story is over by then."""
    system = Message("system", "You are a storyteller.")
    return [
        ChatRequest(
            messages=(system, Message("user", f"Write a very long story about {subject}.")),
            max_tokens=TOKENS,
            temperature=0.0,
            seed=1,
        )
        for subject in SUBJECTS[:CALLS]
    ]


async def generate(backend: EmbeddedBackend, request: ChatRequest) -> int:
    """Return how many tokens the call generated."""
    tokens = 0
    async for chunk in backend.stream(request):
        if isinstance(chunk, Finished) and chunk.usage is not None:
            tokens = chunk.usage.completion_tokens
    return tokens


async def in_sequence(backend: EmbeddedBackend) -> tuple[float, int]:
    """Return seconds and tokens of one call after the other."""
    started = time.perf_counter()
    tokens = sum([await generate(backend, request) for request in requests()])
    return time.perf_counter() - started, tokens


async def together(backend: EmbeddedBackend) -> tuple[float, int]:
    """Return seconds and tokens of all calls at once."""
    started = time.perf_counter()
    tokens = sum(await asyncio.gather(*(generate(backend, request) for request in requests())))
    return time.perf_counter() - started, tokens


def say(report: BackendReport) -> None:
    """Write what the backend reports to standard error."""
    if isinstance(report, BackendNotice):
        print(report.message, file=sys.stderr)


async def measure(rounds: int) -> dict[str, object]:
    """Return the figures."""
    backend = EmbeddedBackend(Settings(embedded_parallel=CALLS), say)
    try:
        started = time.perf_counter()
        await backend.start()
        start_seconds = time.perf_counter() - started
        await together(backend)
        pairs = [(await in_sequence(backend), await together(backend)) for _ in range(rounds)]
        child_mib = resident_mib(backend.pid)
    finally:
        await backend.aclose()
    ratio = statistics.median(parallel / sequence for (sequence, _), (parallel, _) in pairs)
    return {
        "benchmark": "embedded_parallel",
        "calls": CALLS,
        "tokens_per_call": TOKENS,
        "tokens_generated": sorted({tokens for pair in pairs for _, tokens in pair}),
        "rounds": rounds,
        "threads": usable_threads(),
        "start_seconds": round(start_seconds, 2),
        "sequence_seconds": round(statistics.median(sequence for (sequence, _), _ in pairs), 3),
        "parallel_seconds": round(statistics.median(parallel for _, (parallel, _) in pairs), 3),
        "ratios": [round(parallel / sequence, 3) for (sequence, _), (parallel, _) in pairs],
        "ratio": round(ratio, 3),
        "target": TARGET,
        "met": ratio <= TARGET,
        "child_resident_mib": child_mib,
        "load_average": round(os.getloadavg()[0], 2),
    }


def resident_mib(pid: int | None) -> int | None:
    """Return the resident memory of a process in MiB."""
    import psutil  # noqa: PLC0415 - after the measurement

    return None if pid is None else round(psutil.Process(pid).memory_info().rss / 2**20)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    print(json.dumps(asyncio.run(measure(arguments.rounds)), indent=2))


if __name__ == "__main__":
    main()
