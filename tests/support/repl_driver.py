"""The REPL with a scripted backend whose replies are slow, or fail, on demand; for tests on a pseudo-terminal."""

from __future__ import annotations

import sys
from itertools import count
from typing import TYPE_CHECKING

from synaptic.backends.scripted import Failure, Reply, ScriptedBackend, default_answer
from synaptic.runtime.session import Session
from synaptic.settings import load_settings
from synaptic.ui.repl.app import open_repl

if TYPE_CHECKING:
    from synaptic.backends.scripted import Answer
    from synaptic.messages import ChatRequest
    from synaptic.settings import Settings

OVERRIDES = ("pipeline=answer", "retries=0", "markdown=false")  # what is waited for is the text as it came
ENDLESS = Reply(text="word " * 100_000, token_delay=0.01)
SLOW = Reply(text="tick " * 40, token_delay=0.05)
_TIMES = count()


def answer(request: ChatRequest) -> Answer:
    """Do what the question asks for; echo any other."""
    question = request.messages[-1].content.rsplit("\n", 1)[-1]
    if question == "talk for ever":
        return ENDLESS
    if question == "take a while":
        return SLOW
    if question == "hang":
        return Failure("stall")
    if question == "answer once":
        return "the only answer" if next(_TIMES) == 0 else Failure("stall")
    if question == "fail":
        return Failure("server_error")
    if question == "crash":
        raise ZeroDivisionError("of the script")
    return default_answer(request)


def scripted_session(settings: Settings) -> Session:
    """Return a session whose backend is scripted."""
    return Session(settings, backend=ScriptedBackend(answer))


if __name__ == "__main__":
    loaded = load_settings(overrides=OVERRIDES)
    go_on, session = "-c" in sys.argv, next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    sys.exit(open_repl(loaded, overrides=OVERRIDES, go_on=go_on, session=session, factory=scripted_session))
