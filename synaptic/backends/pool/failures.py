"""What a failed call means: whose fault it was, and whether another node would do better. Pure decisions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from synaptic.errors import (
    BackendBusy,
    BackendError,
    BackendUnavailable,
    CallTimeout,
    ModelNotFound,
    ProtocolError,
    RequestRejected,
    ServerError,
    StreamError,
)

Blame = Literal["node", "model", "busy", "call"]

_CANNOT_LOAD = re.compile(
    r"requires more (?:system |gpu )?memory|out of memory|unable to load model|unable to allocate|failed to load model|"
    r"error loading model|unsupported model|unknown model architecture|timed out waiting for llama runner",
    re.IGNORECASE,
)
"""How Ollama says that a model cannot be loaded on this machine (``server/sched.go``, ``llm/server.go``)."""

_REFUSED_CREDENTIALS = re.compile(r"\b(?:401|403)\b|unauthori[sz]ed|forbidden|credentials|api key", re.IGNORECASE)
_NEVER_REACHED = re.compile(r"nothing answers at|does not resolve|no secure connection", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Failure:
    """What to make of one failed call.

    Attributes:
        blame: Whose fault it was: the node's, of this model on this node, of nobody (the node is busy), or of the
            call itself, which would fail anywhere.
        down: The node gets no calls until a probe finds it alive.
        delivered: Whether the server may have begun to work on the call; otherwise sending it again costs nothing.
        elsewhere: Whether it is worth trying another node.
        why: In words.
        retry_after: Seconds, where the server named them.

    """

    blame: Blame
    down: bool
    delivered: bool
    elsewhere: bool
    why: str
    retry_after: float | None = None


def judge(error: BackendError) -> Failure:
    """Return what ``error`` means."""
    why = error.message
    match error:
        case BackendBusy():
            return Failure("busy", down=False, delivered=False, elsewhere=True, why=why, retry_after=error.retry_after)
        case BackendUnavailable():
            reached = _NEVER_REACHED.search(why) is None
            return Failure("node", down=True, delivered=reached, elsewhere=True, why=why)
        case ModelNotFound():
            return Failure("model", down=False, delivered=False, elsewhere=True, why=why)
        case ServerError() | StreamError() | RequestRejected() if _CANNOT_LOAD.search(why):
            return Failure("model", down=False, delivered=True, elsewhere=True, why=why)
        case RequestRejected() if _REFUSED_CREDENTIALS.search(why):
            return Failure("node", down=True, delivered=False, elsewhere=True, why=why)
        case ServerError() | ProtocolError() | StreamError() if not isinstance(error, CallTimeout):
            return Failure("node", down=False, delivered=True, elsewhere=True, why=why)
        case _:
            return Failure("call", down=False, delivered=True, elsewhere=False, why=why)
