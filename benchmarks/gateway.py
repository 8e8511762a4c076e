"""What the gateway adds to a call: ``synaptic serve`` and a bare aiohttp proxy in front of the same scripted nodes.

Nodes, gateway, proxy and client are processes of their own. Prints JSON. ``--quick`` asks less.
Goals: at most 1.0 ms more for a whole answer and 1.5 ms to the first chunk, one at a time, at nodes that answer at
once; 1000 calls/s with 32 at once; 600 of the 640 that four nodes of 50 ms with 8 places each can serve; 500 streams
of 10 tokens/s at once without a token that is more than 100 ms late, in 300 MB; at most 20 us for an event with the
journal on; a client that goes away has its call closed at the node within 100 ms, the worst of 200; the usage ledger
has what the nodes count in 10,000 calls of all dialects, one in ten left in mid-stream (the argument ``ledger``
measures that alone).

The processor's time of gateway and proxy stands beside the clock's: it says the same on a machine that has other work.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import aiohttp
import psutil
from aiohttp import web

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from sides.gateway_ledger import ledger_figures
from tool_node import MODEL, tool_node

from synaptic import Agent, ChatRequest, Chunk, Delta, Finished, ModelInfo, Pipeline, Session, Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from synaptic import Event

QUICK = "--quick" in sys.argv
ONE_AT_A_TIME, CALLS, GONE = (50, 320, 40) if QUICK else (400, 3200, 200)
AT_ONCE = 32
STREAMS, STARTS_A_SECOND = 500, 100
PACE, LATE = 0.1, 0.1
"""Seconds between two tokens of a stream, and how much more it may be between two that arrive."""

MOST_PLACES, STREAM_NODES = 64, 8
TOKENS = 80 if QUICK else 300
_TOKEN = re.compile(rb'"done": ?false')
EVENTS = 5_000
WRITER = {"writer": Agent(name="writer", prompt="Write.")}
ONE_STEP = Pipeline.parse("""\
version: 1
name: one
inputs: {query: {}}
steps:
  one: {agent: writer, prompt: "{{ inputs.query }}"}
result: "{{ steps.one }}"
""")
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "one two three"}]}


async def be_a_node(seconds: float) -> None:
    """Serve as a node that takes so long for a call of three words."""
    async with tool_node() as node:
        node.pace = seconds / 3
        sys.stdout.write(f"{node.url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


async def be_a_proxy(url: str) -> None:
    """Pass on whatever comes, as simply as can be."""
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def passed(request: web.Request) -> web.StreamResponse:
        async with session.request(request.method, url + request.path, data=await request.read()) as got:
            response = web.StreamResponse(status=got.status, headers={"content-type": got.headers["content-type"]})
            await response.prepare(request)
            async for piece in got.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", passed)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sys.stdout.write(f"http://127.0.0.1:{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


@dataclass(frozen=True)
class Side:
    """A process that serves."""

    url: str
    process: psutil.Process

    def seconds(self) -> float:
        """Return the processor's time that it has taken."""
        times = self.process.cpu_times()
        return times.user + times.system

    def megabytes(self) -> float:
        """Return the memory that it has."""
        return self.process.memory_info().rss / 1e6


@contextmanager
def side(*arguments: str) -> Iterator[Side]:
    """Run this file as a node or a proxy for a block."""
    process = subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield Side(process.stdout.readline().strip(), psutil.Process(process.pid))
    finally:
        process.kill()
        process.wait()


