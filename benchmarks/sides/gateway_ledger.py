"""The usage ledger of ``synaptic serve`` against the counts of scripted nodes, with clients that leave early."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import aiohttp
from tool_node import MODEL, tool_node

from synaptic.runtime import Journal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tool_node import ToolNode

AT_ONCE = 32
LEAVE = 10  # one in so many calls is left in mid-stream
PAUSE = "pause"  # the word at which a node waits until its client has gone
PLACES = 64
PATIENCE_SECONDS = 120.0


def asked(words: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """Return a call of each kind that there is, in every dialect."""
    text = " ".join(words)
    chat = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
    return [
        ("/api/chat", {**chat, "stream": True}),
        ("/v1/chat/completions", {**chat, "stream": True}),
        ("/v1/messages", {**chat, "stream": True, "max_tokens": 99}),
        ("/api/generate", {"model": MODEL, "prompt": text}),
        ("/v1/completions", {"model": MODEL, "prompt": text, "stream": True}),
        ("/api/chat", {**chat, "stream": False}),
        ("/v1/chat/completions", {**chat, "n": 2}),
        ("/v1/messages", {**chat, "max_tokens": 99}),
        ("/api/embed", {"model": MODEL, "input": words}),
        ("/v1/embeddings", {"model": MODEL, "input": text}),
        ("/v1/chat/completions", {**chat, "model": "pipeline/answer"}),
    ]


STREAMS = 5  # of them, the first so many are streams of one reply


@asynccontextmanager
async def recording_gateway(nodes: Sequence[str]) -> AsyncIterator[tuple[str, Path]]:
    """Run ``synaptic serve`` with a state of its own; give its address and its journal."""
    with TemporaryDirectory() as folder:
        home = Path(folder)
        config, log = home / "settings.json", home / "log"
        chosen = [{"url": url, "parallel": PLACES} for url in nodes]
        config.write_text(json.dumps({"nodes": chosen, "task_distribution_enabled": True}))
        environment = {**os.environ, "HOME": folder, "XDG_STATE_HOME": folder, "XDG_CONFIG_HOME": folder}
        command = [sys.executable, "-m", "synaptic", "serve", "--port", "0", "--config", str(config), "--no-keys"]
        with log.open("w") as written:
            process = await asyncio.create_subprocess_exec(
                *command, stdout=subprocess.DEVNULL, stderr=written, env=environment
            )
        try:
            while "serving at " not in (said := log.read_text()):
                if process.returncode is not None:
                    raise SystemExit(f"the gateway did not start: {said}")
                await asyncio.sleep(0.05)
            yield said.partition("serving at ")[2].split()[0], home / "synapticllamas" / "journal.sqlite3"
        finally:
            process.terminate()
            await process.wait()


async def call(session: aiohttp.ClientSession, place: int, chance: random.Random, *, racing: bool) -> int:
    """Make the call that has this place, and return how many calls that is for the nodes' ledger."""
    words = [f"qz{index}" for index in range(chance.randint(2, 12))]
    leaves = place % LEAVE == 0
    if not leaves:
        kinds = asked(words)
        path, body = kinds[place % len(kinds)]
        async with session.post(path, json=body) as reply:
            assert reply.status == 200, (path, await reply.text())
            await reply.read()
        return body.get("n", 1)
    kept = chance.randint(1, len(words) - 1)
    if not racing:
        words.insert(kept, PAUSE)
    path, body = asked(words)[place // LEAVE % STREAMS]
    async with session.post(path, json=body) as reply:
        said = b""
        while said.count(b"qz") < kept and not reply.content.at_eof():
            said += await reply.content.readany()
        reply.close()
    return 1


async def compared(calls: int, *, racing: bool) -> dict[str, Any]:
    """Make so many calls, and return what the nodes and the ledger have counted."""
    chance = random.Random(7)
    async with tool_node() as one, tool_node() as two:
        nodes = [one, two]
        for node in nodes:
            node.pause_at, node.pace = PAUSE, 0.005 if racing else 0.0
        async with recording_gateway([node.url for node in nodes]) as (url, journal):
            left, made = iter(range(calls)), 0
            began = time.perf_counter()
            async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as session:

                async def client() -> None:
                    nonlocal made
                    for place in left:
                        count = await call(session, place, chance, racing=racing)
                        made += count

                await asyncio.gather(*[client() for _ in range(AT_ONCE)])
            seconds = time.perf_counter() - began
            await asyncio.gather(*[node.idle.wait() for node in nodes])
            counted = await noted(journal, made)
    return {"calls": made, "seconds": round(seconds, 1), **difference(nodes, counted)}


async def noted(journal: Path, calls: int) -> dict[str, Any]:
    """Return the sums of the ledger, once it has so many calls."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        with Journal(journal) as opened:
            found = opened.usage()
            if (found and found[0].calls >= calls) or time.monotonic() > until:
                by_status = {str(used.group["status"]): used.calls for used in opened.usage("status")}
                by_dialect = {str(used.group["dialect"]): used.calls for used in opened.usage("dialect")}
                return {"sum": found[0], "by_status": by_status, "by_dialect": by_dialect}
        await asyncio.sleep(0.1)


def difference(nodes: Sequence[ToolNode], counted: dict[str, Any]) -> dict[str, Any]:
    """Return both counts, and by how much they differ."""
    total = counted["sum"]
    own = {"prompt": sum(node.told_prompt for node in nodes), "completion": sum(node.sent for node in nodes)}
    ledger = {"prompt": total.prompt_tokens, "completion": total.completion_tokens}
    return {
        "nodes": own,
        "ledger": {**ledger, "estimated_prompt": total.estimated_tokens, "calls": total.calls},
        "by_status": counted["by_status"],
        "by_dialect": counted["by_dialect"],
        "difference": {name: ledger[name] - own[name] for name in own},
    }


async def ledger_figures(*, quick: bool) -> dict[str, Any]:
    """Return the figures: clients that leave while their node says nothing, and while it goes on sending."""
    calls = 1000 if quick else 10_000
    return {
        "left at a pause": await compared(calls, racing=False),
        "left while pieces come": await compared(calls, racing=True),
    }
