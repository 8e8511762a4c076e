"""The floor: bare aiohttp, which reads Ollama's lines and nothing else.

It knows how many places the nodes have, keeps no health and repeats nothing; each call goes to the node with the fewest
calls for its places, or to each node in turn.
"""

from __future__ import annotations

import itertools
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

PACKAGES = ("aiohttp",)


class Floor:
    """Sends each call to a node and reads the lines."""

    blocking = False

    def __init__(self, session: aiohttp.ClientSession, nodes: list[dict[str, Any]], *, in_turn: bool) -> None:
        self._session = session
        self._nodes = [{**node, "busy": 0} for node in nodes]
        self._turns = itertools.cycle(self._nodes) if in_turn else None

    async def call(self, prompt: str, tokens: int) -> str:
        """Return the answer's text."""
        node = next(self._turns) if self._turns else min(self._nodes, key=lambda each: each["busy"] / each["parallel"])
        body = {
            "model": "m",
            "messages": [{"role": "user", "content": prompt}],
            "stream": True,
            "options": {"num_ctx": 4096, "num_predict": tokens},
        }
        text = ""
        node["busy"] += 1
        try:
            async with self._session.post(f"{node['url']}/api/chat", json=body) as response:
                response.raise_for_status()
                async for line in response.content:
                    text += json.loads(line)["message"]["content"]
        finally:
            node["busy"] -= 1
        return text


@asynccontextmanager
async def opened(nodes: list[dict[str, Any]], *, in_turn: bool = False) -> AsyncGenerator[Floor]:
    """Give a floor over ``nodes`` (``url``, ``parallel``)."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield Floor(session, nodes, in_turn=in_turn)
