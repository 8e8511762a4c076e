"""A soak of the gateway: clients of all kinds, a part of whom go in mid-stream, before nodes that break connections.

What is counted while nothing is under way, once all caches are warm and again at the end: descriptors, tasks, memory.
Clients chat in three dialects, as streams and whole; ask pipelines, some of which a person would have to answer; follow
the page and leave it; send what is no request. Prints JSON; ends with 1 where a goal is missed: descriptors and tasks
back where they were, at most 10 MB more of memory. Of runs, the page keeps 4 MB of what it told.

    nice -n 10 python benchmarks/gateway_soak.py --minutes 10
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

import aiohttp
from gateway_support import gateway
from sides.pool_processes import child_node
from soak import main, still

from synaptic.server.ollama_api import ServeSettings
from synaptic.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sides.pool_processes import ChildNode
    from soak import Still

NODES, AT_ONCE, TOKENS = 3, 8, 8
FAULTS, LEAVING, WARM, GOAL_MB = 0.1, 0.2, 0.3, 10.0
ASKS = """
version: 1
name: asks
inputs:
  query: {type: string, required: true}
agents:
  writer: {prompt: You write.}
steps:
  write: {agent: writer, approve: output, prompt: "{{ inputs.query }}"}
result: "{{ steps.write }}"
"""
SAID = [{"role": "user", "content": "one two three"}]
CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/api/chat", {"model": "m", "messages": SAID}),
    ("/api/generate", {"model": "m", "prompt": "one two", "stream": False}),
    ("/v1/chat/completions", {"model": "m", "messages": SAID, "stream": True}),
    ("/v1/messages", {"model": "m", "messages": SAID, "max_tokens": TOKENS, "stream": True}),
    ("/v1/responses", {"model": "m", "input": "one two"}),
    ("/api/chat", {"model": "pipeline/whole", "messages": SAID}),
    ("/api/chat", {"model": 7}),
)
"""What clients ask; the last is no request."""


async def act(
    client: aiohttp.ClientSession, nodes: Sequence[ChildNode], rng: random.Random, seen: Counter[str]
) -> None:
    """Do one thing that clients do, and perhaps have a node break its next connection."""
    if rng.random() < FAULTS:
        fault = {"kind": "drop_after_n", "after": rng.randrange(TOKENS + 1), "reset": rng.random() < 0.5, "times": 1}
        await rng.choice(nodes).control(fault=fault)
    choice = rng.random()
    if choice < 0.05:
        await look(client, seen)
    elif choice < 0.1:
        await be_asked(client, rng, seen)
    else:
        path, body = rng.choice(CALLS)
        async with client.post(path, json=body) as reply:
            seen[f"{path} {reply.status}"] += 1
            if rng.random() < LEAVING:
                await reply.content.read(1)
                reply.close()
            else:
                await reply.read()


async def look(client: aiohttp.ClientSession, seen: Counter[str]) -> None:
    """Open the page's stream, and leave it."""
    async with client.get("/ui/events") as reply:
        seen[f"/ui/events {reply.status}"] += 1
        await reply.content.readline()
    async with client.get("/ui/runs") as reply:
        await reply.read()


async def be_asked(client: aiohttp.ClientSession, rng: random.Random, seen: Counter[str]) -> None:
    """Begin a run that waits for a person; answer, or cancel it."""
    async with client.post("/ui/ask", json={"pipeline": "pipeline/asks", "query": "one"}) as reply:
        told = await reply.json()
    seen[f"/ui/ask {reply.status}"] += 1
    if reply.status >= 400:
        return
    run = f"/ui/runs/{told['run_id']}"
    while True:
        async with client.get(run) as reply:
            stands = await reply.json()
        if stands["ended"] is not None:
            return
        if stands["asks"]:
            break
        await asyncio.sleep(0.05)
    answer = {"step": "write", "decision": rng.choice(["accepted", "refused"])}
    way, body = rng.choice([("answer", answer), ("cancel", {})])
    async with client.post(f"{run}/{way}", json=body) as reply:
        seen[f"{way} {reply.status}"] += 1


async def work(url: str, nodes: Sequence[ChildNode], rng: random.Random, seen: Counter[str], seconds: float) -> Still:
    """Do that for so many seconds, several at once; return what there is afterwards."""
    end = time.monotonic() + seconds

    async def one_after_the_other(client: aiohttp.ClientSession) -> None:
        while time.monotonic() < end:
            try:
                await act(client, nodes, rng, seen)
            except (aiohttp.ClientError, TimeoutError) as error:
                seen[type(error).__name__] += 1

    async with aiohttp.ClientSession(url) as client, asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(one_after_the_other(client))
    for node in nodes:
        await node.control(forget=True)
    await asyncio.sleep(30.0 if seconds > 60 else 3.0)  #  connections to nodes that idle are closed
    return still()


async def soak(minutes: float, seed: int) -> dict[str, Any]:
    """Run it; return the figures."""
    rng, seen = random.Random(seed), Counter[str]()
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory())
        os.environ["XDG_STATE_HOME"] = folder
        file = Path(folder) / "asks.yaml"
        file.write_text(ASKS)
        whole = Path(folder) / "whole.yaml"
        whole.write_text(ASKS.replace(", approve: output", ""))
        config = {"models": ["m"], "loaded": ["m"], "parallel": AT_ONCE, "tokens": TOKENS}
        nodes = [await stack.enter_async_context(child_node(**config)) for _ in range(NODES)]
        settings = Settings(nodes=[{"url": node.url, "parallel": AT_ONCE} for node in nodes], model="m")
        served = ServeSettings(pipelines={"asks": file, "whole": whole})
        url = await stack.enter_async_context(gateway(settings, serve=served))
        tracemalloc.start()
        before = await work(url, nodes, rng, seen, minutes * 60 * WARM)
        done = seen.total()
        after = await work(url, nodes, rng, seen, minutes * 60 * (1 - WARM))
        done = seen.total() - done
    kept = (after.heap - before.heap) / max(1, done) / 1000
    return {
        "minutes": minutes,
        "seen": dict(sorted(seen.items())),
        "requests_measured": done,
        "heap_kb": [round(before.heap / 1000, 1), round(after.heap / 1000, 1)],
        "kept_kb_a_request": round(kept, 4),
        "types_that_grew": dict((after.types - before.types).most_common(8)),
        "descriptors": [before.descriptors, after.descriptors],
        "tasks": [before.tasks, after.tasks],
        "resident_mb": [round(before.resident / 1e6, 1), round(after.resident / 1e6, 1)],
        "goals": {
            "descriptors": after.descriptors <= before.descriptors,
            "tasks": after.tasks <= before.tasks,
            "resident": after.resident - before.resident <= GOAL_MB * 1e6,
            "no_5xx_of_ours": not any(name.endswith(" 500") for name in seen),
        },
    }


if __name__ == "__main__":
    sys.exit(main(soak, __doc__.partition("\n")[0]))
