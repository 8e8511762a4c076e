"""Goes on with the last conversation, asks in it, and is killed before anything that could answer is loaded."""

import asyncio
import os
import signal
import sys

from repl_talk import make_talk

from synaptic.runtime import Session
from synaptic.settings import Settings
from synaptic.ui.repl.sessions import SessionHolder


def end(_: Settings) -> Session:
    """End the process in the place of making a session."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it is dead")


async def ask() -> None:
    """Ask."""
    talk = make_talk()
    talk.repl.sessions = SessionHolder(end)
    if len(sys.argv) > 2:
        await talk.say("/resume")
    await talk.say(sys.argv[1])


asyncio.run(ask())
