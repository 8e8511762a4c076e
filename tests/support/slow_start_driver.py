"""Asks a question in a conversation, of a backend that is killed with its program while it makes itself ready."""

import asyncio
import os
import signal
import sys

from synaptic.backends.base import Capabilities
from synaptic.backends.scripted import ScriptedBackend
from synaptic.messages import Message
from synaptic.runtime.journal import Journal
from synaptic.runtime.session import Session
from synaptic.settings import Settings


async def start() -> None:
    """Load a model for ever; end the process once the question is in the file."""
    while True:
        with Journal() as journal:
            if journal.runs(session=sys.argv[1]):
                os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(0.01)


async def ask() -> None:
    """Ask."""
    backend = ScriptedBackend()
    backend.capabilities = Capabilities(start=start)
    before = (Message("user", "My name is Ada."), Message("assistant", "Hello."))
    async with Session(Settings(pipeline="answer"), backend=backend) as session:
        await session.run("And in winter?", conversation=before, session=sys.argv[1])


asyncio.run(ask())
