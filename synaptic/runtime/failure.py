"""How a failure is raised inside a run: with the path of the step that failed, without the group of its task group."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from synaptic.errors import BudgetExceeded, StepTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from synaptic.errors import SynapticError


class StepFailed(Exception):
    """A step failed, and its event was emitted; the step around it decides what that means."""

    def __init__(self, path: str, cause: SynapticError) -> None:
        super().__init__(path)
        self.path = path
        self.cause = cause


@asynccontextmanager
async def unwrapped() -> AsyncIterator[None]:
    """Raise what a task group was ended by, not a group of it: a bug first, then a budget, then a failed step."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise min(group.exceptions, key=_urgency) from None


@asynccontextmanager
async def within(seconds: float | None, path: str) -> AsyncIterator[None]:
    """Bound a whole step.

    Raises:
        StepTimeout: If it took longer than ``seconds``.

    """
    clock = asyncio.timeout(seconds)
    try:
        async with clock:
            yield
    except TimeoutError as exc:
        if not clock.expired():
            raise
        raise StepTimeout(f"{path} took longer than {seconds:g} s", hint="raise its timeout") from exc


def _urgency(error: BaseException) -> int:
    if isinstance(error, StepFailed):
        return 2
    return 1 if isinstance(error, BudgetExceeded) else 0
