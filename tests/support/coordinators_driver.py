"""The REPL over a backend that shows coordinators, scripted like its answers; for tests on a pseudo-terminal."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from distributed_support import LOADING, READY

from synaptic.backends.base import Capabilities
from synaptic.backends.scripted import ScriptedBackend
from synaptic.errors import EngineUnavailable
from synaptic.runtime.session import Session
from synaptic.settings import load_settings
from synaptic.ui.repl.app import open_repl

if TYPE_CHECKING:
    from synaptic.backends.distributed.coordinator.states import CoordinatorStatus
    from synaptic.settings import Settings

OVERRIDES = ("pipeline=answer", "retries=0")
STEP = 0.125


class CoordinatorsBackend(ScriptedBackend):
    """Echoes, and shows coordinators; each look at one that loads finds it an eighth further."""

    def __init__(self, *statuses: CoordinatorStatus) -> None:
        super().__init__()
        self.known = {status.model: status for status in statuses}
        self.capabilities = Capabilities(coordinators=self)

    def coordinators(self) -> list[CoordinatorStatus]:
        self.known = {model: further(status) for model, status in self.known.items()}
        return list(self.known.values())

    async def load(self, model: str) -> CoordinatorStatus:
        if model == "broken":
            raise EngineUnavailable("the workers cannot hold it: 3.2 GiB are missing")
        if "slowly" in sys.argv:
            self.known[model] = replace(LOADING, model=model)
            await asyncio.sleep(1.5)
        self.known[model] = replace(READY, model=model)
        return self.known[model]

    async def unload(self, model: str) -> None:
        del self.known[model]


def further(status: CoordinatorStatus) -> CoordinatorStatus:
    """Return the standing at the next look."""
    if status.progress is None:
        return status
    fraction = min(status.progress.fraction + STEP, 1.0)
    return replace(status, progress=replace(status.progress, fraction=fraction))


def session(settings: Settings) -> Session:
    """Return a session over one coordinator that loads."""
    start = replace(LOADING, progress=replace(LOADING.progress, fraction=0.0))
    return Session(settings, backend=CoordinatorsBackend(start))


if __name__ == "__main__":
    loaded = load_settings(overrides=OVERRIDES)
    sys.exit(open_repl(loaded, overrides=OVERRIDES, factory=session))
