"""Runs a pipeline file in a process of its own, as another terminal would; a person who is asked never answers."""

from __future__ import annotations

import asyncio
import sys

from synaptic.backends.scripted import Reply, ScriptedBackend
from synaptic.runtime import Session
from synaptic.settings import Settings


async def never(_: object) -> None:
    """Wait for an answer that does not come."""
    await asyncio.Event().wait()


async def main(file: str, query: str, delay: float) -> None:
    """Run it, with so many seconds between the words of each reply."""
    backend = ScriptedBackend({"dig": "gold found", "write": Reply(text="one two three four", token_delay=delay)})
    async with Session(Settings(), backend=backend, approver=never) as session:  # type: ignore[arg-type]
        await session.run(query, pipeline=file)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
