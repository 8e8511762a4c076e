"""Workers that are brought from other machines: by what is registered under the entry points ``synaptic.workers``."""

from __future__ import annotations

import asyncio
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final, Protocol

from synaptic.messages import ignore_report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.backends.distributed.engine import Engine
    from synaptic.messages import Reporter
    from synaptic.settings import RpcBackendSettings, Settings

GROUP: Final = "synaptic.workers"
"""Entry points that bring workers of other machines: a class each, made with the settings and a reporter."""


class BringsWorkers(Protocol):
    """What reaches workers on other machines, and ends them with the program."""

    def count(self) -> int:
        """Return how many machines it would try to reach; none is contacted."""
        ...

    async def start(self, engine: Engine) -> None:
        """Return once each was tried."""
        ...

    def reached(self) -> Sequence[RpcBackendSettings]:
        """Return the workers that were reached up to now, as the settings would name them."""
        ...

    def unreached(self) -> Sequence[str]:
        """Return why others were not, in words."""
        ...

    async def aclose(self) -> None:
        """End them."""
        ...


class Elsewhere:
    """All workers of other machines that are there beside those of the settings, from ``start`` to ``aclose``.

    Args:
        report: Told which machine is not reached, is lost, and is back.
    """

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self._started: list[BringsWorkers] = []

    async def start(self, settings: Settings, engine: Engine) -> None:
        """Return once each machine was tried."""
        for brings in _bringing(settings, self._report):
            self._started.append(brings)
            await brings.start(engine)

    def joined_to(self, settings: Settings) -> Settings:
        """Return the settings with the workers that were reached up to now, as if they named them."""
        found = [worker for brings in self._started for worker in brings.reached()]
        return settings.model_copy(update={"rpc_backends": [*settings.rpc_backends, *found]})

    def unreached(self) -> list[str]:
        """Return why further ones were not reached up to now, in words."""
        return [why for brings in self._started for why in brings.unreached()]

    async def aclose(self) -> None:
        """End them."""
        started, self._started = self._started, []
        await asyncio.gather(*(brings.aclose() for brings in started))


def machines_elsewhere(settings: Settings) -> int:
    """Return how many machines a program would try to reach beside the workers of the settings; none is contacted.

    Raises:
        UsageError: If what names them cannot be read.
    """
    return sum(brings.count() for brings in _bringing(settings, ignore_report))


def _bringing(settings: Settings, report: Reporter) -> list[BringsWorkers]:
    return [point.load()(settings, report) for point in entry_points(group=GROUP)]
