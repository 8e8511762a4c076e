"""A split model over the workers of the settings: it answers the prompts of its standard input, and reports as JSON.

python split_model_driver.py SETTINGS_AS_JSON
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import aclosing
from dataclasses import asdict

from chunk_support import collected

from synaptic.backends.distributed.backend import DistributedBackend
from synaptic.errors import SynapticError
from synaptic.messages import BackendNotice, BackendProgress, ChatRequest, Chunk, Continued, Delta, Message, Restarted
from synaptic.settings import Settings


def tell(**values: object) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def report(news: object) -> None:
    if isinstance(news, BackendNotice):
        tell(said=news.message)
    elif isinstance(news, BackendProgress):
        tell(loading=asdict(news)["label"])


async def main() -> None:
    """Answer each line, until there are no more."""
    backend = DistributedBackend(Settings(**json.loads(sys.argv[1])), report)
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            await answer(backend, json.loads(line))
    finally:
        await backend.aclose()


async def answer(backend: DistributedBackend, asked: dict[str, object]) -> None:
    """Stream one answer, piece by piece."""
    request = ChatRequest(
        messages=(Message("user", str(asked["prompt"])),), temperature=0.0, seed=1, max_tokens=int(str(asked["tokens"]))
    )
    chunks: list[Chunk] = []
    tell(sent=True)
    try:
        async with aclosing(backend.stream(request)) as stream:
            async for chunk in stream:
                chunks.append(chunk)
                if isinstance(chunk, Delta):
                    tell(piece=chunk.text)
    except SynapticError as error:
        tell(failed=str(error))
        return
    breaks = sum(isinstance(chunk, Continued | Restarted) for chunk in chunks)
    placements = [one.placement for one in backend.coordinators()]
    workers = [str(endpoint) for placement in placements if placement for endpoint in placement.endpoints]
    tell(answer=collected(chunks), breaks=breaks, workers=workers)


if __name__ == "__main__":
    asyncio.run(main())
