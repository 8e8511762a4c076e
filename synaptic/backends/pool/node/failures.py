"""What a failed call means: whose fault it was, and whether another node would do better. Pure decisions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from synaptic.errors import (
    BackendBusy,
    BackendError,
    BackendNotReady,
    BackendUnavailable,
    CallTimeout,
    ContextOverflow,
    EngineCrashed,
    ModelNotFound,
    ProtocolError,
    RequestRejected,
    ServerError,
    StreamError,
    Trouble,
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

_NEVER_SENT = frozenset(
    {
        Trouble.NO_ADDRESS,
        Trouble.CLOSED_HERE,
        Trouble.NO_NAME,
        Trouble.NOT_LISTENING,
        Trouble.NO_ROUTE,
        Trouble.NO_CONNECTION,
        Trouble.CERTIFICATE,
        Trouble.SPEAKS_HTTP,
        Trouble.NO_ENCRYPTION,
    }
)
"""What happens before a request is sent."""

_REFUSES_ALL = frozenset(
    {
        Trouble.UNAUTHORISED,
        Trouble.FORBIDDEN,
        Trouble.PROXY_LOGIN,
        Trouble.LOGIN_PAGE,
        Trouble.MOVED,
        Trouble.WEB_PAGE,
        Trouble.NO_API,
        Trouble.SPEAKS_HTTPS,
        Trouble.CLIENT_CERTIFICATE,
    }
)
"""Refusals of every call, whatever it asks for, until a person acts. A probe tells when that is over."""


@dataclass(frozen=True, slots=True)
class CallFailure:
    """What to make of one failed call.

    Attributes:
        blame: What failed: the node, this model on this node, nothing (the node is busy), or the call itself, which
            would fail anywhere.
        down: The node gets no calls until a probe finds it alive.
        delivered: Whether the server may have begun to work on the call; otherwise sending it again costs nothing.
        elsewhere: Whether it is worth trying another node.
        retry_after: Seconds, where the server named them.
        starting: Of a busy node: it is not ready yet, and will have all its places once it is.
        lasting: Whether the node would refuse the same call again.
    """

    blame: Blame
    down: bool
    delivered: bool
    elsewhere: bool
    why: str
    retry_after: float | None = None
    starting: bool = False
    lasting: bool = False


def judge(error: BackendError) -> CallFailure:
    """Return what ``error`` means."""
    why = error.message
    match error:
        case BackendBusy():
            return CallFailure(
                "busy",
                down=False,
                delivered=False,
                elsewhere=True,
                why=why,
                retry_after=error.retry_after,
                starting=isinstance(error, BackendNotReady),
            )
        case BackendError() if error.trouble in _REFUSES_ALL:
            return CallFailure("node", down=True, delivered=False, elsewhere=True, why=why, lasting=True)
        case BackendUnavailable():
            sent = error.trouble not in _NEVER_SENT
            return CallFailure("node", down=True, delivered=sent, elsewhere=True, why=why)
        case ModelNotFound():
            return CallFailure("model", down=False, delivered=False, elsewhere=True, why=why)
        case ContextOverflow() | CallTimeout():
            return CallFailure("call", down=False, delivered=True, elsewhere=False, why=why)
        case ServerError() | StreamError() | RequestRejected() if _CANNOT_LOAD.search(why):
            return CallFailure("model", down=False, delivered=True, elsewhere=True, why=why)
        case ServerError() | ProtocolError() | StreamError() | EngineCrashed():
            return CallFailure("node", down=False, delivered=True, elsewhere=True, why=why)
        case _:
            return CallFailure("call", down=False, delivered=True, elsewhere=False, why=why)
