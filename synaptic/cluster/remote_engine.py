"""An engine on another machine: where it is, and why one cannot be used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from synaptic.cluster.ssh import BACKEND
from synaptic.errors import EngineUnavailable

if TYPE_CHECKING:
    from synaptic.cluster.machine_list import Machine

FOLDER: Final = ".cache/synapticllamas/engines"
"""Where engines are, below the home of the account there; nothing else is written."""
SENT, BUILT = "rpc-", "built-"
"""How the folders begin that hold engines which were sent, and which were built there."""


@dataclass(frozen=True, slots=True)
class RemoteEngine:
    """An engine on another machine.

    Attributes:
        directory: Where its files are there.
        program: The name of its RPC server.
        sent_bytes: What had to be sent.
    """

    directory: str
    program: str
    sent_bytes: int


def unusable(machine: Machine, what: str, hint: str = "") -> EngineUnavailable:
    """Return the error of an engine that cannot be had on a machine."""
    by_hand = f"build it there: ssh {machine.shown}, then synaptic engine install and synaptic workers start"
    return EngineUnavailable(f"{machine.name} {what}", hint=hint or by_hand, backend=BACKEND, node=machine.name)
