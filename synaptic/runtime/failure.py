"""How a failure is raised inside a run: with the path of the step that failed, without the group of its task group."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from synaptic.errors import BudgetExceeded, StepTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from synaptic.errors import SynapticError
    from synaptic.runtime.ledger import Ledger
    from synaptic.runtime.scope import StepContext


class StepFailed(Exception):
    """A step failed, and its event was emitted; the step around it decides what that means.

    ``path`` is that of the step inside which nothing else failed.
    """

    def __init__(self, path: str, cause: SynapticError) -> None:
        super().__init__(path)
        self.path = path
        self.cause = cause


def why_cut(ledger: Ledger, context: StepContext) -> str | None:
    """Return why a step is being cancelled; ``None`` where that comes from outside the run."""
    return context.scope.bounds.meter.spent or ledger.why_cut(context.path)


@asynccontextmanager
async def unwrapped() -> AsyncIterator[None]:
    """Raise what a task group was ended by, not a group of it: a bug first, then a budget, then a failed step."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise min(group.exceptions, key=_urgency) from None


@asynccontextmanager
async def within(seconds: float | None, path: str, ledger: Ledger) -> AsyncIterator[None]:
    """Bound a whole step; the ledger knows that it is the bound which cancels what runs inside.

    Raises:
        StepTimeout: If it took longer than ``seconds``.
    """
    clock = asyncio.timeout(seconds)
    if seconds is not None:
        ledger.clocks[path] = clock
    try:
        async with clock:
            yield
    except TimeoutError as exc:
        if not clock.expired():
            raise
        raise StepTimeout(f"the step took longer than {seconds:g} s", hint="raise its timeout") from exc


def _urgency(error: BaseException) -> int:
    if isinstance(error, StepFailed):
        return 2
    return 1 if isinstance(error, BudgetExceeded) else 0
