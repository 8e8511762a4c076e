"""Resumes the runs whose ids come on its input, one a line; prints for each how that went."""

import asyncio
import os
import sys

from past_support import SETTINGS

from synaptic.backends.scripted import ScriptedBackend
from synaptic.errors import RunOwned
from synaptic.runtime.session import Session


async def resumed(run_id: str) -> str:
    """Return ``got PID CALLS``, or what it was told."""
    backend = ScriptedBackend(first_token_delay=0.2)
    try:
        async with Session(SETTINGS, backend=backend) as session:
            await session.resume(run_id)
    except RunOwned as exc:
        return f"{os.getpid()} told {exc.message} {len(backend.requests)}"
    return f"{os.getpid()} got {len(backend.requests)}"


def tell(line: str) -> None:
    """Write a line."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


tell("ready")
for line in sys.stdin:
    tell(asyncio.run(resumed(line.strip())))
