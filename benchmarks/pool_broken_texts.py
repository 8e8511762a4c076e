"""Texts whose node is killed in the middle, over three kinds of chat template, 50 times each. Prints JSON.

The nodes are ``synaptic serve`` with the embedded model; ``tests/support/chat_turns.py`` says what the three kinds do
with an answer that is to be continued. In every call the node that serves it is killed (SIGKILL) after a random number
of its chunks, and started again afterwards. The same call without a kill is what the text is compared with.

- ``equal``: continued by another node, and the same text in the end;
- ``restarted``: begun anew, the reader was told, and the same text in the end;
- ``garbled``: anything else; ``unbroken`` is a call that ended before the kill met it.

    python benchmarks/pool_broken_texts.py [BREAKS]
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from chat_turns import TEMPLATES, Turn
from ollama_nodes import MODEL, RealNode, real_nodes

from synaptic import Settings
from synaptic.backends.pool.backend import PoolBackend
from synaptic.messages import ChatRequest, Continued, Delta, Message, Restarted, Timeouts

BREAKS = 50
TOKENS = 60
QUESTIONS = (
    "Tell me about rivers.",
    "Once upon a time: tell me a story.",
    "What is a heat pump?",
    "Write five short sentences about winter.",
    "How is bread made?",
)
GREEDY = ChatRequest(
    messages=(), model=MODEL, temperature=0.0, seed=1, max_tokens=TOKENS, timeouts=Timeouts(first_token=60.0, idle=60.0)
)


async def call(nodes: list[RealNode], request: ChatRequest, kill_after: int | None = None) -> list[object]:
    """Make a call, kill its node after so many chunks; return what came: texts, and what was told."""
    told: list[object] = []
    chunks = 0
    settings = Settings(nodes=[node.url for node in nodes], model=MODEL)
    async with PoolBackend(settings) as pool, aclosing(pool.stream(request)) as stream:
        async for chunk in stream:
            if isinstance(chunk, Delta):
                chunks += 1
                told.append(chunk.text)
            elif isinstance(chunk, (Restarted, Continued)):
                told.append(chunk)
            if chunks == kill_after:
                (busy,) = [nodes[key] for key, member in pool.members.items() if member.state.in_flight]
                busy.kill()
                kill_after = None
    return told


def text_of(told: list[object]) -> str:
    """Return the text that holds in the end."""
    last = max((at for at, part in enumerate(told) if isinstance(part, Restarted)), default=-1)
    return "".join(part for part in told[last + 1 :] if isinstance(part, str))


def verdict(told: list[object], whole: str) -> str:
    """Return what became of a text."""
    if text_of(told) != whole:
        return "garbled"
    if any(isinstance(part, Restarted) for part in told):
        return "restarted"
    return "equal" if any(isinstance(part, Continued) for part in told) else "unbroken"


async def one_kind(turn: Turn, count: int, rng: random.Random) -> dict[str, object]:
    """Break so many texts of nodes with one kind of template; return what became of them."""
    found: Counter[str] = Counter()
    wrong: list[dict[str, str]] = []
    async with real_nodes(2, turn=turn) as nodes:
        requests = [replace(GREEDY, messages=(Message("user", question),)) for question in QUESTIONS]
        uninterrupted = [await call(nodes, request) for request in requests]
        for number in range(count):
            which = number % len(requests)
            whole, chunks = text_of(uninterrupted[which]), len(uninterrupted[which])
            told = await call(nodes, requests[which], rng.randint(1, chunks - 1))
            became = verdict(told, whole)
            found[became] += 1
            if became == "garbled":
                wrong.append({"whole": whole, "text": text_of(told)})
            sys.stderr.write(f"{turn} {number + 1}/{count}: {became}\n")
            for node in nodes:
                if not node.running:
                    await node.restart()
    return {"breaks": found.total(), **found, "garbled_texts": wrong}


async def main(count: int) -> None:
    """Break texts of each kind and print what became of them."""
    rng = random.Random(4)
    kinds = {turn: await one_kind(turn, count, rng) for turn in TEMPLATES}
    total: Counter[str] = Counter()
    for kind in kinds.values():
        total.update({name: number for name, number in kind.items() if isinstance(number, int)})
    names = ("breaks", "equal", "restarted", "unbroken", "garbled")
    print(json.dumps({**{name: total[name] for name in names}, "kinds": kinds}, indent=1))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else BREAKS))
