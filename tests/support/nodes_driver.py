"""The REPL over a backend that shows nodes, scripted like its answers; for tests on a pseudo-terminal."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from synaptic.backends.base import Capabilities
from synaptic.backends.pool.node.status import Candidate, Decision, ModelStatus, NodeStatus
from synaptic.backends.scripted import ScriptedBackend
from synaptic.runtime.session import Session
from synaptic.settings import load_settings
from synaptic.ui.repl.app import open_repl

if TYPE_CHECKING:
    from synaptic.settings import Settings

OVERRIDES = ("pipeline=answer", "retries=0")

MODEL = ModelStatus(
    name="tiny:latest",
    loaded=True,
    size_bytes=1000,
    vram_share=1.0,
    context_length=4096,
    first_token=0.4,
    output_rate=40.0,
    samples=3,
)
DESK = NodeStatus(
    name="desk",
    url="http://desk:11434",
    condition="up",
    version="0.12.6",
    limit=2,
    cap=2,
    in_flight=0,
    queued=0,
    models=(MODEL,),
    served=0,
    errors=0,
    last_error="",
    reason="",
)
GONE = replace(DESK, name="gone", condition="down", version=None, models=(), reason="connection refused", probe_in=4.0)


class NodesBackend(ScriptedBackend):
    """Echoes, and shows two nodes; each look at them finds one more call waiting."""

    def __init__(self, script=None) -> None:
        super().__init__(script)
        self.looks = 0
        self.decided: list[Decision] = []
        self.capabilities = Capabilities(nodes=self)

    def statuses(self) -> list[NodeStatus]:
        self.looks += 1
        return [replace(DESK, queued=self.looks), GONE]

    def decisions(self) -> list[Decision]:
        return self.decided


def decision(tag: str) -> Decision:
    """Return why the call of a step went to the desk."""
    candidates = (
        Candidate("desk", 3.1, 0.4, 0.0, 2.7, 512, "taken"),
        Candidate("gone", None, 0.0, 0.0, 0.0, 0, "down: connection refused"),
    )
    return Decision(tag, "tiny:latest", 1, "desk", 0.4, 0.0, candidates, 2)


def nodes_session(settings: Settings) -> Session:
    """Return a session over two scripted nodes."""
    return Session(settings, backend=NodesBackend())


if __name__ == "__main__":
    loaded = load_settings(overrides=OVERRIDES)
    sys.exit(open_repl(loaded, overrides=OVERRIDES, factory=nodes_session))