@contextmanager
def gateway(nodes: Sequence[str], places: int) -> Iterator[Side]:
    """Run ``synaptic serve`` over nodes for a block."""
    with TemporaryDirectory() as folder:
        config, log = Path(folder) / "settings.json", Path(folder) / "log"
        chosen = [{"url": url, "parallel": places} for url in nodes]
        config.write_text(json.dumps({"nodes": chosen, "task_distribution_enabled": True}))
        command = [sys.executable, "-m", "synaptic", "serve", "--port", "0", "--config", str(config)]
        with log.open("w") as written:
            own_state = {**os.environ, "XDG_STATE_HOME": folder}  # its calls are noted there
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=written, env=own_state)
        try:
            while "serving at " not in (said := log.read_text()):
                if process.poll() is not None:
                    raise SystemExit(f"the gateway did not start: {said}")
                time.sleep(0.05)
            yield Side(said.partition("serving at ")[2].split()[0], psutil.Process(process.pid))
        finally:
            process.terminate()
            process.wait(30)


async def one_at_a_time(asked: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Return milliseconds of each address: of whole answers, and to the first chunk of streams.

    They are asked in turns: what else the machine does meanwhile, it does to all of them.
    """
    whole: dict[str, list[float]] = {name: [] for name in asked}
    first: dict[str, list[float]] = {name: [] for name in asked}
    async with aiohttp.ClientSession() as session:
        for _ in range(ONE_AT_A_TIME):
            for name, url in asked.items():
                began = time.perf_counter()
                async with session.post(url, json={**BODY, "stream": False}) as reply:
                    await reply.read()
                whole[name].append(time.perf_counter() - began)
                began = time.perf_counter()
                async with session.post(url, json={**BODY, "stream": True}) as reply:
                    await reply.content.readany()
                    first[name].append(time.perf_counter() - began)
                    await reply.read()
    return {
        name: {
            "whole_ms": statistics.median(whole[name]) * 1e3,
            "first_chunk_ms": statistics.median(first[name]) * 1e3,
        }
        for name in asked
    }


async def many(url: str, calls: int) -> float:
    """Return calls a second with many at once."""
    left = iter(range(calls))
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def client() -> None:
            for _ in left:
                async with session.post("/api/chat", json={**BODY, "stream": False}) as reply:
                    assert reply.status == 200, await reply.text()
                    await reply.read()

        began = time.perf_counter()
        await asyncio.gather(*[client() for _ in range(AT_ONCE)])
        return calls / (time.perf_counter() - began)


async def processor_ms(side: Side, calls: int) -> float:
    """Return the processor's milliseconds of a call, with many at once."""
    before = side.seconds()
    await many(side.url, calls)
    return (side.seconds() - before) / calls * 1e3


async def stream(url: str, after: float) -> list[float]:
    """Begin a stream so many seconds from now; return when each of its tokens came.

    With a bare socket, so that the client takes little of the processor.
    """
    await asyncio.sleep(after)
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "word " * TOKENS}]}).encode()
    reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
    head = f"POST /api/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    times: list[float] = []
    while data := await reader.read(2**16):
        times += [time.perf_counter()] * len(_TOKEN.findall(data))
    writer.close()
    return times


async def streams(*urls: str) -> dict[str, float]:
    """Return how late tokens come while all streams are under way, spread over some addresses."""
    begun = [stream(urls[place % len(urls)], place / STARTS_A_SECOND) for place in range(STREAMS)]
    found = await asyncio.gather(*begun)
    broken = sum(len(times) != TOKENS for times in found)
    first, last = max(times[0] for times in found if times), min(times[-1] for times in found if times)
    late = [
        after - before - PACE
        for times in found
        for before, after in pairwise(times)
        if first <= before and after <= last
    ]
    return {
        "broken": broken,
        "seconds_with_all": last - first,
        "tokens": len(late),
        "late": sum(seconds > LATE for seconds in late),
        "worst_ms": max(late, default=0.0) * 1e3,
    }


async def gone() -> dict[str, float]:
    """Return milliseconds from a client's going away to the end of its call at the node, which is in this process."""
    async with tool_node() as node:
        with gateway([node.url], AT_ONCE) as ours:
            node.pace = 3600.0
            took = []
            async with aiohttp.ClientSession(ours.url) as session:
                for _ in range(GONE):
                    reply = await session.post("/api/chat", json=BODY)
                    await reply.content.readany()
                    began = time.perf_counter()
                    reply.close()
                    await node.idle.wait()
                    took.append(time.perf_counter() - began)
    return {"median_ms": statistics.median(took) * 1e3, "worst_ms": max(took) * 1e3}


