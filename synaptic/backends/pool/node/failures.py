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
    ContextOverflow,
    EngineCrashed,
    ModelNotFound,
    ProtocolError,
    RequestRejected,
    ServerError,
    StreamError,
)

Blame = Literal["node", "model", "busy", "call"]

_CANNOT_LOAD = re.compile(
    r"requires more (?:system |gpu )?memory|out of memory|unable to (?:load model|allocate)|failed to load model|"
    r"model failed to load|error loading model|memory layout cannot be allocated|failed to (?:allocate|commit) memory|"
    r"(?:unsupported|unknown) model|may be incompatible with your version|"
    r"timed out waiting for (?:the )?(?:llama|model) ?(?:runner|server)",
    re.IGNORECASE,
)
"""How Ollama says that a model cannot be loaded on this machine (``server/sched.go``, ``llm/server.go``)."""

_NO_OLLAMA = re.compile(r"answered (?:401|403)\b|has no /api/")
"""Rejections of every call, whatever it asks for: no credentials, or no such route. A probe tells when that is over."""

_NEVER_SENT = re.compile(
    r"nothing answers at|does not resolve|no secure connection|is no address of a server|closed by this program"
)
"""How :mod:`synaptic.backends.http.error_map` words what happens before a request is sent."""


@dataclass(frozen=True, slots=True)
class CallFailure:
    """What to make of one failed call.

    Attributes:
        blame: What failed: the node, this model on this node, nothing (the node is busy), or the call itself, which
            would fail anywhere.
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


def judge(error: BackendError) -> CallFailure:
    """Return what ``error`` means."""
    why = error.message
    match error:
        case BackendBusy():
            return CallFailure(
                "busy", down=False, delivered=False, elsewhere=True, why=why, retry_after=error.retry_after
            )
        case BackendUnavailable():
            return CallFailure("node", down=True, delivered=_NEVER_SENT.search(why) is None, elsewhere=True, why=why)
        case ModelNotFound():
            return CallFailure("model", down=False, delivered=False, elsewhere=True, why=why)
        case ContextOverflow() | CallTimeout():
            return CallFailure("call", down=False, delivered=True, elsewhere=False, why=why)
        case ServerError() | StreamError() | RequestRejected() if _CANNOT_LOAD.search(why):
            return CallFailure("model", down=False, delivered=True, elsewhere=True, why=why)
        case RequestRejected() if _NO_OLLAMA.search(why):
            return CallFailure("node", down=True, delivered=False, elsewhere=True, why=why)
        case ServerError() | ProtocolError() | StreamError() | EngineCrashed():
            return CallFailure("node", down=False, delivered=True, elsewhere=True, why=why)
        case _:
            return CallFailure("call", down=False, delivered=True, elsewhere=False, why=why)