class Teller:
    """A backend whose reply is many tokens at once."""

    name = "teller"

    async def stream(self, request: ChatRequest) -> AsyncIterator[Chunk]:
        """Yield the reply."""
        del request
        for _ in range(EVENTS):
            yield Delta("word ")
        yield Finished("stop")

    async def models(self) -> list[ModelInfo]:
        """Return the one model."""
        return [ModelInfo(name=MODEL)]

    async def aclose(self) -> None:
        """Do nothing."""


async def event_us() -> float:
    """Return the processor's microseconds of an event: a token of a run that is recorded, and told to one who listens.

    What the backend takes itself is in it.
    """
    laps = []
    for _ in range(5):
        heard: list[Event] = []
        with TemporaryDirectory() as home:
            os.environ["XDG_STATE_HOME"] = home
            async with Session(Settings(retries=0, max_tokens=100_000), backend=Teller(), agents=WRITER) as session:
                await session.run("why", pipeline=ONE_STEP)
                began = time.process_time()
                (await session.run("why", pipeline=ONE_STEP, on_event=heard.append)).raise_for_status()
            laps.append((time.process_time() - began) / len(heard) * 1e6)
    return min(laps)


async def main() -> None:
    """Measure all, and print it."""
    told: dict[str, Any] = {"load_before": os.getloadavg()[0]}
    with side("node", "0") as node, side("proxy", node.url) as proxy, gateway([node.url], AT_ONCE) as ours:
        asked = {
            "direct": f"{node.url}/api/chat",
            "aiohttp proxy": f"{proxy.url}/api/chat",
            "gateway, Ollama": f"{ours.url}/api/chat",
            "gateway, OpenAI": f"{ours.url}/v1/chat/completions",
        }
        for _ in range(2):  # the first time warms up
            told |= await one_at_a_time(asked)
        told["calls_a_second"] = {
            "direct": await many(node.url, CALLS),
            "aiohttp proxy": await many(proxy.url, CALLS),
            "gateway": await many(ours.url, CALLS),
        }
        told["processor_ms_a_call"] = {
            "aiohttp proxy": await processor_ms(proxy, CALLS),
            "gateway": await processor_ms(ours, CALLS),
        }
    with ExitStack() as stack:
        nodes = [stack.enter_context(side("node", "0.05")).url for _ in range(4)]
        told["four_nodes_of_50_ms"] = await many(stack.enter_context(gateway(nodes, 8)).url, CALLS)
    with ExitStack() as stack:
        nodes = [stack.enter_context(side("node", f"{PACE * 3}")).url for _ in range(STREAM_NODES)]
        ours = stack.enter_context(gateway(nodes, MOST_PLACES))
        told["streams"] = {"direct": await streams(*nodes)}
        before = ours.seconds()
        told["streams"]["gateway"] = await streams(ours.url)
        told["streams"]["gateway"] |= {
            "processor_us_a_token": (ours.seconds() - before) / STREAMS / TOKENS * 1e6,
            "megabytes": ours.megabytes(),
        }
    told["processor_us_an_event"] = await event_us()
    told["client_gone"] = await gone()
    told["ledger"] = await ledger_figures(quick=QUICK)
    told["load_after"] = os.getloadavg()[0]
    sys.stdout.write(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["node", seconds]:
            asyncio.run(be_a_node(float(seconds)))
        case ["proxy", address]:
            asyncio.run(be_a_proxy(address))
        case ["ledger", *_]:
            sys.stdout.write(json.dumps(asyncio.run(ledger_figures(quick=QUICK)), indent=2) + "\n")
        case _:
            asyncio.run(main())
